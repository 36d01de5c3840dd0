from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from condgen.condition import DataInfo
from condgen.errors import MachineError, ModelError, RecipeError
from condgen.recipe import Recipe, read_recipe
from condgen.recipe.schema import DataSection, ModelSection, TrainSection
from condgen.store.lock import Lock
from condgen.store.run import FREE, Run, read_log
from condgen.store.sealed import read_sealed, seal

INFO = DataInfo(3, 8, 8)
RECIPE = Recipe(train=TrainSection(max_steps=5))


ANOTHER = """
import sys
from pathlib import Path
from condgen.errors import MachineError
from condgen.store.lock import Lock
for attempt in range(2):
    try:
        Lock(Path(sys.argv[1]))
    except MachineError as error:
        print(error.message)
"""


def open_run(folder: Path, recipe: Recipe = RECIPE, fingerprint: str = "images") -> Run:
    return Run(folder, recipe, INFO, fingerprint, warn=print)


def test_what_a_run_consists_of(tmp_path: Path) -> None:
    with open_run(tmp_path / "deep" / "run") as run:
        run.note(state="training", step=3)
    assert sorted(os.listdir(run.folder)) == [
        ".lock",
        "config.json",
        "metrics.jsonl",
        "recipe.yaml",
        "samples",
        "status.json",
    ]
    assert read_recipe(run.folder / "recipe.yaml") == RECIPE
    assert json.loads((run.folder / "status.json").read_text()) == {"state": "training", "step": 3}


def test_one_writer(tmp_path: Path) -> None:
    with open_run(tmp_path / "run"):
        with pytest.raises(MachineError, match="being written by this very process") as caught:
            open_run(tmp_path / "run")
        assert caught.value.exit_code == 6
        command = [sys.executable, "-c", ANOTHER, str(tmp_path / "run" / ".lock")]
        done = subprocess.run(command, capture_output=True, text=True)
        first, second = done.stdout.splitlines()
        assert f"is being written by process {os.getpid()} on " in first
        assert first == second  # neither refused attempt dropped the lock
    open_run(tmp_path / "run").close()


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    lock = Lock(tmp_path / ".lock")
    child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        lock.close()
        Lock(tmp_path / ".lock").close()
    finally:
        child.kill()
        child.wait()


def test_a_linked_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / ".lock").symlink_to(tmp_path / "target")
    with pytest.raises(RecipeError):
        Lock(tmp_path / ".lock")
    assert (tmp_path / "target").read_text() == "precious"


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ModelError, match="holds other files than a run"):
        open_run(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_what_a_killed_start_left(tmp_path: Path) -> None:
    """Killed before config.json, or in the middle of writing something: the next start is not disturbed."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (".lock", ".condgen-17-0123abcd.tmp"):
        (folder / name).write_text("")
    open_run(folder).close()
    assert ".condgen-17-0123abcd.tmp" not in os.listdir(folder)


def test_the_recipe_of_a_run_is_fixed(tmp_path: Path) -> None:
    open_run(tmp_path / "run").close()
    before = {
        path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file() and path.name[0] != "."
    }
    wider = RECIPE.model_copy(update={"model": ModelSection(filters=65)})
    with pytest.raises(ModelError, match=r"model\.filters = 64, not 65; set it back, or choose another") as caught:
        open_run(tmp_path / "run", wider)
    assert caught.value.exit_code == 4 and caught.value.field == "model.filters"
    with pytest.raises(ModelError, match="fingerprint = images, not others"):
        open_run(tmp_path / "run", fingerprint="others")
    assert all(path.read_bytes() == content for path, content in before.items())
    longer = RECIPE.model_copy(update={"train": TrainSection(max_steps=500), "data": DataSection(root="/elsewhere")})
    open_run(tmp_path / "run", longer).close()
    assert read_recipe(tmp_path / "run" / "recipe.yaml").train.max_steps == 500


def test_a_field_that_is_newer_than_the_run_has_its_default(tmp_path: Path) -> None:
    open_run(tmp_path / "run").close()
    config = tmp_path / "run" / "config.json"
    content = read_sealed(config)
    del content["recipe"]["model"]["skips"]
    config.write_bytes(seal(content))
    open_run(tmp_path / "run").close()
    config.write_bytes(seal(content))
    with pytest.raises(ModelError, match="skips = True, not False"):
        open_run(tmp_path / "run", RECIPE.model_copy(update={"model": ModelSection(skips=False)}))


def test_free_fields_exist() -> None:
    for section, fields in FREE.items():
        assert section in Recipe.model_fields
        known = getattr(Recipe(train=TrainSection(max_steps=1)), section)
        assert not fields or fields <= set(type(known).model_fields), section


def test_a_damaged_config_is_refused(tmp_path: Path) -> None:
    open_run(tmp_path / "run").close()
    config = tmp_path / "run" / "config.json"
    config.write_bytes(config.read_bytes().replace(b'"filters": 64', b'"filters": 46'))
    with pytest.raises(ModelError, match=r"config\.json is damaged"):
        open_run(tmp_path / "run")


def test_the_log_is_cut_back(tmp_path: Path) -> None:
    with open_run(tmp_path / "run") as run:
        for step in range(1, 7):
            run.log({"step": step, "loss": step / 3})
        run.cut_log(4)
        run.log({"step": 5, "loss": 0.1 + 0.2})
    lines = read_log(run.folder / "metrics.jsonl")
    assert lines == [{"step": s, "loss": s / 3} for s in range(1, 5)] + [{"step": 5, "loss": 0.1 + 0.2}]


def test_a_log_cut_anywhere_loses_its_last_line_at_most(tmp_path: Path) -> None:
    with open_run(tmp_path / "run") as run:
        for step in (1, 2, 3):
            run.log({"step": step, "loss": -1.5e-300 * step})
    path = run.folder / "metrics.jsonl"
    whole = path.read_bytes()
    for length in range(whole.find(b"\n"), len(whole) + 1, 3):
        path.write_bytes(whole[:length])
        found = read_log(path)
        assert [line["step"] for line in found] == list(range(1, whole[:length].count(b"\n") + 1))
        with open_run(tmp_path / "run") as run:
            run.cut_log(3)
        assert path.read_bytes() == whole[: whole[:length].rfind(b"\n") + 1]


def test_a_full_disk_is_told_by_the_log(tmp_path: Path) -> None:
    with open_run(tmp_path / "run") as run:
        os.dup2(os.open("/dev/full", os.O_WRONLY), run._metrics)
        with pytest.raises(MachineError, match=r"metrics\.jsonl cannot be written \(No space left on device\)"):
            run.log({"step": 1})
