"""Processes started by one command: their exit codes, their signals, and one answer for all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from condgen.errors import MachineError
from condgen.train import launch as module
from condgen.train.launch import launch

TINY = """
data: {image_size: 16, identities: 8, views: 1}
model: {filters: 3, layers: 1, kernel_size: 3, likelihood: logistic_mixture, mixtures: 1}
train: {batch_size: 4, max_steps: 2, evaluate_images: 4, tensorboard: false}
sample: {count: 0}
"""


def workers(*codes: str) -> list[subprocess.Popen[bytes]]:
    return [subprocess.Popen([sys.executable, "-S", "-c", code]) for code in codes]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (["pass", "pass"], 0),
        (["pass", "raise SystemExit(3)"], 3),
        (["raise SystemExit(6)", "import time; time.sleep(.3); raise SystemExit(5)"], 5),  # 6: the other was lost
        (["raise SystemExit(6)", "raise SystemExit(6)"], 6),
        (["import os; os.kill(os.getpid(), 9)", "raise SystemExit(6)"], 137),
        (["raise SystemExit(4)", "import time; time.sleep(60)"], 4),  # the other hangs
    ],
)
def test_the_code_is_that_of_the_culprit(codes: list[str], expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GRACE_SECONDS", 1.0)
    begun = time.monotonic()
    running = workers(*codes)
    try:
        assert module._watch(running) == expected
        assert time.monotonic() - begun < 20
    finally:
        for worker in running:
            worker.kill()
            worker.wait()


def test_more_gpus_than_there_are() -> None:
    with pytest.raises(MachineError, match=r"--gpus: 9999 GPUs are asked for, \d+ are here"):
        launch(["train"], 9999, None)


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def test_two_processes_give_one_answer(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    command = [sys.executable, "-m", "condgen", "train", "tiny.yaml", "--gpus", "2", "--device", "cpu", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 2
    assert json.loads((tmp_path / "runs" / "tiny" / "status.json").read_text())["exit_code"] == 0


def test_a_signal_reaches_all_and_what_was_done_is_saved(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    command = [
        sys.executable,
        "-m",
        "condgen",
        "train",
        "tiny.yaml",
        "train.max_steps=1000000",
        "train.evaluate_images=0",
    ]
    command += ["--gpus", "2", "--device", "cpu"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "runs" / "tiny" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err.startswith("condgen: stopped: ") and "is saved" in err and err.count("\n") == 1
    last = json.loads(metrics.read_text().splitlines()[-1])["step"]
    assert (tmp_path / "runs" / "tiny" / "checkpoints" / f"step-{last:08d}").is_dir()
