"""What the documents show runs: code blocks, commands, links, the example program."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import condgen
from condgen import plugins
from condgen.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TINY = {
    "data.identities": 16,
    "data.views": 2,
    "model.filters": 8,
    "model.layers": 2,
    "model.first_kernel_size": 3,
    "model.map_channels": 4,
    "train.max_steps": 2,
    "train.evaluate_images": 0,
    "sample.count": 1,
    "data.image_size": 16,
}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_commands_in_the_documents_exist() -> None:
    known = set(app().commands)
    used = {verb for page in PAGES for block in blocks(page, "bash") for verb in re.findall(r"condgen ([a-z]+)", block)}
    assert used and used <= known


def test_the_lines_that_make_an_npz_of_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tensorflow that has read the checkpoint: the averages go into the model."""
    weights = {f"model/{name}": np.full(3, value, np.float32) for name, value in (("a/V", 1), ("a/V/Average", 2))}
    reader = SimpleNamespace(
        get_variable_to_shape_map=lambda: dict.fromkeys([*weights, "Variable_3"]), get_tensor=weights.__getitem__
    )
    fake = SimpleNamespace(train=SimpleNamespace(load_checkpoint=lambda prefix: reader))
    monkeypatch.setitem(sys.modules, "tensorflow", fake)
    monkeypatch.chdir(tmp_path)
    [code] = blocks(ROOT / "docs" / "import.md", "python")
    exec(compile(code, "docs/import.md", "exec"), {})  # noqa: S102
    with np.load("params_cifar.npz", allow_pickle=False) as made:
        assert {name: made[name].tolist() for name in made.files} == {k: v.tolist() for k, v in weights.items()}


def test_the_readme_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    condgen.train("quickstart", {**TINY, "data.image_size": 16}, quiet=True)
    [code] = blocks(ROOT / "README.md", "python")
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102
    assert tuple(names["x"].shape) == (4, 3, 16, 16) and tuple(names["nats"].shape) == (4,)  # type: ignore[attr-defined]


def test_the_example_beside_a_folder_of_the_users_own_named_encoders(tmp_path: Path) -> None:
    """Its definitions, in under 40 lines, in a process that has a package ``encoders`` of its own at hand."""
    source = (ROOT / "examples" / "custom_encoder.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) < 40
    (tmp_path / "encoders").mkdir()
    (tmp_path / "encoders" / "__init__.py").write_text("raise RuntimeError('the user\\'s own was imported')")
    short = source.replace('"train.max_minutes": 1', ", ".join(f"{key!r}: {value!r}" for key, value in TINY.items()))
    assert short != source
    (tmp_path / "mine.py").write_text(short)
    done = subprocess.run(
        [sys.executable, "mine.py"], cwd=tmp_path, capture_output=True, text=True, env=os.environ.copy()
    )
    assert done.returncode == 0, done.stderr
    assert "4 pictures" in done.stdout


@pytest.mark.slow
def test_the_example_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "_registered", {})
    runpy.run_path(str(ROOT / "examples" / "custom_encoder.py"), run_name="__main__")
    assert (tmp_path / "runs" / "light" / "checkpoints").is_dir()
