"""How much of a run is done, in steps and in minutes. Minutes add up over restarts; only a monotonic clock is asked."""

from __future__ import annotations

import time
from collections.abc import Callable


class Budget:
    """A run ends after ``max_steps`` steps or ``max_minutes`` minutes, whichever comes first.

    Args:
        spent: seconds that earlier processes trained, evaluated and drew.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        max_steps: int | None,
        max_minutes: float | None,
        spent: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_steps = max_steps
        self.max_seconds = None if max_minutes is None else 60 * max_minutes
        self._clock = clock
        self._start = clock() - spent

    @property
    def seconds(self) -> float:
        """Seconds of this run, those of earlier processes included."""
        return self._clock() - self._start

    def fraction(self, step: int) -> float:
        """How much of the run is done after ``step`` steps, 0 to 1."""
        by_steps = step / self.max_steps if self.max_steps else 0.0
        by_time = self.seconds / self.max_seconds if self.max_seconds else 0.0
        return min(1.0, max(by_steps, by_time))

    def exhausted(self, reserve: float) -> bool:
        """Whether the minutes end within ``reserve`` seconds."""
        return self.max_seconds is not None and self.seconds + reserve >= self.max_seconds
