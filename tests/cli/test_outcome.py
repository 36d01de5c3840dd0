"""From errors to sentences and exit codes, with a command of our own that fails in every way."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from condgen.cli.options import Debug, Json
from condgen.cli.outcome import answer, run
from condgen.errors import (
    CheckFailed,
    CondgenError,
    InputError,
    Interrupted,
    MachineError,
    ModelError,
    NumericalError,
    RecipeError,
)

Captured = pytest.CaptureFixture[str]


def failing(error: Callable[[], BaseException] | None = None) -> Any:
    """A group with the commands ``do`` and ``other``; ``do`` raises what ``error`` makes."""
    app = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)

    @app.command()
    def do(
        count: Annotated[int, typer.Option("--count", min=1)] = 1, as_json: Json = False, debug: Debug = False
    ) -> None:
        if error is not None:
            raise error()
        answer({"count": count}, f"count {count}", as_json)

    @app.command()
    def other() -> None:
        pass

    return typer.main.get_command(app)


ERRORS: list[tuple[Callable[[], BaseException], int, str]] = [
    (lambda: CheckFailed("It fails.", file="runs/a"), 1, "check"),
    (lambda: RecipeError("a.yaml, line 7: no.", file="a.yaml", field="train.x"), 2, "usage"),
    (lambda: InputError("No image.", file="b.png"), 3, "input"),
    (lambda: ModelError("No model."), 4, "model"),
    (lambda: NumericalError("NaN."), 5, "numerical"),
    (lambda: MachineError("Disk full."), 6, "machine"),
    (lambda: MemoryError(), 6, "machine"),
    (lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 6, "machine"),
    (lambda: Interrupted("Stopped after step 3, which is saved.", exit_code=143), 143, "interrupted"),
    (lambda: KeyboardInterrupt(), 130, "interrupted"),
]


@pytest.mark.parametrize(("error", "code", "kind"), ERRORS, ids=[repr(make()) for make, _, _ in ERRORS])
def test_an_error_is_one_sentence_and_a_code(
    error: Callable[[], BaseException], code: int, kind: str, capsys: Captured
) -> None:
    assert run(failing(error), ["do"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"condgen: {'stopped' if kind == 'interrupted' else 'error'}: [^\n]+\n", err)

    assert run(failing(error), ["do", "--json"]) == code
    out, err = capsys.readouterr()
    assert err == ""
    found, raised = json.loads(out), error()
    assert (found["ok"], found["code"], found["kind"]) == (False, code, kind)
    if isinstance(raised, CondgenError):
        assert found["message"] == raised.message
        assert (found.get("file"), found.get("field")) == (raised.file, raised.field)


def test_success_prints_text_or_one_object(capsys: Captured) -> None:
    assert run(failing(), ["do", "--count", "3"]) == 0
    assert capsys.readouterr() == ("count 3\n", "")
    assert run(failing(), ["do", "--count", "3", "--json"]) == 0
    assert capsys.readouterr() == ('{"count": 3}\n', "")


def test_an_unexpected_error_is_called_a_bug_and_its_traceback_kept(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def make() -> BaseException:
        return KeyError("odd\x1b[2J")

    assert run(failing(make), ["do"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err and err.count("\n") == 1 and err[:-1].isprintable()
    assert err.startswith("condgen: error: this is a bug in condgen 0.")
    (file,) = tmp_path.iterdir()
    assert str(file) in err and "Traceback" in file.read_text() and "KeyError" in file.read_text()

    assert run(failing(make), ["do", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["kind"] == "bug"


def test_debug_shows_the_traceback(capsys: Captured) -> None:
    assert run(failing(lambda: InputError("No image.")), ["do", "--debug"]) == 3
    err = capsys.readouterr().err
    assert "Traceback" in err and err.endswith("condgen: error: No image.\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dо"], "There is no command 'dо'; "),  # a Cyrillic o
        (["oter"], "There is no command 'oter'; did you mean other?"),
        (["zzz"], "There is no command 'zzz'; there are do, other."),
        (["do", "--cuont", "3"], "No such option: --cuont"),
        (["do", "--count", "many"], "Invalid value for '--count'"),
        (["do", "--count", "1e18"], "Invalid value for '--count'"),
        (["do", "--count", "-1"], "Invalid value for '--count'"),
        (["do", "--count"], "Option '--count' requires an argument; see condgen do --help."),
        (["do", "extra"], "Got unexpected extra argument"),
        (["--nothing"], "No such option: --nothing"),
        (["do", "--" + "x" * 10**6], "No such option: --xxx"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_command_line_is_2(arguments: list[str], message: str, capsys: Captured) -> None:
    assert run(failing(), arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"condgen: error: {message}") and err.count("\n") == 1 and len(err) < 700
    assert run(failing(), [*arguments, "--json"]) == 2
    out, err = capsys.readouterr()
    assert err == "" and json.loads(out)["code"] == 2


def test_no_arguments_show_the_help(capsys: Captured) -> None:
    assert run(failing(), []) == 0
    assert capsys.readouterr().out.startswith("Usage: condgen")


def test_only_the_first_of_many_processes_answers(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert run(failing(), ["do", "--json"]) == 0
    assert capsys.readouterr() == ("", "")
    assert run(failing(lambda: MachineError("Lost.")), ["do", "--json"]) == 6
    assert capsys.readouterr() == ("", "")
    assert run(failing(lambda: MachineError("Lost.")), ["do"]) == 6
    assert capsys.readouterr().err == "condgen (process 1): error: Lost.\n"


def test_a_closed_pipe_is_141_and_silent() -> None:
    code = "import sys; sys.argv = ['condgen', 'recipes', 'quickstart']; from condgen.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()  # before anything is written
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(60), err) == (141, b"")


def test_an_interrupt_while_commands_are_imported_leaves_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    from condgen import cli

    def interrupted() -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("condgen.cli.app.app", interrupted)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 130
    assert capsys.readouterr() == ("", "")
