"""Progress: what a log file gets, how rate and time left are computed, and when nothing is shown."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import pytest

from condgen import progress
from condgen.progress import Progress, duration, set_quiet, warn


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr("condgen.progress.time.monotonic", clock.monotonic)
    yield clock
    set_quiet(False)


def test_a_log_gets_a_line_every_ten_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("sampling", 100, "images") as bar:
        for _ in range(50):
            clock.now += 0.5  # 2 images/s, 25 s in all
            bar.advance(1, tile="3 of 8")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "sampling: 20/100 images, 2 images/s, 0:40 left, tile 3 of 8",
        "sampling: 40/100 images, 2 images/s, 0:30 left, tile 3 of 8",
    ]


def test_a_budget_decides_the_time_left_and_a_resumed_share_is_not_counted(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("training", 1000, "images") as bar:
        bar.fraction(0.5)  # resumed half way
        for step in range(1, 13):
            clock.now += 1.0
            bar.advance(32)
            bar.fraction(0.5 + step / 100, **{"bits/dim": 4.81234})
    assert "320/1000 images, 32 images/s, 0:40 left, bits/dim 4.812" in capsys.readouterr().err


def test_what_was_there_before_counts_as_done_but_not_for_the_rate(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("sampling", 100, "images", done=60) as bar:
        bar.fraction(0.6)
        for k in range(1, 13):
            clock.now += 1.0
            bar.advance(2)
            bar.fraction(0.6 + 0.02 * k)
    assert "sampling: 80/100 images, 2 images/s, 0:10 left" in capsys.readouterr().err


def test_the_rate_forgets_what_is_older_than_half_a_minute(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("scoring", None, "images") as bar:
        for rate in (100, 1):
            for _ in range(60):
                clock.now += 1.0
                bar.advance(rate)
    assert capsys.readouterr().err.splitlines()[-1] == "scoring: 6060 images, 1 images/s"


def test_quiet_shows_nothing_but_warnings(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    set_quiet(True)
    with Progress("training", 10, "images") as bar:
        clock.now += 60
        bar.advance(10)
        bar.line("a line")
    warn("the disk is nearly full")
    assert capsys.readouterr() == ("", "condgen: warning: the disk is nearly full\n")


def test_a_terminal_shares_one_display_and_keeps_lines(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with Progress("training", 4, "images") as outer:
        clock.now += 1
        outer.advance()
        with Progress("sampling", 2, "images") as inner:
            clock.now += 1
            inner.advance()
            outer.line("[bold] is not markup")
        clock.now += 1
        outer.advance()
    text = terminal.getvalue()
    assert "1/4 images" in text and "1/2 images" in text and "2/4 images" in text
    assert "[bold] is not markup" in text
    assert progress._display is None  # the terminal is given back


@pytest.mark.parametrize(("seconds", "text"), [(7, "0:07"), (750, "12:30"), (11100, "3:05:00"), (59.7, "1:00")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
