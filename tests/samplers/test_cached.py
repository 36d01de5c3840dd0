"""The cached and the fixed-point sampler equal the plain one: every likelihood, condition, shape and option."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from building import condition_for, random_images, tiny_model

from condgen.cores.cache import Cache
from condgen.likelihoods import scaled
from condgen.model import ConditionalModel

CONDITIONS = ("none", "global", "spatial", "both", "map", "vector+map")
GATED: list[dict[str, Any]] = [{}, {"linear_path": True}, {"skips": False}, {"field": 5, "first_field": 7}]
PYRAMID: list[dict[str, Any]] = [
    {}, {"resnets": 2}, {"full_sight": True}, {"scales": 1}, {"scales": 2}, {"short_cuts": False}, {"field": 5},
    {"nonlinearity": "elu"}, {"nonlinearity": "relu"},
]  # fmt: skip


def lively(model: ConditionalModel) -> ConditionalModel:
    """Biases and weights off their starting values: a bias of zero hides where it is missing."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.core.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return model


def teacher_forced(model: ConditionalModel, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """The parameters of every pixel of two images, place by place, and of the images as a whole."""
    x = scaled(random_images(model, 2, seed), model.likelihood.levels, model.dtype)
    terms = model.core.terms(condition_for(model, 2))
    whole = model.core(x, terms)
    H, W = x.shape[2:]
    cache, placed = Cache(2, W), torch.empty_like(whole)
    for row in range(H):
        cache.move(row)
        above = model.core.vertical(x, terms, cache=cache)
        for column in range(W):
            cache.move(row, column)
            features = model.core.horizontal(x, above, terms, cache=cache)
            placed[:, :, row : row + 1, column : column + 1] = model.core.head(features)
    return placed, whole


@pytest.mark.parametrize("conditioning", CONDITIONS)
@pytest.mark.parametrize(("core", "kind", "channels"), [
    ("gated", "categorical", 1), ("gated", "categorical", 3), ("gated", "logistic_mixture", 4),
    ("gated", "bernoulli", 3), ("pixelcnn++", "logistic_mixture", 1), ("pixelcnn++", "logistic_mixture", 3),
])  # fmt: skip
@pytest.mark.parametrize("sides", [(8, 8), (8, 12), (12, 8)])
def test_samplers_agree(core: str, kind: str, channels: int, conditioning: str, sides: tuple[int, int]) -> None:
    H, W = sides
    model = lively(
        tiny_model(kind, core=core, channels=channels, height=H, width=W, conditioning=conditioning, bit_depth=3)
    )
    h = condition_for(model, 2)
    drawn = [model.sample(h, 2, seed=3, sampler=sampler, tile=4) for sampler in ("cached", "fixed_point", "naive")]
    assert torch.equal(drawn[0], drawn[2]) and torch.equal(drawn[1], drawn[2])


@pytest.mark.parametrize(
    ("core", "options"), [("gated", options) for options in GATED] + [("pixelcnn++", options) for options in PYRAMID]
)
@torch.no_grad()
def test_parameters_place_by_place_are_those_of_the_whole_image(core: str, options: dict[str, Any]) -> None:
    model = lively(tiny_model("logistic_mixture", core=core, channels=3, conditioning="both", bit_depth=8, **options))
    placed, whole = teacher_forced(model)
    assert float((placed - whole).abs().max()) < 1e-10 * (1 + float(whole.abs().max()))
    placed, whole = teacher_forced(model.float())
    assert float((placed - whole).abs().max()) < 1e-4 * (1 + float(whole.abs().max()))


def test_sides_that_only_the_gated_core_takes() -> None:
    model = lively(tiny_model(height=7, width=5, channels=3))
    assert torch.equal(model.sample(None, 4, sampler="cached"), model.sample(None, 4, sampler="naive"))


@pytest.mark.parametrize("core", ["gated", "pixelcnn++"])
def test_known_pixels_are_kept_and_seen(core: str) -> None:
    model = lively(tiny_model("logistic_mixture", core=core, channels=3, bit_depth=4))
    known = random_images(model, 1, 5)
    mask = torch.rand(8, 8, generator=torch.Generator().manual_seed(1)) < 0.5
    drawn = [
        model.sample(None, 3, known=known, mask=mask, sampler=sampler) for sampler in ("cached", "fixed_point", "naive")
    ]
    assert torch.equal(drawn[0], drawn[2]) and torch.equal(drawn[1], drawn[2])
    assert torch.equal(drawn[0][:, :, mask], known.expand(3, -1, -1, -1)[:, :, mask])


def test_asking_twice_at_one_place_changes_nothing() -> None:
    model = lively(tiny_model("categorical", channels=3))
    x, terms = torch.rand(1, 3, 8, 8, dtype=torch.float64), model.core.terms(condition_for(model))
    once, twice = Cache(1, 8), Cache(1, 8)
    for row in range(3):
        for cache in (once, twice):
            cache.move(row)
        above = [model.core.vertical(x, terms, cache=cache) for cache in (once, twice)]
        for column in range(8):
            for cache in (once, twice):
                cache.move(row, column)
            model.core.horizontal(torch.zeros_like(x), above[1], terms, cache=twice)  # before the pixel is known
            one, other = (
                model.core.horizontal(x, a, terms, cache=cache) for a, cache in zip(above, (once, twice), strict=True)
            )
            assert torch.equal(one, other)
