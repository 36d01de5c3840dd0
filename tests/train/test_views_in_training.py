"""Trainings whose condition is a view of the image: holes are those of the example, sheets show what was given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_run import StopAfter, contents, tiny_recipe

from condgen import draw
from condgen.data import open_data
from condgen.errors import Interrupted
from condgen.evaluate import likelihood_report
from condgen.recipe import recipe_names
from condgen.recipe.reading import read_recipe
from condgen.store import load_conditional
from condgen.train.plan import make_plan
from condgen.train.run import run_training

MASKED = {"encoder": {"type": "masked", "features": 4, "label": "one_hot"}, "train__max_steps": 9}


def test_an_interrupted_training_draws_the_holes_of_an_uninterrupted_one(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, **MASKED)
    run_training(recipe, out=tmp_path / "whole", quiet=True)
    with pytest.raises(Interrupted):
        run_training(recipe, out=tmp_path / "parts", quiet=True, signals=StopAfter(4))
    run_training(recipe, out=tmp_path / "parts", quiet=True)
    assert contents(tmp_path / "whole") == contents(tmp_path / "parts")
    small = tiny_recipe(tmp_path, **MASKED, train__micro_batch=2)
    run_training(small, out=tmp_path / "small", quiet=True)
    first, second = (
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "small")
    )
    assert np.allclose(first, second, rtol=1e-4)


def test_sheets_show_what_was_given_and_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    real = draw.sheet

    def sheet(rows: Any, **named: Any) -> Image.Image:
        seen[:] = [rows, named["columns"]]
        return real(rows, **named)

    monkeypatch.setattr("condgen.train.chores.sheet", sheet)
    recipe = tiny_recipe(tmp_path, **MASKED, sample__count=8, sample__during=0)
    result = run_training(recipe, out=tmp_path / "run", quiet=True)
    rows, columns = seen
    assert columns == ("given", "0", "1", "image") and len(rows) == 4
    model, images = load_conditional(tmp_path / "run"), open_data(recipe.data, "train")
    batch = images.batch(np.arange(4))
    known = model.encoder.known(batch)
    assert known is not None
    for (_, pictures), mask in zip(rows, known.numpy(), strict=True):
        given, *samples, image = pictures
        assert not given[:, ~mask].any() and np.array_equal(given[:, mask], image[:, mask])
        assert all(np.array_equal(sample[:, mask], image[:, mask]) for sample in samples)
    report = likelihood_report(model, open_data(recipe.data, "validation"), limit=5, quiet=True)
    assert result.figure == pytest.approx(report["bits_per_dim"], rel=1e-5)
    bits, share, of_hole = (report[name] for name in ("bits_per_dim", "unknown_share", "bits_per_unknown_dim"))
    assert isinstance(bits, float) and isinstance(share, float) and bits / share == pytest.approx(of_hole)


@pytest.mark.parametrize("name", ["superres", "superres-64", "colorize", "inpaint"])
def test_the_recipes_plan_without_data_and_see_the_image_as_a_map(name: str) -> None:
    assert name in recipe_names()
    recipe = read_recipe(name)
    plan = make_plan(recipe, torch.device("cpu"))
    assert 250_000 < plan.parameters < 800_000
    assert recipe.encoder.type in ("low_resolution", "grey", "masked")
