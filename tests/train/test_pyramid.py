"""Trainings of PixelCNN++: one data-dependent initialisation, averages from there on, resumed and loaded exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import StopAfter, contents, tiny_recipe

import condgen
from condgen.condition import Batch
from condgen.cores.pixelcnnpp import PixelCNNpp
from condgen.data import open_data
from condgen.errors import Interrupted, ModelError
from condgen.likelihoods import LogisticMixture
from condgen.model import ConditionalModel
from condgen.recipe import Recipe, recipe_from_dict
from condgen.store.run import read_log
from condgen.train.run import run_training

STILL = {"train__max_steps": 1, "train__learning_rate": 1e-30}


def pyramid(folder: Path, **overrides: object) -> Recipe:
    own: dict[str, object] = {
        "model__core": "pixelcnn++",
        "model__resnets": 1,
        "model__scales": 3,
        "model__dropout": 0.5,
    }
    own["train__evaluate_images"] = 11  # all there are
    return tiny_recipe(folder, **(own | overrides))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("pyramid")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def whole(home: Path) -> Path:
    return run_training(pyramid(home), out=home / "whole", quiet=True).run


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that a core was initialised by."""
    sizes: list[int] = []
    sound = PixelCNNpp.initialise

    def initialise(self: PixelCNNpp, x: torch.Tensor, terms: Any) -> None:
        sizes.append(len(x))
        sound(self, x, terms)

    monkeypatch.setattr(PixelCNNpp, "initialise", initialise)
    return sizes


def scales_of(model: ConditionalModel) -> torch.Tensor:
    """All of g."""
    return torch.cat([w.flatten() for name, w in model.core.state_dict().items() if name.endswith("original0")])


def test_it_learns(whole: Path) -> None:
    log = read_log(whole / "metrics.jsonl")
    assert len(log) == 12 and log[-1]["validation_bits_per_dim"] < log[0]["bits_per_dim"]


@pytest.mark.parametrize("k", [1, 6, 11])
def test_resumed_equals_uninterrupted(home: Path, whole: Path, batches: list[int], k: int) -> None:
    run = home / f"run-{k}"
    with pytest.raises(Interrupted):
        run_training(pyramid(home), out=run, quiet=True, signals=StopAfter(k))
    assert batches == [37]  # all there are, once
    run_training(pyramid(home), out=run, quiet=True)
    assert batches == [37] and contents(run) == contents(whole)


def test_the_average_starts_from_the_initialised_weights(home: Path, batches: list[int]) -> None:
    run = run_training(pyramid(home, **STILL), out=home / "still", quiet=True).run
    raw, average = condgen.load(run, weights="raw"), condgen.load(run)
    assert batches == [37] and bool((scales_of(raw) != 1).all())
    for name, tensor in raw.state_dict().items():
        torch.testing.assert_close(average.state_dict()[name], tensor, rtol=0, atol=1e-12)


def test_the_first_batch_finds_standard_outputs(home: Path) -> None:
    """The network that training starts from was initialised on the very images, with their conditions."""
    model = condgen.load(run_training(pyramid(home, **STILL), out=home / "still", quiet=True).run, weights="raw")
    images = open_data(pyramid(home).data, "train")
    outputs: list[torch.Tensor] = []
    model.core.out.register_forward_hook(lambda module, inputs, output: outputs.append(output.detach()))
    batch: Batch = images.batch(torch.arange(37).numpy())
    model.eval().nll(batch)
    torch.testing.assert_close(outputs[0].mean((0, 2, 3)), torch.zeros(outputs[0].shape[1]), rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs[0].std((0, 2, 3)), torch.ones(outputs[0].shape[1]), rtol=1e-3, atol=0)


def test_a_model_that_is_started_from_another_is_not_initialised(home: Path, whole: Path, batches: list[int]) -> None:
    tuned = run_training(pyramid(home, **STILL), out=home / "tuned", init_from=whole, quiet=True).run
    assert not batches
    start, end = condgen.load(whole).state_dict(), condgen.load(tuned, weights="raw").state_dict()
    for name, tensor in start.items():
        torch.testing.assert_close(end[name], tensor, rtol=0, atol=1e-12)
    with pytest.raises(ModelError, match=r"is absent there and .* here"):
        run_training(pyramid(home, model__resnets=2), out=home / "deeper", init_from=whole, quiet=True)


def test_weights_of_another_nonlinearity_are_refused(home: Path, whole: Path, tmp_path: Path) -> None:
    """They have the same shapes in elu and relu networks, and would be another function."""
    run_training(pyramid(home, train__max_steps=1, model__nonlinearity="elu"), out=tmp_path / "elu", quiet=True)
    relu = pyramid(home, train__max_steps=1, model__nonlinearity="relu")
    with pytest.raises(ModelError, match=r"model\.nonlinearity is elu there and relu here; set it to elu") as caught:
        run_training(relu, out=tmp_path / "relu", init_from=tmp_path / "elu", quiet=True)
    assert (caught.value.exit_code, caught.value.field) == (4, "model.nonlinearity")
    run_training(
        pyramid(home, train__max_steps=1, model__nonlinearity="elu"), out=tmp_path / "more",
        init_from=tmp_path / "elu", quiet=True,
    )  # fmt: skip


def test_what_is_saved_is_loaded(home: Path, whole: Path, tmp_path: Path) -> None:
    model = condgen.load(whole)
    assert model.core.activation.nonlinearity == "concat_elu" and len(model.core.down) == 3
    batch = open_data(pyramid(home).data, "validation").batch(torch.arange(11).numpy())
    assert torch.equal(model.nll(batch), condgen.load(whole).nll(batch))
    validation = contents(whole)["counters"]["validation"]
    loss = model.nll(batch).detach().double().mean().item()
    assert loss / (64 * math.log(2)) == pytest.approx(validation["bits_per_dim"], rel=1e-6)
    sample = model.sample(model.encode(label="0"), count=2, seed=1)
    assert sample.shape == (2, 1, 8, 8) and torch.equal(sample, model.sample(model.encode(label="0"), count=2, seed=1))


def test_portraits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_from_dict(
        {
            "data": {"image_size": 16, "identities": 12, "views": 2},
            "encoder": {"type": "labels", "code": "attributes"},
            "model": {"core": "pixelcnn++", "filters": 4, "resnets": 1, "conditioning": "both", "vector_width": 4},
            "train": {"batch_size": 4, "max_steps": 2, "evaluate_images": 2, "precision": "bf16", "tensorboard": False},
            "sample": {"count": 0},
        },
        "tests",
    )
    run = condgen.train(recipe, out=tmp_path / "run", quiet=True)
    model = condgen.load(run)
    assert isinstance(model.likelihood, LogisticMixture) and model.core.conditioning.project is not None
