"""``verify`` passes on sound models of every kind, and is itself held against slow witnesses."""

from __future__ import annotations

import itertools

import pytest
import torch
from building import condition_for, random_images, tiny_model

from condgen.evaluate import findings, verify
from condgen.evaluate.draws import _distance_of_draws
from condgen.evaluate.sight import look, probed_pixels
from condgen.evaluate.trial import in_float64, on_grid, shaken
from condgen.evaluate.verify import _promised_colours, _promised_pixels
from condgen.likelihoods import LogisticMixture
from condgen.model import ConditionalModel

PROPERTIES = ["causality", "coverage", "colour_order", "normalisation", "condition", "sampling"]
KINDS = {"categorical": 2, "bernoulli": 1, "logistic_mixture": 5}
CONDITIONINGS = ["none", "global", "spatial", "both", "map", "vector+map"]


def check(model: ConditionalModel) -> None:
    found = findings(model, quiet=True)
    assert list(found) == PROPERTIES
    unconditional = not (model.encoder.vector_size or model.encoder.map_channels)
    expected = {name: None if name == "condition" and unconditional else True for name in PROPERTIES}
    assert {name: each.holds for name, each in found.items()} == expected, found


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_sound_models_pass(kind: str, channels: int, conditioning: str) -> None:
    check(tiny_model(kind, channels=channels, height=5, width=6, bit_depth=KINDS[kind], conditioning=conditioning))


@pytest.mark.parametrize(("kind", "channels"), [("categorical", 3), ("categorical", 1), ("logistic_mixture", 3)])
def test_sound_models_of_eight_bits_pass(kind: str, channels: int) -> None:
    check(tiny_model(kind, channels=channels, height=4, width=4, bit_depth=8, conditioning="both"))


@pytest.mark.parametrize(
    ("height", "width", "channels", "kind"),
    [(24, 40, 1, "categorical"), (24, 40, 3, "logistic_mixture"), (24, 40, 3, "bernoulli"), (1, 1, 3, "categorical"),
     (1, 7, 1, "categorical"), (7, 1, 3, "bernoulli"), (2, 2, 4, "logistic_mixture"), (16, 16, 1, "bernoulli")],
)  # fmt: skip
def test_sound_models_of_any_shape_pass(height: int, width: int, channels: int, kind: str) -> None:
    check(tiny_model(kind, channels=channels, height=height, width=width, bit_depth=KINDS[kind], conditioning="both"))


@pytest.mark.parametrize(
    "core",
    [{"field": 5}, {"first_field": 7}, {"field": 1, "first_field": 3}, {"skips": False}, {"layers": 1, "head": 3},
     {"layers": 1, "skips": False}, {"filters": 5}, {"filters": 3, "skips": False, "head": 3}, {"layers": 6},
     {"dropout": 0.5}],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["categorical", "logistic_mixture"])
def test_sound_models_of_any_build_pass(kind: str, core: dict[str, int]) -> None:
    check(tiny_model(kind, channels=3, height=5, width=6, conditioning="both", **core))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["categorical", "logistic_mixture"])
def test_sound_models_with_a_linear_path_pass(kind: str) -> None:
    model = tiny_model(kind, channels=3, height=5, width=6, conditioning="both", linear_path=True)
    check(model)
    with torch.no_grad():  # it starts at zero; here it has to show
        for number, weight in enumerate(model.core.linear.parameters()):
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))
    check(model)


@pytest.mark.parametrize("seed", range(6))
def test_the_smallest_models_pass_for_any_weights(seed: int) -> None:
    """With one map of each colour a sleeping ReLU often hides everything behind it."""
    check(tiny_model("categorical", channels=3, height=4, width=5, filters=3, layers=1, head=3, seed=seed))


def test_the_classic_rule_is_held_to_what_it_promises() -> None:
    model = tiny_model("logistic_mixture", channels=3, height=4, width=4, bit_depth=8)
    model.likelihood = LogisticMixture(3, 256, mixtures=2, rule="classic")
    found = findings(model, quiet=True)["normalisation"]
    assert found.holds and "classic rule promises no more" in found.detail


def test_the_model_is_left_as_it_was() -> None:
    model = tiny_model("categorical", channels=3, conditioning="both", dtype=torch.float32, dropout=0.5).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = verify(model, quiet=True)
    assert first == verify(model, quiet=True)
    assert model.training and model.dtype == torch.float32
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def rectangle(row: int, column: int, height: int, width: int, reach: int) -> set[tuple[int, int]]:
    """The pixels that output (row, column) sees by the paper's geometry, counted out one by one."""
    seen = set()
    for r, c in itertools.product(range(height), range(width)):
        above = row - reach - 1 <= r <= row - 1 and column - reach <= c <= column + reach
        left = r == row and column - reach <= c <= column - 1
        if above or left:
            seen.add((r, c))
    return seen


@pytest.mark.parametrize(("field", "first", "layers"), [(3, 3, 1), (3, 3, 2), (3, 5, 2), (5, 3, 3), (1, 3, 3)])
def test_the_promise_is_the_rectangle_of_the_paper(field: int, first: int, layers: int) -> None:
    model = tiny_model(height=7, width=9, field=field, first_field=first, layers=layers)
    reach = first // 2 + (layers - 1) * (field // 2)
    for row, column in itertools.product(range(7), range(9)):
        promised = {(r, c) for r, c in model.core.sees(row, column, 7, 9).nonzero().tolist()}
        assert promised == rectangle(row, column, 7, 9, reach)


@pytest.mark.parametrize("kind", ["categorical", "logistic_mixture"])
def test_sight_is_what_changes_when_a_value_changes(kind: str) -> None:
    """The Jacobian's zeros against a finite change of every single input; with shaken weights, whose ReLUs are open."""
    model = shaken(in_float64(tiny_model(kind, channels=3, height=4, width=5, filters=6, bit_depth=3)), 0, 1)
    colours = 3 if kind == "categorical" else 1
    pixels = probed_pixels(model, 0)
    assert len(pixels) == 20
    promised = _promised_pixels(model, pixels) | _promised_colours(model, pixels)
    sight = look(
        model, pixels, torch.zeros_like(promised), 0, lambda n: None
    )  # nothing to wait for: two images a probe
    changed = torch.zeros_like(sight.of)
    with torch.no_grad():
        for seed in range(3):
            x = random_images(model, 1, seed)
            terms = model.core.terms(condition_for(model))
            before = model.core(on_grid(model, x), terms)[0].unflatten(0, (colours, -1))  # (J, outputs / J, H, W)
            for c, r, w in itertools.product(range(3), range(4), range(5)):
                other = on_grid(model, x)
                other[0, c, r, w] += 0.3
                after = model.core(other, terms)[0].unflatten(0, (colours, -1))
                moved = (before != after).any(1)  # (J, H, W)
                for p, (row, column) in enumerate(pixels):
                    changed[p, :, c, r, w] |= moved[:, row, column]
    assert torch.equal(changed, sight.of)
    assert bool(sight.of.any())


def test_larger_images_are_probed_at_corners_edges_and_by_chance() -> None:
    pixels = probed_pixels(tiny_model(height=24, width=40), 0)
    assert len(pixels) == len(set(pixels)) == 40
    assert {(0, 0), (0, 39), (23, 0), (23, 39), (12, 20), (0, 20), (12, 0), (23, 20), (12, 39)} <= set(pixels)
    assert (
        pixels == probed_pixels(tiny_model(height=24, width=40), 0) != probed_pixels(tiny_model(height=24, width=40), 1)
    )
    assert len(probed_pixels(tiny_model(height=24, width=40, filters=600), 0)) == 9  # costly: no more than these


def test_shaken_weights_keep_what_is_cut() -> None:
    model = in_float64(tiny_model(channels=3, conditioning="both"))
    layer = model.core.layers[0]
    with torch.no_grad():
        layer.vertical_bias.of_vector.weight.zero_()
    other = shaken(model, 0, 1)
    assert shaken(model, 0, 0) is model
    assert not other.core.layers[0].vertical_bias.of_vector.weight.any()
    before, after = layer.horizontal_conv.weight, other.core.layers[0].horizontal_conv.weight
    assert ((after / before).abs() >= 0.5).all() and (after / before < 0).any() and (after / before > 0).any()
    assert (other.core.head_in.bias > 0).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("kind", "bit_depth"), [("categorical", 3), ("bernoulli", 1), ("logistic_mixture", 4)])
def test_honest_draws_are_close(kind: str, bit_depth: int, seed: int) -> None:
    model = tiny_model(kind, channels=3, height=2, width=2, bit_depth=bit_depth)
    assert _distance_of_draws(model, seed) < 2  # 3 is the bar
