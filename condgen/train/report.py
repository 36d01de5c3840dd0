"""What training tells: metrics.jsonl, TensorBoard where it is installed, and a progress bar. Rank 0 alone."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any, Self

from condgen.progress import Progress
from condgen.store.run import Run, read_log


class Report:
    """Entered for as long as the loop runs.

    Args:
        run: where the metrics go.
        step: the step training starts after; later lines are cut off the log.
        tensorboard: write events too, if tensorboard is installed.
    """

    def __init__(self, run: Run, step: int, *, tensorboard: bool, quiet: bool | None) -> None:
        self._run = run
        self._quiet = quiet
        self._stack = contextlib.ExitStack()
        self._smooth: float | None = None
        run.cut_log(step)
        self._events: Any = _events(run, step) if tensorboard else None

    def __enter__(self) -> Self:
        self._progress = self._stack.enter_context(Progress("training", None, "images", self._quiet))
        if self._events is not None:
            self._stack.callback(self._events.close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def step(self, line: dict[str, Any]) -> None:
        """One line of the log: ``step`` and what was measured in it."""
        self._run.log(line)
        if self._events is not None:
            for name, value in line.items():
                if name != "step" and not isinstance(value, bool):
                    self._events.add_scalar(name, value, line["step"])

    def amend(self, step: int, found: dict[str, float]) -> None:
        """Adds ``found`` to the line of ``step``, the last of the log."""
        lines = [line for line in read_log(self._run.folder / "metrics.jsonl") if line["step"] == step]
        self._run.cut_log(step - 1)
        self.step({**(lines[0] if lines else {"step": step}), **found})

    def moved(self, images: int, fraction: float, unit: str, value: float | None) -> None:
        """``images`` more are done, ``fraction`` of the whole; ``value`` of this step, shown smoothed."""
        if value is not None:
            self._smooth = value if self._smooth is None else 0.95 * self._smooth + 0.05 * value
        facts = {} if self._smooth is None else {unit.replace("bits_per_dim", "bits/dim"): self._smooth}
        self._progress.advance(images, **facts)
        self._progress.fraction(fraction)

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._progress.line(text)


def _events(run: Run, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run.folder / "tensorboard"), purge_step=step + 1)
