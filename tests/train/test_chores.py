from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_run import StopAfter, contents, tiny_recipe

from condgen import draw
from condgen.condition import Condition
from condgen.data import Dataset, open_data
from condgen.errors import Interrupted, RecipeError
from condgen.evaluate.bits import bits_per_dim
from condgen.model import ConditionalModel
from condgen.recipe.build import build_model
from condgen.recipe.schema import SampleSection
from condgen.store import load
from condgen.train import chores
from condgen.train.chores import Pictures, Validation
from condgen.train.run import run_training


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("chores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        tiny_recipe(folder)
        yield folder


def parts(home: Path, **overrides: object) -> tuple[ConditionalModel, Dataset]:
    recipe = tiny_recipe(home, **overrides)
    images = open_data(recipe.data, "validation")
    return build_model(recipe, images.info).eval(), images


def test_validation_is_the_evaluation(home: Path) -> None:
    model, images = parts(home)
    validate = Validation(images, 8, 3, model)
    assert 0 < validate.seconds < 5
    found = validate(model, 7)
    assert found == dict(zip(("bits_per_dim", "bits_per_dim_ci95"), bits_per_dim(model, images, 8, 3), strict=True))
    assert set(Validation(images, 1, 3, model)(model, 7)) == {"bits_per_dim"}  # one image has no interval


def test_a_training_that_lowers_a_bound_says_so(home: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        home, **{"model.likelihood": "continuous_mixture", "model.mixtures": 2, "encoder.type": "none"}
    )
    result = run_training(recipe, out=tmp_path / "run", device="cpu", quiet=True)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    validated = [line for line in lines if "validation_bits_per_dim" in line]
    assert validated and all(line["validation_bound"] is True for line in validated)
    model, images = load(tmp_path / "run"), open_data(recipe.data, "validation")
    assert result.bound and result.figure == pytest.approx(bits_per_dim(model, images, 5)[0], rel=1e-5)


@pytest.mark.parametrize(
    ("overrides", "sample", "rows"),
    [
        ({}, {"count": 4}, ["0", "1", "2"]),
        ({}, {"count": 4, "labels": ("2",)}, ["2"]),
        ({}, {"count": 2}, ["0", "1"]),
        ({"encoder.type": "none"}, {"count": 5}, []),
    ],
)
def test_rows_of_a_grid(home: Path, tmp_path: Path, overrides: Any, sample: Any, rows: list[str]) -> None:
    model, images = parts(home, **overrides)
    pictures = Pictures(tmp_path, SampleSection(**sample), images, model)
    labels, drawn = pictures._drawn(model)
    assert labels == rows
    count = max(1, sample["count"] // max(1, len(rows)))
    assert drawn.shape == (max(1, len(rows)), count, 1, 8, 8)
    assert set(np.unique(drawn)) <= {0, 85, 170, 255}  # four levels, made visible
    pictures(model, 12)
    with Image.open(tmp_path / "step-00000012.png") as picture:
        assert picture.format == "PNG" and picture.width > 8
    first = (tmp_path / "step-00000012.png").read_bytes()
    pictures(model, 12)  # again after a restart: over the old one, the same bytes
    assert (tmp_path / "step-00000012.png").read_bytes() == first and os.listdir(tmp_path) == ["step-00000012.png"]


def test_grids_have_the_guidance_of_the_recipe(home: Path, tmp_path: Path) -> None:
    model, images = parts(home, model__dropout=0.0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.core.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=generator)
    drawn = {}
    for guidance in (0.0, 4.0):
        pictures = Pictures(tmp_path, SampleSection(count=6, seed=2, guidance=guidance), images, model)
        labels, drawn[guidance] = pictures._drawn(model)
        h = Condition.stack([model.encode(label=label) for label in labels])
        expected = draw.displayable(model.sample(h, 2, 2, guidance=guidance, tile=8), 2)
        assert np.array_equal(drawn[guidance].reshape(expected.shape), expected)
    assert not np.array_equal(drawn[0.0], drawn[4.0])


def test_conditions_of_images_where_nothing_can_be_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = tmp_path / "columns.npz"
    np.savez(columns, vector=np.zeros((48, 2), np.float32))
    model, images = parts(home, **{"data.columns": str(columns), "encoder.type": "vector"})
    pictures = Pictures(tmp_path, SampleSection(count=9), images, model)
    labels, drawn = pictures._drawn(model)
    assert len(labels) == 4 and drawn.shape[:2] == (4, 2)
    asked: list[Any] = []

    def sheet(rows: Any, **named: Any) -> Image.Image:
        asked[:] = rows
        return draw.sheet(rows, **named)

    monkeypatch.setattr(chores, "sheet", sheet)
    pictures(model, 1)
    originals = draw.displayable(images.batch(np.arange(4))["image"], 2)
    for k, (_, row) in enumerate(asked):  # the image stands at the end, to be compared with
        assert np.array_equal(row[:-1], drawn[k]) and np.array_equal(row[-1], originals[k])


def test_an_unknown_label_is_refused_before_training(home: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no class 'sneaker'"):
        run_training(tiny_recipe(home, sample__count=2, sample__labels=["sneaker"]), out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_estimate_is_about_right(home: Path, tmp_path: Path) -> None:
    model, images = parts(home, model__layers=6, model__filters=16)
    pictures = Pictures(tmp_path, SampleSection(count=16, tile=2), images, model)
    estimate = pictures.seconds
    pictures(model, 1)
    assert pictures.seconds / 4 < estimate < pictures.seconds * 4 + 0.5


def test_grids_of_a_run_survive_a_stop(home: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(home, sample__count=2, sample__during=2, train__max_steps=6)
    run_training(recipe, out=tmp_path / "whole", quiet=True)
    expected = ["step-00000002.png", "step-00000004.png", "step-00000006.png"]
    assert sorted(os.listdir(tmp_path / "whole" / "samples")) == expected
    with pytest.raises(Interrupted):
        run_training(recipe, out=tmp_path / "run", quiet=True, signals=StopAfter(4))  # where a grid is due
    assert sorted(os.listdir(tmp_path / "run" / "samples")) == expected[:1]
    run_training(recipe, out=tmp_path / "run", quiet=True)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    for name in expected:
        assert (tmp_path / "run" / "samples" / name).read_bytes() == (
            tmp_path / "whole" / "samples" / name
        ).read_bytes()


def test_minutes_hold_everything(home: Path, tmp_path: Path) -> None:
    import time

    recipe = tiny_recipe(home, sample__count=2, sample__during=0, train__max_steps=None, train__max_minutes=0.05)
    start = time.monotonic()
    result = run_training(recipe, out=tmp_path / "run", quiet=True)
    assert time.monotonic() - start < 3 + 4  # the clock starts with the first step, and this machine may be busy
    last = max((tmp_path / "run" / "checkpoints").iterdir())
    counters = json.loads((last / "state.json").read_text())["counters"]
    assert 1 < counters["seconds"] < 4 and counters["finished"] == [None, 0.05]
    assert counters["validation"]["step"] == result.steps and result.figure is not None
    assert os.listdir(tmp_path / "run" / "samples") == [f"step-{result.steps:08d}.png"]
    again = run_training(recipe, out=tmp_path / "run", quiet=True)
    assert again == result  # nothing is left to do
    load(tmp_path / "run")


def test_a_grid_that_never_fits_is_left_out(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pictures, "_estimate", lambda self, model: 100.0)
    recipe = tiny_recipe(home, sample__count=2, train__max_steps=2, train__max_minutes=1)
    run_training(recipe, out=tmp_path / "run")
    assert "sample grids are left out: one would take 100 of 60 seconds" in capsys.readouterr().err
    assert not os.listdir(tmp_path / "run" / "samples")
