"""Progress of long work, for people, on stderr: the one place that draws bars and prints lines from inside the library.

A terminal gets one bar per open ``Progress``; anything else (a log file, a pipe) gets a plain line at most every ten
seconds. Both say how much is done, the rate, the time left, and the facts handed over.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import rich.progress as rich_progress

_LINE_SECONDS = 10.0
"""Between two plain lines."""
_BAR_SECONDS = 0.1
"""Between two drawings of a bar: drawing costs about a millisecond, a small model's step not much more."""
_RATE_SECONDS = 30.0
"""The rate is the mean over this long."""

_quiet = False
_display: rich_progress.Progress | None = None
"""The live display that all open bars share: a terminal holds one."""
_open_bars = 0


def set_quiet(quiet: bool) -> None:
    """The default of ``Progress(quiet=None)`` in this process."""
    global _quiet
    _quiet = quiet


def warn(text: str) -> None:
    """A warning on stderr, above the bars. Quiet does not silence it."""
    _print(f"condgen: warning: {text}")


def _print(text: str) -> None:
    if _display is not None:
        _display.console.print(text, markup=False, highlight=False, soft_wrap=True)
    else:
        print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """``0:07``, ``12:30``, ``3:05:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """A context manager that shows how far one piece of work is.

    Args:
        description: what is done, e.g. ``sampling``.
        total: how many units make the whole; None: unknown, or a budget that ``fraction`` reports.
        unit: what is counted, in the plural: ``images``.
        quiet: show nothing; None: as ``set_quiet`` says.
        done: units that were there before.
    """

    def __init__(
        self, description: str, total: int | None, unit: str, quiet: bool | None = None, done: int = 0
    ) -> None:
        self.description = description
        self.total = total
        self.unit = unit
        self.quiet = _quiet if quiet is None else quiet
        self._count = done
        self._fraction = 0.0
        self._budget = False  # whether `fraction` was told: it then decides the time left
        self._facts: dict[str, object] = {}
        self._task: rich_progress.TaskID | None = None

    def __enter__(self) -> Self:
        now = time.monotonic()
        self._shown_at = now
        # (moment, units done, fraction done), the last _RATE_SECONDS of them
        self._past: deque[tuple[float, int, float]] = deque(
            [(now, self._count, self._count / self.total if self.total else 0.0)]
        )
        if not self.quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._task = _add_bar(self.description)
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None:
            _remove_bar(self._task)

    def advance(self, n: int = 1, **facts: object) -> None:
        """``n`` more units are done. ``facts`` are shown as ``name value``."""
        self._count += n
        self._facts.update(facts)
        if self._budget:
            return
        if self.total:
            self._fraction = self._count / self.total
        self._moved()

    def fraction(self, f: float, **facts: object) -> None:
        """``f`` of the whole (0 to 1) is done: for a budget of minutes, or of minutes and steps together.

        Told after ``advance``: once a budget is known it is this call that draws, with all figures of one moment.
        """
        if not self._budget:
            # a resumed run starts with some of its budget spent: that share was not spent just now
            self._budget = True
            self._past = deque([(self._past[0][0], self._past[0][1], f)])
        self._fraction = min(max(f, 0.0), 1.0)
        self._facts.update(facts)
        self._moved()

    def line(self, text: str) -> None:
        """Print a line above the bar; nothing where quiet."""
        if not self.quiet:
            _print(text)

    def _moved(self) -> None:
        now = time.monotonic()
        interval = _LINE_SECONDS if self._task is None else _BAR_SECONDS
        if self.quiet or now - self._shown_at < interval:
            return
        self._shown_at = now
        self._past.append((now, self._count, self._fraction))
        while len(self._past) > 2 and now - self._past[1][0] > _RATE_SECONDS:
            self._past.popleft()
        if self._task is None or _display is None:
            _print(f"{self.description}: {self.status(now)}")
        else:
            _display.update(self._task, completed=self._fraction, status=self.status(now), refresh=True)

    def status(self, now: float) -> str:
        """What stands behind the bar: ``120/1000 images, 35.1 images/s, 0:25 left, bits/dim 4.81``."""
        since, count, fraction = self._past[0]
        elapsed = now - since
        parts = []
        if self._count:
            parts.append(f"{self._count}/{self.total} {self.unit}" if self.total else f"{self._count} {self.unit}")
        if elapsed > 0 and self._count > count:
            parts.append(f"{(self._count - count) / elapsed:.3g} {self.unit}/s")
        if elapsed > 0 and self._fraction > fraction:
            parts.append(f"{duration((1 - self._fraction) / (self._fraction - fraction) * elapsed)} left")
        for name, value in self._facts.items():
            parts.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
        return ", ".join(parts)


def _add_bar(description: str) -> rich_progress.TaskID:
    global _display, _open_bars
    import rich.console
    import rich.progress as rich_progress

    if _display is None:
        text = rich_progress.TextColumn
        _display = rich_progress.Progress(
            text("{task.description}", markup=False),
            rich_progress.BarColumn(bar_width=24),
            text("{task.fields[status]}", markup=False),
            console=rich.console.Console(stderr=True),
            auto_refresh=False,  # no thread: forks and signals stay simple
            transient=True,
        )
        _display.start()
    _open_bars += 1
    return _display.add_task(description, total=1.0, status="")


def _remove_bar(task: rich_progress.TaskID) -> None:
    global _display, _open_bars
    if _display is None:
        return
    _display.remove_task(task)
    _open_bars -= 1
    if _open_bars == 0:
        _display.stop()
        _display = None
