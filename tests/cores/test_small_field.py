"""PixelCNN++ of a small field: it sees exactly its field, knows the condition everywhere, starts standardised."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from building import condition_for, random_images, tiny_model
from torch import Tensor

from condgen.condition import Condition, DataInfo
from condgen.cores.small_field import ChannelSets, SmallFieldPixelCNN
from condgen.cores.two_streams import GatedResnet
from condgen.errors import RecipeError
from condgen.likelihoods import scaled
from condgen.model import ConditionalModel
from condgen.recipe import Recipe, read_recipe
from condgen.recipe.build import build_model

VARIANTS = ["plain", "nin", "channels"]


def small(variant: str = "plain", **sizes: object) -> ConditionalModel:
    options: dict[str, object] = {"kind": "logistic_mixture", "core": "pixelcnn++", "variant": variant, **sizes}
    return tiny_model(**options)  # type: ignore[arg-type]


def parameters_of(model: ConditionalModel, x: Tensor, h: Condition | None = None) -> Tensor:
    return model.core(x, model.core.terms(Condition() if h is None else h))


def seen_from(model: ConditionalModel, row: int, column: int) -> Tensor:
    """Where the Jacobian of (row, column)'s parameters is not zero for one of a few images: bool (H, W)."""
    x = scaled(random_images(model, 4), model.likelihood.levels, torch.float64).requires_grad_()
    mix = torch.randn(model.likelihood.outputs, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (parameters_of(model, x)[:, :, row, column] * mix).sum().backward()
    assert x.grad is not None
    return (x.grad != 0).any(0).any(0)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("resnets", "field"), [(1, 3), (2, 3), (1, 5)])
def test_it_sees_exactly_what_it_promises(variant: str, resnets: int, field: int) -> None:
    model = small(variant, resnets=resnets, field=field, height=16, width=19, filters=8, bit_depth=8)
    for row, column in ((0, 0), (0, 9), (8, 0), (9, 9), (15, 18), (15, 0)):
        assert torch.equal(seen_from(model, row, column), model.core.sees(row, column, 16, 19))


def test_the_field_of_three_resnets_is_the_papers() -> None:
    """15x8: 8 rows of 15 columns above, 7 pixels to the left."""
    model = small(resnets=3, height=20, width=31)
    expected = torch.zeros(20, 31, dtype=torch.bool)
    expected[4:12, 8:23] = True
    expected[12, 8:15] = True
    assert torch.equal(model.core.sees(12, 15, 20, 31), expected)
    assert torch.equal(seen_from(small(resnets=3, height=20, width=31, filters=8, bit_depth=8), 12, 15), expected)
    assert small(resnets=3, full_sight=True).core.sees(7, 7, 8, 8).sum() == 63


def test_a_resnet_that_hears_the_new_u_would_see_more() -> None:
    """Why the file's reading is not PixelCNN++'s own order: it adds a row and a column."""
    model = small(resnets=1, height=12, width=16, filters=8, bit_depth=8)
    core = model.core

    def horizontal(x: Tensor, vertical: list[object], terms: object, dropout: object = None) -> Tensor:
        above, *us = vertical
        ul = core.start_horizontal(x, above, None)
        step = GatedResnet("ul", 8, 3, core.activation, core.conditioning, auxiliary=1, scale=0).double()
        return step(step(ul, terms, None, us[0]), terms, None, us[0]).x

    core.horizontal = horizontal
    seen = seen_from(model, 8, 8)
    assert seen[8 - 5 : 8].any(1).all() and (seen & ~core.sees(8, 8, 12, 16)).any()


def convolution(inputs: int, outputs: int, taps: int) -> int:
    return outputs * (taps * inputs + 2)  # and b and g


def counted(variant: str, R: int, F: int, C: int, outputs: int, D: int) -> int:
    """Written out from the description: every convolution by its taps."""

    def resnet(taps: int, width: int, auxiliary: int) -> int:
        total = convolution(2 * width, width, taps) + convolution(2 * width, 2 * width, taps) + D * 2 * width
        return total + (convolution(2 * width * auxiliary, width, 1) if auxiliary else 0)

    between = {
        "plain": 0,
        "nin": 3 * (resnet(1, F, 0) + resnet(1, F, 1)),
        "channels": sum(resnet(1, F // 4, k) + resnet(1, F // 4, k + 1) for k in (1, 2, 3)),
    }[variant]
    total = convolution(C + 1, F, 6) + convolution(C + 1, F, 3) + convolution(C + 1, F, 2) + convolution(F, outputs, 1)
    total += R * (resnet(6, F, 0) + between) + resnet(4, F, 0) + (R - 1) * resnet(4, F, 1)
    return total + resnet(1, F, 1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_are_those_of_the_description(variant: str) -> None:
    for R, D in ((1, 0), (3, 3)):
        model = small(variant, channels=3, filters=8, resnets=R, conditioning="global" if D else "none")
        assert sum(p.numel() for p in model.core.parameters()) == counted(variant, R, 8, 3, 20, D)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("conditioning", ["global", "spatial", "both", "map", "vector+map"])
def test_a_condition_reaches_every_pixel_and_every_resnet(variant: str, conditioning: str) -> None:
    model = small(variant, conditioning=conditioning, resnets=2, height=5, width=6)
    x = scaled(random_images(model, 2), model.likelihood.levels, torch.float64)
    one, other = (parameters_of(model, x, condition_for(model, 2, seed)) for seed in (0, 1))
    assert ((one != other).any(1)).all()
    parameters_of(model, x, condition_for(model, 2)).square().sum().backward()
    for name, weight in model.core.named_parameters():
        # at the image's own place each weight is used; none is carried along
        assert weight.grad is not None and bool(weight.grad.any()), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_data_dependent_initialisation_standardises_every_layer(variant: str) -> None:
    model = small(variant, channels=3, filters=8, resnets=2, bit_depth=8)
    x = scaled(random_images(model, 16), 256, torch.float64)
    terms = model.core.terms(Condition())
    model.core.initialise(x, terms)
    found: list[Any] = []

    def look(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        y, _ = layer.uncropped(*inputs)
        wanted = 0.1 if layer in last else 1.0
        found.append(layer)
        assert torch.allclose(y.mean((0, 2, 3)), torch.zeros(1).double(), atol=1e-9)
        assert torch.allclose(y.std((0, 2, 3), correction=0), torch.full((1,), wanted).double(), rtol=1e-3)

    last = [part.conv_out for part in model.core.modules() if isinstance(part, GatedResnet)]
    layers = [part for part in model.core.modules() if hasattr(part, "parametrizations")]
    for layer in layers:
        layer.register_forward_pre_hook(look)
    with torch.no_grad():
        model.core(x, terms)
    assert len(found) == len(layers) == len(set(found))


def test_dropout_belongs_to_the_example() -> None:
    model = small("channels", filters=8, dropout=0.5)
    x = scaled(random_images(model, 3), model.likelihood.levels, torch.float64)
    keys, terms = torch.tensor([5, 6, 7]), model.core.terms(Condition())
    together, without = model.core(x, terms, keys), model.core(x, terms)
    assert torch.allclose(together[1:2], model.core(x[1:2], terms, keys[1:2])) and not torch.equal(together, without)


def test_a_recipe_builds_each() -> None:
    for variant in VARIANTS:
        values = {
            "data": {"image_size": 9},
            "model": {"core": "pixelcnn++", "small_field": variant, "filters": 8, "resnets": 2},
            "train": {"max_steps": 1},
        }
        core = build_model(Recipe.model_validate(values), DataInfo(3, 9, 9, 8)).core
        assert isinstance(core, SmallFieldPixelCNN) and len(core.u) == {"plain": 2, "nin": 8, "channels": 4}[variant]
        assert any(isinstance(part, ChannelSets) for part in core.modules()) == (variant == "channels")


def test_channels_that_do_not_divide_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"model\.filters: 10 does not divide by 4"):
        read_recipe("quickstart", {"model": {"core": "pixelcnn++", "small_field": "channels", "filters": 10}})
    with pytest.raises(ValueError, match="filters must divide by 4, not be 10"):
        small("channels", filters=10)
