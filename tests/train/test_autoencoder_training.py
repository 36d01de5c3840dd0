"""Encoders that learn, in training: with a PixelCNN and on squared error, through the one loop and back from disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_run import StopAfter, contents, tiny_recipe

import condgen
from condgen.autoencoder import Autoencoder
from condgen.cli.app import app
from condgen.cli.outcome import run
from condgen.data import open_data
from condgen.errors import Interrupted, ModelError, RecipeError
from condgen.evaluate.squared_error import squared_error
from condgen.model import ConditionalModel
from condgen.store.run import read_log
from condgen.train.run import run_training

ENCODER: dict[str, Any] = {"encoder__type": "autoencoder", "encoder__size": 3, "encoder__filters": 2}
KINDS: dict[str, dict[str, Any]] = {
    "likelihood": ENCODER,
    "squared_error": {**ENCODER, "train__objective": "squared_error", "train__clip_norm": 0.5},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a run of each kind, never interrupted."""
    folder = tmp_path_factory.mktemp("autoencoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for kind, overrides in KINDS.items():
            run_training(tiny_recipe(folder, **overrides), out=folder / kind, quiet=True)
        yield folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 5, 11, 12])
def test_resumed_equals_uninterrupted(home: Path, kind: str, k: int) -> None:
    out = home / f"{kind}-{k}"
    with pytest.raises(Interrupted):
        run_training(tiny_recipe(home, **KINDS[kind]), out=out, quiet=True, signals=StopAfter(k))
    torch.manual_seed(k)
    run_training(tiny_recipe(home, **KINDS[kind]), out=out, quiet=True)
    assert contents(out) == contents(home / kind)


@pytest.mark.parametrize("kind", KINDS)
def test_encoder_and_decoder_are_trained_together(home: Path, tmp_path: Path, kind: str) -> None:
    start = tiny_recipe(home, **KINDS[kind], train__max_steps=1, train__learning_rate=1e-30)
    run_training(start, out=tmp_path / "start", quiet=True)
    before = condgen.load(tmp_path / "start", weights="raw").state_dict()
    for name, weight in condgen.load(home / kind, weights="raw").state_dict().items():
        assert not torch.equal(weight, before[name]), name
    for name, weight in condgen.load(home / kind).state_dict().items():  # the average is of all of it
        assert not torch.equal(weight, before[name]), name


def test_each_objective_gives_what_it_trains(home: Path) -> None:
    bits, error = condgen.load(home / "likelihood"), condgen.load(home / "squared_error")
    assert isinstance(bits, ConditionalModel) and isinstance(error, Autoencoder)
    recipe = tiny_recipe(home, **KINDS["squared_error"])
    images = open_data(recipe.data, "validation")
    lines = read_log(home / "squared_error" / "metrics.jsonl")
    assert [line["step"] for line in lines if "validation_squared_error" in line] == [5, 10, 12]
    mean, interval = squared_error(error, images, 5, 5)
    assert lines[-1]["validation_squared_error"] == pytest.approx(mean, rel=1e-6)
    assert lines[-1]["validation_squared_error_ci95"] == pytest.approx(interval, rel=1e-5)
    for line in lines:
        assert line["squared_error"] == pytest.approx(line["loss"] / 64, rel=1e-12)
    again = run_training(recipe, out=home / "squared_error", quiet=True)
    assert (again.unit, again.figure) == ("squared_error", lines[-1]["validation_squared_error"])


def test_an_objective_is_part_of_what_a_run_is(home: Path) -> None:
    with pytest.raises(ModelError, match=r"train.objective = squared_error, not likelihood") as caught:
        run_training(tiny_recipe(home, **ENCODER, train__clip_norm=0.5), out=home / "squared_error", quiet=True)
    assert caught.value.field == "train.objective"


def test_sheets_of_reconstructions(home: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(home, **KINDS["squared_error"], sample__count=11, sample__during=1)
    run_training(recipe, out=tmp_path / "run", quiet=True)
    sheets = sorted(path.name for path in (tmp_path / "run" / "samples").iterdir())
    assert sheets == ["step-00000006.png", "step-00000012.png"]
    with Image.open(tmp_path / "run" / "samples" / sheets[1]) as picture:
        assert picture.width > 8 * 8 and picture.height > 4 * 8  # two rows of eight and two of three


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_says_the_figure_of_its_objective(
    home: Path, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    recipe = home / "recipe.yaml"
    recipe.write_text(f"data:\n  source: npz\n  root: {home / 'data'}\ntrain:\n  max_steps: 1\n")
    overrides = [f"{name.replace('__', '.')}={value}" for name, value in KINDS[kind].items()]
    small = ["data.image_size=8", "data.channels=1", "data.test=0.0", "model.filters=2", "model.layers=1"]
    small += ["model.kernel_size=3", "sample.count=0", "train.evaluate_images=3", "train.batch_size=2"]
    arguments = ["train", str(recipe), *overrides, *small, "--out", f"said-{kind}", "--quiet"]
    assert run(app(), [*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    unit = "squared_error" if kind == "squared_error" else "bits_per_dim"
    assert found["steps"] == 1 and found[unit] > 0 and found[f"{unit}_ci95"] > 0
    assert ("bits_per_dim" in found) == (kind == "likelihood")
    assert run(app(), arguments) == 0
    words = {"likelihood": "bits/dim on validation", "squared_error": "squared error per dimension on validation"}
    assert words[kind] in capsys.readouterr().out
    assert run(app(), [*arguments, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] > 100


def test_another_runs_encoder_is_taken_as_it_is(home: Path, tmp_path: Path) -> None:
    for source in KINDS:
        recipe = tiny_recipe(home, **ENCODER, encoder__weights=str(home / source))
        run_training(recipe, out=tmp_path / source, quiet=True)
        taken, given = condgen.load(tmp_path / source).encoder, condgen.load(home / source).encoder
        assert taken.fixed
        for name, weight in given.state_dict().items():
            assert torch.equal(taken.state_dict()[name], weight)
    for field, value, sentence in (
        ("encoder__size", 4, "encoder.size: 4 here and 3 in"),
        ("encoder__range", "unit", "encoder.range: unit here and free in"),
        ("data__bit_depth", 3, "data.bit_depth: 3 here and 2 in"),
    ):
        recipe = tiny_recipe(home, **{**ENCODER, "encoder__weights": str(home / "likelihood"), field: value})
        with pytest.raises(RecipeError, match=sentence):
            run_training(recipe, out=tmp_path / "other", quiet=True)
    with pytest.raises(ModelError, match="nowhere"):
        run_training(tiny_recipe(home, **ENCODER, encoder__weights="nowhere"), out=tmp_path / "other", quiet=True)
    run_training(tiny_recipe(home), out=tmp_path / "labels", quiet=True)
    with pytest.raises(RecipeError, match="no autoencoder's"):
        run_training(
            tiny_recipe(home, **ENCODER, encoder__weights=str(tmp_path / "labels")), out=tmp_path / "other", quiet=True
        )
    assert not (tmp_path / "other").exists()
