"""Training by triplets: two processes as one, resumed as uninterrupted, and what is refused before it begins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from tiny_run import StopAfter, contents, tiny_recipe

import condgen
from condgen.condition import DataInfo
from condgen.embedding import Embedding
from condgen.encoders import facenet
from condgen.errors import InputError, Interrupted, ModelError, RecipeError
from condgen.recipe import read_recipe
from condgen.store import load_conditional
from condgen.store.models import fresh_model
from condgen.store.run import read_log
from condgen.train.run import run_training

DRIVER = Path(__file__).with_name("world_driver.py")
TRIPLETS: dict[str, Any] = {  # three identities of 12 or 13 pictures
    "train__objective": "triplet",
    "train__batch_size": 9,  # uneven halves, and an identity on both sides
    "train__views": 3,
    "train__margin": 0.5,
    "train__mining": "all",
    "train__max_steps": 8,
    "train__evaluate_every": 4,
    "train__evaluate_images": 11,
    "train__learning_rate": 0.01,
    "encoder__type": "autoencoder",
    "encoder__size": 4,
    "encoder__filters": 3,
    "data__augment": 1.0,
}


def recipe(folder: Path, **overrides: Any) -> Any:
    return tiny_recipe(folder, **{**TRIPLETS, **overrides})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("triplets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def whole(home: Path) -> dict[str, Any]:
    result = run_training(recipe(home), out=home / "whole", quiet=True)
    assert (result.steps, result.unit) == (8, "auc") and 0 <= (result.figure or -1) <= 1
    return contents(home / "whole")


@pytest.mark.parametrize("k", [1, 4, 7])
def test_resumed_equals_uninterrupted(home: Path, whole: dict[str, Any], k: int) -> None:
    run = home / f"run-{k}"
    with pytest.raises(Interrupted):
        run_training(recipe(home), out=run, quiet=True, signals=StopAfter(k))
    torch.manual_seed(k)
    np.random.seed(k)
    run_training(recipe(home), out=run, quiet=True)
    assert contents(run) == whole


def test_log_and_best(home: Path, whole: dict[str, Any]) -> None:
    lines = read_log(home / "whole" / "metrics.jsonl")
    assert all(line["triplet_loss"] == line["loss"] for line in lines)
    figures = {line["step"]: line["validation_auc"] for line in lines if "validation_auc" in line}
    assert list(figures) == [4, 8] and figures[4] != figures[8]
    best = whole["counters"]["best"]
    assert best["auc"] == max(figures.values()) and figures[best["step"]] == best["auc"]


def test_an_encoder_comes_back(home: Path, whole: dict[str, Any]) -> None:
    model = condgen.load(home / "whole")
    assert isinstance(model, Embedding) and model.info.channels == 1
    vectors = model.embed({"image": torch.randint(0, 4, (3, 1, 8, 8), dtype=torch.uint8)})
    assert vectors.shape == (3, 4) and torch.allclose(vectors.norm(dim=1), torch.ones(3))
    with pytest.raises(ModelError, match=r"no likelihood, being of train\.objective=triplet"):
        load_conditional(home / "whole")


def test_the_loss_falls(home: Path) -> None:
    """Three people, each of one brightness: soon told apart."""
    generator = np.random.default_rng(0)
    root = home / "easy" / "data"
    root.mkdir(parents=True)
    for name, count in (("train", 60), ("validation", 24)):
        people = np.arange(count) % 3
        stripes = np.stack([np.indices((8, 8))[0] % 2, np.indices((8, 8))[1] % 2, np.ones((8, 8))])[people]
        images = (160 * stripes + generator.integers(0, 90, (count, 8, 8))).astype(np.uint8)
        np.savez(root / f"{name}.npz", x=images, y=people)
    fields = {"train__max_steps": 60, "train__evaluate_images": 24, "data__bit_depth": 8, "train__evaluate_every": 60}
    result = run_training(recipe(home / "easy", **fields), out=home / "easy" / "run", quiet=True)
    assert result.figure is not None and result.figure > 0.97


def test_two_processes_equal_one(tmp_path: Path) -> None:
    fields = {**TRIPLETS, "train__precision": "fp64"}
    for folder in (tmp_path / "1", tmp_path / "2"):
        folder.mkdir()
        tiny_recipe(folder)
    run_training(tiny_recipe(tmp_path / "1", **fields), out=tmp_path / "1" / "whole", device="cpu", quiet=True)
    (tmp_path / "2" / "cases.json").write_text(json.dumps({"whole": fields}))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            DRIVER,
            tmp_path / "2",
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    runs = [tmp_path / processes / "whole" for processes in ("1", "2")]
    seen = [json.loads((tmp_path / "2" / f"whole.{rank}.json").read_text())["seen"] for rank in (0, 1)]
    assert [len(step) for step in seen[0]][:8] == [4] * 8 and [len(step) for step in seen[1]][:8] == [5] * 8
    one, two = (read_log(run / "metrics.jsonl") for run in runs)
    assert len(one) == len(two) == 8 and any(line["loss"] > 0 for line in one)
    for a, b in zip(one, two, strict=True):
        for name in a:
            assert b[name] == pytest.approx(a[name], rel=1e-10), (a["step"], name)
    for file in ("model", "ema"):
        a, b = (safetensors.torch.load_file(run / f"checkpoints/step-00000008/{file}.safetensors") for run in runs)
        for name in a:
            assert a[name].dtype == torch.float64
            torch.testing.assert_close(b[name], a[name], rtol=0, atol=1e-10)


def test_what_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"train\.micro_batch: triplets compare the examples of a batch") as cut:
        recipe(home, train__micro_batch=3)
    with pytest.raises(RecipeError, match="3 identities more than once; lower it to 9") as large:
        run_training(recipe(home, train__batch_size=12), out=tmp_path / "run", quiet=True)
    assert cut.value.exit_code == large.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_drawn_faces_may_be_mirrored_where_only_people_count() -> None:
    assert read_recipe("face-embedding", {"data.flip": True}).data.flip
    with pytest.raises(RecipeError, match="know left from right"):
        read_recipe("quickstart", {"data.flip": True})


def test_identities_with_a_single_view(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "data" / "validation.npz", x=images, y=np.arange(20) % 3)
    np.savez(tmp_path / "data" / "train.npz", x=images, y=np.arange(20))
    with pytest.raises(InputError, match="show 20 identities and none of them twice") as caught:
        run_training(recipe(tmp_path), out=tmp_path / "run", quiet=True)
    assert caught.value.exit_code == 3 and not (tmp_path / "run").exists()
    np.savez(tmp_path / "data" / "train.npz", x=images, y=np.r_[np.arange(18) % 3, 7, 8])
    run_training(recipe(tmp_path, train__max_steps=1), out=tmp_path / "run", quiet=True)


@pytest.mark.slow
def test_fine_tuning_keeps_the_statistics_of_batchnorm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """InceptionResnetV1 from weights in a file: every weight moves, what BatchNorm remembers does not."""
    monkeypatch.setattr(facenet, "SIDE", 80)  # a fifth of the work
    fields = {
        "encoder__type": "face",
        "encoder__network": "inception",
        "encoder__colours": False,
        "data__bit_depth": 8,
        "train__batch_size": 4,
        "train__views": 2,
        "train__max_steps": 1,
        "train__warmup_steps": 0,
        "train__margin": 3.9,
        "train__evaluate_images": 0,
    }
    plain = {name: value for name, value in TRIPLETS.items() if name not in ("encoder__size", "encoder__filters")}
    first = tiny_recipe(tmp_path, **{**plain, **fields})
    network: Any = fresh_model(first, DataInfo(1, 8, 8)).encoder.network
    for layer in network.modules():  # as if trained: with random weights alone the signal dies on its way
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.momentum = 1.0
    with torch.no_grad():
        torch.nn.Module.train(network.network)(torch.randn(8, 3, 80, 80, generator=torch.Generator().manual_seed(0)))
    start = {name: tensor.contiguous() for name, tensor in network.network.state_dict().items()}
    safetensors.torch.save_file(start, tmp_path / "published.safetensors")
    weights = {"encoder__weights": str(tmp_path / "published.safetensors")}
    run_training(tiny_recipe(tmp_path, **{**plain, **fields, **weights}), out=tmp_path / "run", quiet=True)
    tuned = condgen.load(tmp_path / "run", weights="raw")
    found = {name.removeprefix("encoder.network.network."): tensor for name, tensor in tuned.state_dict().items()}
    assert found.keys() == start.keys()
    statistics = [name for name in found if "running" in name]
    assert len(statistics) > 200 and all(torch.equal(found[name], start[name]) for name in statistics)
    moved = [name for name in found if "running" not in name and not torch.equal(found[name], start[name])]
    assert len(moved) == len(found) - len(statistics)
