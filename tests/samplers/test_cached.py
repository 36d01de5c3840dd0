"""The cached and the fixed-point sampler equal the plain one: every likelihood, condition, shape and option."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from building import condition_for, random_images, tiny_model

from condgen.cores.cache import Cache
from condgen.errors import RecipeError
from condgen.likelihoods import scaled
from condgen.model import ConditionalModel

SAMPLERS = ("cached", "fixed_point", "naive")
KINDS = [
    ("gated", "categorical"), ("gated", "bernoulli"), ("gated", "logistic_mixture"), ("gated", "continuous_mixture"),
    ("pixelcnn++", "logistic_mixture"), ("pixelcnn++", "continuous_mixture"), ("pixelcnn++", "linear_categorical"),
]  # fmt: skip
GATED: list[dict[str, Any]] = [{}, {"linear_path": True}, {"skips": False}, {"field": 5, "first_field": 7}]
SMALL: list[dict[str, Any]] = [{"variant": "plain"}, {"variant": "nin"}, {"variant": "channels", "resnets": 2}]
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
            placed[:, :, row : row + 1, column : column + 1] = model.core.head(features, cache=cache)
    return placed, whole


def drawn_by(
    samplers: Sequence[str], model: ConditionalModel, conditions: int, count: int, **options: Any
) -> list[torch.Tensor]:
    h = condition_for(model, conditions)
    return [model.sample(h, count, seed=3, sampler=sampler, tile=64, **options) for sampler in samplers]


@pytest.mark.parametrize("conditioning", ["none", "global", "map", "vector+map"])
@pytest.mark.parametrize("sides", [(8, 8), (8, 12), (12, 8), (7, 5)])
@pytest.mark.parametrize(("core", "kind"), KINDS)
def test_samplers_give_the_same_64_images(core: str, kind: str, sides: tuple[int, int], conditioning: str) -> None:
    if core == "pixelcnn++" and sides == (7, 5):
        pytest.skip("PixelCNN++ takes sides that divide by its scales")
    H, W = sides
    bits = 1 if kind == "bernoulli" else 3
    model = lively(
        tiny_model(kind, core=core, channels=3, height=H, width=W, conditioning=conditioning, bit_depth=bits)
    )
    conditions = 1 if conditioning == "none" else 4
    cached, fixed_point = drawn_by(["cached", "fixed_point"], model, conditions, 64 // conditions)
    assert torch.equal(cached, fixed_point)
    assert len({image.numpy().tobytes() for image in cached}) > 16
    # an image that a round of the fixed point leaves as it is *is* the plain sampler's, by induction over its pixels:
    # that slow one need not be asked about every shape
    if sides == (8, 8) or core == "gated":
        (naive,) = drawn_by(["naive"], model, conditions, 64 // conditions)
        assert torch.equal(cached, naive)


@pytest.mark.parametrize("conditioning", ["spatial", "both"])
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize(("core", "kind"), [("gated", "categorical"), ("pixelcnn++", "logistic_mixture")])
def test_samplers_agree_about_drawn_maps_and_other_channels(
    core: str, kind: str, channels: int, conditioning: str
) -> None:
    model = lively(tiny_model(kind, core=core, channels=channels, conditioning=conditioning, bit_depth=3))
    cached, fixed_point, naive = drawn_by(SAMPLERS, model, 2, 4)
    assert torch.equal(cached, naive) and torch.equal(fixed_point, naive)


@pytest.mark.parametrize(("core", "kind"), KINDS)
@pytest.mark.parametrize("temperature", [0.6, (0.5, 1.5)])
def test_samplers_agree_at_another_temperature(core: str, kind: str, temperature: Any) -> None:
    if isinstance(temperature, tuple) and "mixture" not in kind:
        pytest.skip("one temperature is all it has")
    model = lively(tiny_model(kind, core=core, channels=3, bit_depth=1 if kind == "bernoulli" else 3))
    cached, fixed_point, naive = drawn_by(SAMPLERS, model, 1, 8, temperature=temperature)
    assert torch.equal(cached, naive) and torch.equal(fixed_point, naive)
    assert not torch.equal(cached, drawn_by(["cached"], model, 1, 8)[0])


@pytest.mark.parametrize(
    ("core", "options"),
    [("gated", options) for options in GATED] + [("pixelcnn++", options) for options in PYRAMID + SMALL],
)
@torch.no_grad()
def test_parameters_place_by_place_are_those_of_the_whole_image(core: str, options: dict[str, Any]) -> None:
    model = lively(tiny_model("logistic_mixture", core=core, channels=3, conditioning="both", bit_depth=8, **options))
    placed, whole = teacher_forced(model)
    assert float((placed - whole).abs().max()) <= 1e-10
    placed, whole = teacher_forced(model.float())
    assert float((placed - whole).abs().max()) <= 1e-4


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


@pytest.mark.parametrize("sampler", ["cached", "fixed_point", "naive"])
@pytest.mark.parametrize(("core", "kind", "channels"), [
    ("gated", "categorical", 3), ("gated", "bernoulli", 1), ("gated", "continuous_mixture", 1),
    ("pixelcnn++", "logistic_mixture", 3), ("pixelcnn++", "linear_categorical", 3),
])  # fmt: skip
@torch.no_grad()
def test_what_was_drawn_comes_with_its_log_probability(core: str, kind: str, channels: int, sampler: str) -> None:
    """At another temperature too: it is that of the model."""
    model = lively(tiny_model(kind, core=core, channels=channels, conditioning="both", bit_depth=3))
    h, known = condition_for(model, 2), random_images(model, 2, 5)
    mask = torch.rand(8, 8, generator=torch.Generator().manual_seed(1)) < 0.5
    for options in ({"temperature": 0.7}, {"known": known, "mask": mask}):
        x, nats = model.sample_and_log_prob(h, 3, seed=4, sampler=sampler, tile=4, **options)
        assert nats.dtype == torch.float64 and nats.shape == (6,)
        torch.testing.assert_close(nats, model.log_prob(x, h.repeat(3)), rtol=1e-12, atol=0)
        assert torch.equal(x, model.sample(h, 3, seed=4, sampler="naive", tile=4, **options))


def test_a_stream_is_the_sample_tile_by_tile_and_begins_where_it_is_told() -> None:
    model = lively(tiny_model(conditioning="global")).train()
    h = condition_for(model, 3)
    whole, nats = model.sample_and_log_prob(h, 3, seed=1, tile=2)
    for skip in (0, 2, 8):
        parts = list(model.stream(h, 3, seed=1, tile=2, skip=skip))
        assert [len(images) for images, _ in parts] == [2] * ((8 - skip) // 2) + [1]
        assert torch.equal(torch.cat([images for images, _ in parts]), whole[skip:])
        assert torch.equal(torch.cat([log_prob for _, log_prob in parts]), nats[skip:])
    assert model.training and not nats.requires_grad and not list(model.stream(h, 3, tile=2, skip=10))
    with pytest.raises(RecipeError, match="multiple of tile"):
        model.stream(h, 3, tile=2, skip=1)
