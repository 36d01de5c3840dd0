"""The comparison of maps and vectors: same numbers, same parameters, bits over unknown pixels."""

from __future__ import annotations

import importlib
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import condgen
from condgen import plugins
from condgen.evaluate.bits import likelihood_report
from condgen.recipe.build import build_model
from condgen.train.plan import planned_info

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def conditions() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        module = importlib.import_module("conditions")
        yield module
        for name in ("low_resolution_flat", "masked_flat"):  # other tests list the encoders there are
            del plugins._registered[name]


@pytest.mark.parametrize("recipe", ["superres", "inpaint"])
def test_variants_have_the_same_number_of_parameters(conditions: Any, recipe: str) -> None:
    arguments = Namespace(recipe=recipe, size=16)
    wanted = conditions.size_of(conditions.recipe_of("map", arguments, None))
    for name in conditions.VARIANTS:
        filters = conditions.filters_for(name, arguments, wanted)
        assert abs(conditions.size_of(conditions.recipe_of(name, arguments, filters)) / wanted - 1) < 0.03


@pytest.mark.parametrize("recipe", ["superres", "inpaint"])
def test_the_vector_has_the_numbers_of_the_map(conditions: Any, recipe: str) -> None:
    arguments = Namespace(recipe=recipe, size=16)
    images = {"image": torch.arange(2 * 768, dtype=torch.int64).remainder(251).to(torch.uint8).view(2, 3, 16, 16)}
    images["index"] = torch.arange(2)
    torch.manual_seed(0)
    made: dict[str, Any] = {
        name: build_model(r := conditions.recipe_of(name, arguments, 8), planned_info(r)).encoder
        for name in ("map", "vector")
    }
    shown = made["map"](images).map[:, : made["map"].seen()]
    vector = made["vector"](images).vector
    if recipe == "inpaint":
        assert torch.allclose(vector, made["vector"].project(shown.flatten(1)), atol=1e-5)
    else:
        low = torch.nn.functional.avg_pool2d(shown, 4).flatten(1)
        assert vector.shape == low.shape and torch.allclose(vector, low, atol=1e-5)


def test_bits_are_those_of_unknown_pixels(conditions: Any) -> None:
    recipe = conditions.recipe_of("map", Namespace(recipe="inpaint", size=16), 8)
    torch.manual_seed(0)
    model = build_model(recipe, planned_info(recipe)).eval()
    model.recipe = recipe
    report = likelihood_report(model, condgen.open_data(recipe.data, "test"), limit=60)
    each = conditions.bits_of(model, 60)
    assert abs(np.mean(each) - report["bits_per_unknown_dim"]) < 1e-6
