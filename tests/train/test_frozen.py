"""Frozen encoders in training: run once per data set, never moved, stored once, verified by resume and load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from pydantic import Field
from tiny_run import TRAIN, VALIDATION, StopAfter, contents, tiny_recipe
from torch import nn

import condgen
from condgen import plugins
from condgen.cli.app import app
from condgen.cli.outcome import run
from condgen.condition import Batch, Condition, DataInfo, Encoder, Options
from condgen.errors import Interrupted, ModelError
from condgen.evaluate.bits import bits_per_dim
from condgen.recipe import Recipe
from condgen.store import save_model
from condgen.store.checkpoints import Checkpoints
from condgen.train.run import run_training
from condgen.train.signals import Signals

EVERY = -(-TRAIN // 32) * 32 + -(-VALIDATION // 32) * 32
"""Images that the encoder sees when both splits are encoded, 32 at a time."""


class NetOptions(Options):
    weights: str = Field("", description="safetensors with weight and bias.")
    frozen: bool = Field(True, description="Not trained.")


class Net(Encoder):
    """A linear layer and a batch norm, as of an encoder that somebody trained elsewhere."""

    Options = NetOptions
    reads = ("image",)
    words = ("image",)
    vector_size = 2
    seen = 0
    """Images that any encoder of this class encoded."""

    def __init__(self, options: Any, info: DataInfo) -> None:
        super().__init__(options, info)
        self.linear = nn.Linear(info.dimensions, 2)
        self.norm = nn.BatchNorm1d(2)

    @property
    def frozen(self) -> bool:  # type: ignore[override]  # a property is one of the two ways
        return bool(self.options.frozen)

    def load_pretrained(self) -> None:
        if self.options.weights:
            self.linear.load_state_dict(safetensors.torch.load_file(self.options.weights))

    def encode(self, batch: Batch) -> Condition:
        Net.seen += len(batch["image"])
        x = batch["image"].to(self.linear.weight.dtype).flatten(1)
        return Condition(vector=self.norm(self.linear(x)))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("frozen")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "_registered", {"net": Net})
        generator = torch.Generator().manual_seed(9)
        weights = {"weight": torch.randn(2, 64, generator=generator), "bias": torch.zeros(2)}
        safetensors.torch.save_file(weights, folder / "net.safetensors")
        yield folder


@pytest.fixture(autouse=True)
def registered(home: Path, cache: Path) -> None:
    """The encoder is known, and every test has a cache folder of its own."""
    Net.seen = 0


def recipe(home: Path, **overrides: object) -> Recipe:
    named = {"encoder.type": "net", "encoder.weights": str(home / "net.safetensors")}
    return tiny_recipe(home, **{**named, **{name.replace("__", "."): value for name, value in overrides.items()}})


def test_a_second_epoch_runs_the_encoder_zero_times(home: Path, tmp_path: Path) -> None:
    run_training(recipe(home, train__max_steps=1), out=tmp_path / "one", quiet=True)
    began = Net.seen  # with the probe of the contract and the initialisation of the core
    assert EVERY < began < EVERY + 64
    shutil.rmtree(tmp_path / "one")
    run_training(recipe(home, train__max_steps=1), out=tmp_path / "one", quiet=True)
    without = Net.seen - began
    assert without == began - EVERY  # what an earlier process has encoded is read
    run_training(recipe(home, train__max_steps=25), out=tmp_path / "four", quiet=True)  # of 6: four epochs
    assert Net.seen == began + 2 * without


def test_weights_stay_and_lie_once_in_the_run(home: Path, tmp_path: Path) -> None:
    result = run_training(recipe(home), out=tmp_path / "run", quiet=True)
    last = max((tmp_path / "run" / "checkpoints").glob("step-*"))
    for name in ("model", "ema", "optimizer"):
        names = set(safetensors.torch.load_file(last / f"{name}.safetensors"))
        assert names and not any(each.startswith("encoder.") for each in names)
    kept = safetensors.torch.load_file(tmp_path / "run" / "encoder.safetensors")
    given = safetensors.torch.load_file(home / "net.safetensors")
    assert torch.equal(kept["encoder.linear.weight"], given["weight"]) and kept["encoder.norm.running_mean"].eq(0).all()
    model = condgen.load(tmp_path / "run")
    assert torch.equal(model.encoder.linear.weight, given["weight"]) and model.encoder.fixed
    assert not any(weight.requires_grad for weight in model.encoder.parameters())
    assert result.figure is not None
    images = condgen.open_data(recipe(home).data, "validation")
    assert bits_per_dim(model, images, 5, 5)[0] == pytest.approx(result.figure, rel=1e-6)  # of images, without cache


def test_an_exported_model_holds_all_and_needs_no_file(home: Path, tmp_path: Path) -> None:
    shutil.copy(home / "net.safetensors", tmp_path / "gone.safetensors")
    mine = recipe(home, encoder__weights=str(tmp_path / "gone.safetensors"), train__max_steps=2)
    run_training(mine, out=tmp_path / "run", quiet=True)
    (tmp_path / "gone.safetensors").unlink()
    model = condgen.load(tmp_path / "run")
    save_model(model, model.recipe, tmp_path / "model", "A test.\n")
    names = set(safetensors.torch.load_file(tmp_path / "model" / "model.safetensors"))
    assert {"encoder.linear.weight", "encoder.norm.running_var"} <= names
    again = condgen.load(tmp_path / "model")
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
    more = mine.model_copy(update={"train": mine.train.model_copy(update={"max_steps": 3})})
    assert run_training(more, out=tmp_path / "run", quiet=True).steps == 3
    with pytest.raises(ModelError, match=r"Net cannot take the weights that it begins with .*gone\.safetensors"):
        run_training(mine, out=tmp_path / "another", quiet=True)
    assert not (tmp_path / "another").exists()


def test_resumed_equals_uninterrupted(home: Path, tmp_path: Path, cache: Path) -> None:
    run_training(recipe(home), out=tmp_path / "whole", quiet=True)
    with pytest.raises(Interrupted):
        run_training(recipe(home), out=tmp_path / "run", quiet=True, signals=StopAfter(5))
    shutil.rmtree(cache / "embeddings")
    run_training(recipe(home), out=tmp_path / "run", quiet=True)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["flipped", "other", "gone"])
def test_other_weights_than_the_checkpoints_are_refused(home: Path, tmp_path: Path, damage: str) -> None:
    run_training(recipe(home, train__max_steps=2), out=tmp_path / "run", quiet=True)
    path = tmp_path / "run" / "encoder.safetensors"
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[-1] ^= 1
        path.write_bytes(data)
    elif damage == "other":
        tensors = safetensors.torch.load(bytes(data))
        safetensors.torch.save_file({name: tensor + 1 for name, tensor in tensors.items()}, path)
    else:
        path.unlink()
    for use in (
        lambda: condgen.load(tmp_path / "run"),
        lambda: run_training(recipe(home, train__max_steps=3), out=tmp_path / "run", quiet=True),
    ):
        with pytest.raises(ModelError, match=r"encoder\.safetensors") as caught:
            use()
        assert caught.value.exit_code == 4
    newest = Checkpoints(tmp_path / "run" / "checkpoints", print).newest()
    assert newest is not None and newest.step == 2


def test_a_signal_ends_the_encoding(home: Path, tmp_path: Path, cache: Path) -> None:
    signals = Signals()
    signals.stop = 143
    with pytest.raises(Interrupted, match="while images were encoded") as caught:
        run_training(recipe(home), out=tmp_path / "run", quiet=True, signals=signals)
    assert caught.value.exit_code == 143
    assert not [path for path in (cache / "embeddings").iterdir() if path.suffix != ".lock"]


def test_the_condition_may_be_of_another_image_of_the_label(home: Path, tmp_path: Path) -> None:
    with_pairs = {"data__pairs": "identity", "train__max_steps": 9}
    run_training(recipe(home, **with_pairs), out=tmp_path / "pairs", quiet=True)
    began = Net.seen
    with pytest.raises(Interrupted):
        run_training(recipe(home, **with_pairs), out=tmp_path / "cut", quiet=True, signals=StopAfter(4))
    run_training(recipe(home, **with_pairs), out=tmp_path / "cut", quiet=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "pairs") and Net.seen - began < EVERY
    run_training(recipe(home, train__max_steps=9), out=tmp_path / "own", quiet=True)
    assert contents(tmp_path / "own")["model.safetensors"] != contents(tmp_path / "pairs")["model.safetensors"]


def test_what_learns_is_probed_in_training_mode_too(home: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"Net .*in training mode|Net encodes two examples together but not one"
    ) as caught:
        run_training(recipe(home, encoder__frozen=False), out=tmp_path / "run", quiet=True)
    assert caught.value.exit_code == 4 and not (tmp_path / "run").exists()


def test_evaluation_takes_what_training_encoded(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_training(recipe(home, train__max_steps=2), out=tmp_path / "run", quiet=True)
    began = Net.seen
    reports = []
    for _ in range(2):
        capsys.readouterr()
        assert run(app(), ["evaluate", str(tmp_path / "run"), "--split", "validation", "--json", "--quiet"]) == 0
        reports.append(json.loads(capsys.readouterr().out))
    assert Net.seen == began and reports[0] == reports[1]
    assert reports[0]["examples"] == VALIDATION and reports[0]["bits_per_dim_shuffled"] is not None
    arguments = [
        "evaluate",
        str(tmp_path / "run"),
        "--split",
        "validation",
        "train.precision=fp64",
        "--json",
        "--quiet",
    ]
    assert run(app(), arguments) == 0 and Net.seen == began + 32  # other numbers, hence encoded for themselves
    assert json.loads(capsys.readouterr().out)["bits_per_dim"] == pytest.approx(reports[0]["bits_per_dim"], rel=1e-5)
