"""Signals as flags. A handler only remembers: saving inside one could meet a half-done step.

This module does not import torch, so that a command can install the handlers before that takes its time.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self

from condgen.errors import CondgenError, Interrupted


class Signals:
    """While entered: SIGINT, SIGTERM and SIGHUP ask for a stop after the current step, SIGUSR1 for a save.

    A second SIGINT raises ``Interrupted`` at once. Outside the main thread nothing is installed.
    """

    def __init__(self) -> None:
        self.stop: int | None = None
        """The exit code that the signal asks for, or None."""
        self.save = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    @contextlib.contextmanager
    def blamed(self, sentence: Callable[[], str]) -> Iterator[None]:
        """What fails inside after a signal that asks for a stop has failed by it: a terminal's Ctrl-C reaches the
        compiler that torch has started as well. Errors of our own stay what they are.

        Raises:
            Interrupted: with the ``sentence``, which is asked for then.
        """
        try:
            yield
        except CondgenError:
            raise
        except Exception as error:
            if self.stop is None:
                raise
            raise Interrupted(sentence(), exit_code=self.stop) from error

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self.save = True
        elif number == signal.SIGINT and self.stop == 130:
            raise Interrupted("Interrupted twice: left at once, without saving.", exit_code=130)
        elif self.stop is None:
            self.stop = 130 if number == signal.SIGINT else 143
