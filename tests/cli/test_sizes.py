"""Sizes that PixelCNN++ cannot take are refused in one sentence, before anything is made, by whatever way they come."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import condgen
from condgen.cli.app import app
from condgen.cli.outcome import run
from condgen.condition import Condition
from condgen.errors import InputError, RecipeError
from condgen.recipe import recipe_from_dict
from condgen.recipe.build import build_model
from condgen.train.plan import planned_info

RECIPE = """
data: {source: cifar10, image_size: SIZE}
model: {core: pixelcnn++, filters: 4, resnets: 1, mixtures: 2}
train: {max_steps: 1}
"""
SENTENCE = "data.image_size: 30x32 does not divide by 4, which 3 scales of pixelcnn++ need; choose other sides or fewer"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pyramid.yaml").write_text(RECIPE.replace("SIZE", "[30, 32]"))


@pytest.mark.parametrize("command", [["train", "--dry-run"], ["train"], ["verify"]])
def test_sides_that_do_not_divide_are_refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app(), [command[0], "pyramid.yaml", *command[1:]]) == 2
    out, err = capsys.readouterr()
    assert SENTENCE in err and err.count("\n") == 1 and not out
    assert run(app(), [command[0], "pyramid.yaml", *command[1:], "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "usage" and SENTENCE in found["message"]
    assert [path.name for path in Path().iterdir()] == ["pyramid.yaml"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("data.image_size=[28,32]", 0),
        ("data.image_size=30", 2),
        ("model.scales=2", 0),
        ("model.scales=4", 2),
        ("model.scales=1", 0),
        ("model.small_field=plain", 0),
        ("model.core=gated", 0),
    ],
)
def test_whether_sides_divide_depends_on_the_scales(change: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app(), ["train", "pyramid.yaml", "--dry-run", "--json", change]) == code


def test_the_same_from_python() -> None:
    with pytest.raises(RecipeError, match=r"data\.image_size: 30x32 does not divide by 4") as caught:
        condgen.train("pyramid.yaml", out="run", quiet=True)
    assert caught.value.exit_code == 2 and not Path("run").exists()
    with pytest.raises(RecipeError, match="does not divide by 8"):
        recipe_from_dict(
            {"data": {"image_size": 20}, "model": {"core": "pixelcnn++", "scales": 4}, "train": {"max_steps": 1}},
            "tests",
        )


def test_a_model_takes_the_size_it_was_made_for() -> None:
    recipe = recipe_from_dict(
        {
            "data": {"source": "cifar10", "image_size": [4, 8]},
            "model": {"core": "pixelcnn++", "filters": 4, "resnets": 1},
            "train": {"max_steps": 1},
        },
        "tests",
    )
    model = build_model(recipe, planned_info(recipe))
    assert model.log_prob(torch.zeros(1, 3, 4, 8, dtype=torch.uint8), Condition()).shape == (1,)
    for height, width in ((8, 4), (6, 8), (8, 8)):
        with pytest.raises(InputError, match=r"images are \(3, 4, 8\)"):
            model.log_prob(torch.zeros(1, 3, height, width, dtype=torch.uint8))
