"""The errors that a person can cause or cure, each with its exit code (docs/commands.md lists the codes).

Whoever raises one writes a single sentence: which file or field, what is wrong with it, what to do. The command
line prints that sentence and ends with ``exit_code``; a traceback is shown on ``--debug`` alone.
"""

from __future__ import annotations


class CondgenError(Exception):
    """Base class. ``message`` is one sentence; ``file`` and ``field`` name the culprit where there is one."""

    exit_code = 1
    kind = "check"

    def __init__(self, message: str, *, file: object = None, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.file = None if file is None else str(file)
        self.field = field


class CheckFailed(CondgenError):
    """A check that was asked for (``verify``) failed."""


class RecipeError(CondgenError):
    """The command line or the recipe is wrong, or names something that is not installed."""

    exit_code = 2
    kind = "usage"


class InputError(CondgenError):
    """An input cannot be used: unreadable image, empty folder, label out of range."""

    exit_code = 3
    kind = "input"


class ModelError(CondgenError):
    """A saved model, a checkpoint or an encoder cannot be used."""

    exit_code = 4
    kind = "model"


class NumericalError(CondgenError):
    """Training or evaluation produced NaN or infinity."""

    exit_code = 5
    kind = "numerical"


class MachineError(CondgenError):
    """The machine is in the way: disk full or read-only, device or optional package missing, run locked."""

    exit_code = 6
    kind = "machine"


class Interrupted(CondgenError):
    """Stopped by a signal. ``exit_code`` is 130 (SIGINT) or 143 (SIGTERM, SIGHUP)."""

    kind = "interrupted"

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, wherever the program is: what Ctrl-C is, but for the exit code."""

    exit_code = 143


def lacks_memory(error: BaseException) -> bool:
    """Whether Python, torch on a processor or torch on an accelerator says that the memory does not suffice."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in text
        or "DefaultCPUAllocator" in text
    )


def shown(name: object) -> str:
    """``name`` as it may be printed: control characters, escapes and lone surrogates made visible."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(name))
