"""The benchmark of kept conditions: what it times and prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(*arguments: str) -> str:
    pytest.importorskip("facenet_pytorch")
    command = [sys.executable, str(BENCHMARKS / "embeddings.py"), "--smoke", "--device", "cpu", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_json_has_what_it_promises() -> None:
    report = json.loads(run("--json", "--recipes", "quickstart"))
    (row,) = report["configurations"]
    assert row["encoder_parameters"] > 23e6 and row["batch"] == 2
    assert row["share_saved"] == pytest.approx(1 - row["step_seconds_kept"] / row["step_seconds"], abs=1e-3)
    # a tiny decoder spends nearly all of a step in the encoder, which the kept conditions save
    assert 0.5 < row["share_saved"] < 1
    saved = row["step_seconds"] - row["step_seconds_kept"]
    assert saved == pytest.approx(2 * row["encoder_seconds_per_image"], rel=0.7)


def test_a_table_for_people() -> None:
    assert "encoder of 23.5 million parameters" in run("--recipes", "quickstart").splitlines()[0]
