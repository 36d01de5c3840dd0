"""The same global batch gives the same training, however it is split over processes and micro-batches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tiny_run import tiny_recipe

from condgen.store.run import read_log
from condgen.train.run import run_training

DRIVER = Path(__file__).with_name("world_driver.py")
COMMON = {
    "train__batch_size": 7,  # uneven halves
    "train__max_steps": 20,
    "train__precision": "fp64",
    "train__evaluate_every": 6,
    "model__dropout": 0.5,
    "train__clip_norm": 5.0,
}
SPLITS: dict[str, dict[str, Any]] = {
    "whole": {},
    "micro_1": {"train__micro_batch": 1},
    "micro_3": {"train__micro_batch": 3},
}
PYRAMID: dict[str, Any] = {"model__core": "pixelcnn++", "model__resnets": 1, "model__scales": 2}
AUTOENCODER: dict[str, Any] = {"encoder__type": "autoencoder", "encoder__size": 3, "encoder__filters": 2}
LEARNED: dict[str, dict[str, Any]] = {
    "autoencoder": AUTOENCODER,
    # values on 0 .. 1: smaller gradients, which are to be clipped all the same
    "squared_error": {**AUTOENCODER, "train__objective": "squared_error", "train__clip_norm": 0.5},
}
FROZEN: dict[str, Any] = {**AUTOENCODER, "encoder__weights": "taught", "data__pairs": "identity"}
SINGLE: dict[str, Any] = {"train__batch_size": 1}  # with two processes one has nothing to do


def train(folder: Path, processes: int, cases: dict[str, dict[str, Any]]) -> Path:
    folder.mkdir()
    recipe = tiny_recipe(folder, **AUTOENCODER, train__objective="squared_error", train__max_steps=1, data__flip=False)
    run_training(recipe, out=folder / "taught", device="cpu", quiet=True)  # also makes the images, for both processes
    (folder / "cases.json").write_text(json.dumps({name: {**COMMON, **case} for name, case in cases.items()}))
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        [*start, str(DRIVER), str(folder)], env=environment, capture_output=True, text=True, timeout=200, cwd=folder
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(
        tmp_path_factory.mktemp("worlds") / "one",
        1,
        {**SPLITS, **LEARNED, "single": SINGLE, "pyramid": PYRAMID, "frozen": FROZEN},
    )


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cases = {**SPLITS, "single": SINGLE, "pyramid": {**PYRAMID, "train__micro_batch": 3}, "nan": {}, "overflow": {}}
    cases |= {"frozen": FROZEN, **LEARNED}
    return train(tmp_path_factory.mktemp("worlds") / "two", 2, cases)


def seen(folder: Path, name: str, processes: int) -> list[list[int]]:
    """Examples of each step, rank after rank."""
    parts = [json.loads((folder / f"{name}.{rank}.json").read_text())["seen"] for rank in range(processes)]
    return [[index for part in step for index in part] for step in zip(*parts, strict=True)][:20]


def compare(a: Path, b: Path) -> None:
    first, second = read_log(a / "metrics.jsonl"), read_log(b / "metrics.jsonl")
    assert len(first) == len(second) == 20
    for one, other in zip(first, second, strict=True):
        for name in one:
            assert other[name] == pytest.approx(one[name], rel=1e-12 if name == "loss" else 1e-10), (one["step"], name)
    clipped = json.loads((a.parent / "cases.json").read_text())[a.name]["train__clip_norm"]
    assert first[0]["gradient_norm"] > clipped  # clipping was at work
    checkpoint = "checkpoints/step-00000020"
    for file in ("model", "ema"):
        one, other = (safetensors.torch.load_file(run / checkpoint / f"{file}.safetensors") for run in (a, b))
        for name in one:
            assert one[name].dtype == torch.float64
            torch.testing.assert_close(other[name], one[name], rtol=0, atol=1e-10)


def test_micro_batches(alone: Path) -> None:
    for name in ("micro_1", "micro_3"):
        assert seen(alone, name, 1) == seen(alone, "whole", 1)
        compare(alone / "whole", alone / name)


@pytest.mark.parametrize("name", [*SPLITS, *LEARNED, "single", "pyramid", "frozen"])
def test_two_processes(alone: Path, together: Path, name: str) -> None:
    assert seen(together, name, 2) == seen(alone, name, 1)
    compare(alone / name, together / name)


def test_two_processes_read_what_one_has_encoded(alone: Path, together: Path) -> None:
    for folder in (alone, together):
        kept = [path.name for path in (folder / "cache" / "condgen" / "embeddings").iterdir()]
        assert sorted(name.startswith(".") for name in kept) == [False, False, True, True]  # two splits, their locks
    one, other = (folder / "frozen" / "encoder.safetensors" for folder in (alone, together))
    assert one.read_bytes() == other.read_bytes()
    taught = safetensors.torch.load_file(alone / "taught" / "checkpoints" / "step-00000001" / "ema.safetensors")
    for name, tensor in safetensors.torch.load_file(one).items():
        assert torch.equal(tensor, taught[name].double())


def test_every_epoch_shows_every_example_once(alone: Path) -> None:
    flat = [index for step in seen(alone, "whole", 1) for index in step]
    for start in range(0, len(flat) - 37, 37):
        assert sorted(flat[start : start + 37]) == list(range(37))
    assert flat[:37] != flat[37:74]


def test_nan_in_one_process_stops_both(alone: Path, together: Path) -> None:
    errors = [json.loads((together / f"nan.{rank}.json").read_text())["error"] for rank in range(2)]
    assert errors[0] == errors[1] and "step 5 is not finite" in errors[0]
    found = json.loads((together / "nan" / "bad-step.json").read_text())
    batch = seen(alone, "whole", 1)[4]
    assert found["batch"] == batch and found["ranks"] == [1]
    assert found["examples"] == [batch[4]]  # the second process has the places 3 to 6
    assert [path.name for path in (together / "nan" / "checkpoints").iterdir()] == ["step-00000004"]


def test_weights_that_overflow_stop_both_and_are_not_saved(together: Path) -> None:
    errors = [json.loads((together / f"overflow.{rank}.json").read_text())["error"] for rank in range(2)]
    assert errors[0] == errors[1] and "step 5 is not finite" in errors[0]
    assert not (together / "overflow" / "checkpoints").exists() or not list(
        (together / "overflow" / "checkpoints").iterdir()
    )
