"""SIGKILL at any moment costs steps since the last checkpoint and nothing else: the end is the uninterrupted one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import contents, tiny_recipe

from condgen.train.run import run_training

VICTIM = Path(__file__).with_name("victim.py")


AUTOENCODER = {"encoder__type": "autoencoder", "encoder__size": 3, "encoder__filters": 2}
KINDS: dict[str, dict[str, object]] = {
    "labels": {},
    "autoencoder": AUTOENCODER,
    "squared_error": {**AUTOENCODER, "train__objective": "squared_error"},
}


@pytest.mark.parametrize(
    ("kind", "kills"),
    [("labels", 5), ("autoencoder", 3), ("squared_error", 3)]
    + [pytest.param(kind, 200, marks=pytest.mark.slow) for kind in KINDS],
)
def test_kill_storm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, kills: int) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fixed = {"train__max_steps": 12 * kills, "train__checkpoint_every": 5, "train__evaluate_every": 7}
    recipe = tiny_recipe(tmp_path, **{**fixed, **KINDS[kind]})
    run_training(recipe, out=tmp_path / "whole", quiet=True)
    done = subprocess.run(
        [sys.executable, str(VICTIM), str(tmp_path), str(kills), "1", json.dumps(KINDS[kind])],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60 + 5 * kills,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert json.loads(done.stdout.splitlines()[-1])["in_saves"] >= kills // 10
