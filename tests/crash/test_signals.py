"""Real signals to real processes: exit codes, and what is on disk afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_run import contents, tiny_recipe

from condgen.recipe import recipe_text
from condgen.store.run import read_log
from condgen.train.run import run_training
from condgen.train.signals import Signals

STEPS = 150


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signals")
    recipe = tiny_recipe(folder, train__max_steps=STEPS, train__evaluate_images=0)
    (folder / "tiny.yaml").write_text(recipe_text(recipe))
    return folder


def start(home: Path, run: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "condgen",
            "train",
            str(home / "tiny.yaml"),
            "--out",
            str(run),
            "--device",
            "cpu",
            "--json",
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(home / "cache"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_step(run: Path, step: int, *victims: subprocess.Popen[str]) -> None:
    log, deadline = run / "metrics.jsonl", time.monotonic() + 60
    while not log.exists() or log.read_bytes().count(b"\n") < step:
        assert all(victim.poll() is None for victim in victims) and time.monotonic() < deadline
        time.sleep(0.02)


def saved_step(run: Path) -> int:
    return max(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))


def test_one_signal_after_the_other(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TERM, INT, then USR1 and on to the end: the very end of an uninterrupted run."""
    run, step = home / "run", 0
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        victim = start(home, run)
        wait_for_step(run, step + 5, victim)
        sent = time.monotonic()
        victim.send_signal(number)
        out, err = victim.communicate(timeout=30)
        assert victim.returncode == code, err
        assert time.monotonic() - sent < 10
        step = saved_step(run)
        assert read_log(run / "metrics.jsonl")[-1]["step"] == step  # the last finished step is the saved one
        assert f"after step {step}" in json.loads(out)["message"] and "Traceback" not in err
        assert json.loads((run / "status.json").read_text())["exit_code"] == code
    victim = start(home, run)
    wait_for_step(run, step + 5, victim)
    victim.send_signal(signal.SIGUSR1)
    out, err = victim.communicate(timeout=60)
    assert victim.returncode == 0 and json.loads(out)["steps"] == STEPS, err
    assert sorted(path.name for path in (run / "checkpoints").iterdir())[0] != f"step-{STEPS:08d}"  # USR1 saved one
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    recipe = tiny_recipe(home, train__max_steps=STEPS, train__evaluate_images=0)
    run_training(recipe, out=home / "whole", device="cpu", quiet=True)
    assert contents(run) == contents(home / "whole")


def test_a_lost_process_ends_the_other(home: Path) -> None:
    run, port = home / "pair", "29577"
    environment = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    pair = [start(home, run, **environment, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(2)]
    try:
        wait_for_step(run, 5, *pair)
        pair[1].kill()
        out, err = pair[0].communicate(timeout=30)
        assert pair[0].returncode == 6, err
        assert "Another process of this training has ended" in json.loads(out)["message"]
    finally:
        for process in pair:
            process.kill()
            process.communicate()


def test_a_second_interrupt_leaves_at_once() -> None:
    from condgen.errors import Interrupted

    before = signal.getsignal(signal.SIGINT)
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.save and signals.stop is None
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.stop == 130
        with pytest.raises(Interrupted, match="without saving") as caught:
            os.kill(os.getpid(), signal.SIGINT)
        assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.stop == 143
