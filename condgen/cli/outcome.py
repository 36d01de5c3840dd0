"""The one place where what happened becomes words and an exit code."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from types import FrameType
from typing import Any

import typer

from condgen.errors import CondgenError, MachineError, RecipeError, Terminated, lacks_memory, shown

# typer brings its own copy of click or uses an installed one; these classes are of whichever it is
_UsageError: Any = typer.BadParameter.__base__
_ClickException: Any = _UsageError.__base__


def answer(result: Mapping[str, Any], text: str | Callable[[], str], as_json: bool) -> None:
    """Prints what a command found: ``result`` as one JSON object, or ``text`` for people. Of ranks only rank 0."""
    if _rank():
        return
    if as_json:
        print(json.dumps(result, allow_nan=False))
    else:
        print(text if isinstance(text, str) else text())


def run(command: Any, arguments: Sequence[str]) -> int:
    """Runs ``command`` (a click group) and returns the exit code; prints at most one sentence if it fails."""
    options = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    as_json, debug = "--json" in options, "--debug" in options
    try:
        with _terminable(), command.make_context("condgen", list(arguments) or ["--help"]) as context:
            command.invoke(context)
        sys.stdout.flush()
        return 0
    except typer.Exit as done:
        sys.stdout.flush()
        return done.exit_code
    except BrokenPipeError:
        # whoever read our output has gone; what is still buffered would fail again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (KeyboardInterrupt, typer.Abort) as error:
        code = getattr(error, "exit_code", 130)
        return _report(CondgenError("Interrupted; nothing was left half done."), error, as_json, debug, code=code)
    except _ClickException as error:
        return _report(RecipeError(_usage(error, command, arguments)), error, as_json, debug)
    except CondgenError as error:
        return _report(error, error, as_json, debug)
    except Exception as error:
        known = _of_the_machine(error)
        if known is not None:
            return _report(known, error, as_json, debug)
        return _report(CondgenError(_bug(error)), error, as_json, debug, kind="bug")


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP end a command as Ctrl-C does: files that it was writing aside go with it. Signals that
    are ignored, as behind ``nohup``, stay so; training has handlers of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    ours = [number for number, handler in before.items() if handler is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _terminate)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _rank() -> int:
    """Which of the processes that train together this is, as torchrun and ``--gpus`` say."""
    text = os.environ.get("RANK", "")
    return int(text) if text.isascii() and text.isdigit() else 0


def _report(
    error: CondgenError,
    cause: BaseException,
    as_json: bool,
    debug: bool,
    code: int | None = None,
    kind: str | None = None,
) -> int:
    code = error.exit_code if code is None else code
    kind = kind or ("interrupted" if code in (130, 143) else error.kind)
    if debug:
        traceback.print_exception(cause, file=sys.stderr)
    rank = _rank()
    if as_json and rank == 0:
        found = {"ok": False, "code": code, "kind": kind, "message": error.message}
        found |= {name: value for name, value in (("file", error.file), ("field", error.field)) if value is not None}
        print(json.dumps(found), flush=True)
    elif not as_json and not (rank and kind == "interrupted"):  # rank 0 says it for all
        who = "condgen" if rank == 0 else f"condgen (process {rank})"
        print(f"{who}: {'stopped' if kind == 'interrupted' else 'error'}: {error.message}", file=sys.stderr, flush=True)
    return code


def _usage(error: Any, command: Any, arguments: Sequence[str]) -> str:
    """click's complaint as one sentence that ends with what to do."""
    text = shown(" ".join(error.format_message().split())).rstrip(".")
    verb = next((word for word in arguments if not word.startswith("-")), None)
    if verb in command.commands:
        return f"{text[:500]}; see condgen {verb} --help."
    near = difflib.get_close_matches(verb or "", command.commands, 1)
    if verb is None:
        return f"{text[:500]}; see condgen --help."
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(command.commands)}."
    return f"There is no command {shown(verb)[:60]!r}; {hint}"


def _of_the_machine(error: Exception) -> MachineError | None:
    """Errors of Python, torch and the system that a person can do something about, or None."""
    if lacks_memory(error):
        return MachineError(
            "The memory does not suffice; lower train.micro_batch (training), sample.tile (sampling) or the batch, the "
            "image or the model size."
        )
    return None


def _bug(error: Exception) -> str:
    """The sentence about an unexpected error; its traceback goes into a new file."""
    name, version = type(error).__name__, metadata.version("condgen")
    try:
        descriptor, path = tempfile.mkstemp(prefix="condgen-", suffix="-traceback.txt")
        with os.fdopen(descriptor, "w", errors="backslashreplace") as file:
            traceback.print_exception(error, file=file)
        where = f"the traceback is in {path}"
    except OSError:
        where = "--debug shows the traceback"
    return f"this is a bug in condgen {version} ({name}: {shown(error)[:200]}); {where}, please report it."
