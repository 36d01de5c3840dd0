"""The classic bugs, planted one at a time: ``verify`` finds each and names the property that it breaks."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from building import tiny_model
from torch import Tensor

from condgen.condition import Condition
from condgen.cores.conditioning import ConditionBias, Conditioning, Terms
from condgen.cores.gated import GatedLayer, GatedPixelCNN
from condgen.cores.layers import Dropout, Link, MaskedConv, VerticalConv, colour_groups, colour_mask
from condgen.evaluate import verify
from condgen.likelihoods import Bernoulli, Categorical, LogisticMixture
from condgen.likelihoods.drawing import MixtureDrawer
from condgen.model import ConditionalModel
from condgen.samplers import SAMPLERS

naive_module = importlib.import_module("condgen.samplers.naive")  # the name in the package is the function

Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], ConditionalModel]


def model(kind: str = "categorical", channels: int = 3, **settings: Any) -> ConditionalModel:
    return tiny_model(kind, channels=channels, height=6, width=7, conditioning="both", **({"filters": 6} | settings))


def grey(**settings: Any) -> ConditionalModel:
    return model("categorical", 1, **settings)


# masks


def plant(patch: Patch, owner: type, name: str, wrong: Any) -> None:
    """Puts ``wrong`` in the place of a method for whole images; at single rows and pixels it stays what it is."""
    sound = getattr(owner, name)

    def method(self: Any, *given: Any, cache: Any = None, **options: Any) -> Any:
        return wrong(self, *given, **options) if cache is None else sound(self, *given, cache=cache, **options)

    patch.setattr(owner, name, method)


def mask_b_on_the_image(patch: Patch) -> ConditionalModel:
    """Mask B where A belongs: the first layer reads the very value it is to predict."""
    planted = model()
    conv = planted.core.layers[0].horizontal_conv
    conv.mask[..., -1] = colour_mask(colour_groups(12, 3), colour_groups(3, 3), "B")[:, :, None]
    return planted


def mask_b_on_the_grey_image(patch: Patch) -> ConditionalModel:
    planted = grey()
    planted.core.layers[0].horizontal_conv.mask.fill_(1)
    return planted


def mask_a_twice(patch: Patch) -> ConditionalModel:
    """Mask A where B belongs: a colour is lost on the way through the head."""
    planted = model()
    head = planted.core.head_in
    head.mask[..., -1] = colour_mask(colour_groups(head.out_channels, 3), colour_groups(6, 3), "A")[:, :, None]
    return planted


def mask_a_drops_the_neighbour_too(patch: Patch) -> ConditionalModel:
    planted = grey(first_field=5)
    planted.core.layers[0].horizontal_conv.mask[..., -2] = 0
    return planted


# shifts and crops


def link_without_shift(patch: Patch) -> ConditionalModel:
    plant(patch, Link, "forward", lambda self, x: F.conv2d(x, self.weight, self.bias))
    return grey()


def link_shifted_twice(patch: Patch) -> ConditionalModel:
    plant(patch, Link, "forward", lambda self, x: F.conv2d(F.pad(x, (0, 0, 2, 0))[:, :, : x.shape[2]], self.weight))
    return grey()


def blind_spot(patch: Patch) -> ConditionalModel:
    """Every vertical layer excludes its own row and the link has no shift: causal, but the blind spot is back."""

    def above(self: VerticalConv, x: Tensor) -> Tensor:
        m = self.kernel_size[1] // 2
        x = F.pad(x, (m, m, m + 1, 0))[:, :, : x.shape[2] + m]
        return F.conv2d(x, self.weight, self.bias)

    plant(patch, VerticalConv, "forward", above)
    plant(patch, Link, "forward", lambda self, x: F.conv2d(x, self.weight, self.bias))
    return grey()


def crop_a_row_too_low(patch: Patch) -> ConditionalModel:
    """The vertical convolution keeps rows 1 .. H: each knows the row below its own."""
    padded = torch.nn.Conv2d.forward
    plant(patch, VerticalConv, "forward", lambda self, x: padded(self, x)[:, :, 1 : x.shape[2] + 1])
    return grey()


def crop_a_row_too_high(patch: Patch) -> ConditionalModel:
    def cropped(self: VerticalConv, x: Tensor) -> Tensor:
        return torch.nn.Conv2d.forward(self, F.pad(x, (0, 0, 1, 0)))[:, :, : x.shape[2]]

    plant(patch, VerticalConv, "forward", cropped)
    return grey()


def crop_a_column_too_far_right(patch: Patch) -> ConditionalModel:
    """The horizontal convolution keeps columns 1 .. W: its current pixel is the next one."""

    def cropped(self: MaskedConv, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)
        return y[..., 1 : x.shape[3] + 1] if self.padding[1] else y

    plant(patch, MaskedConv, "forward", cropped)
    return grey()


def crop_of_vertical_columns(patch: Patch) -> ConditionalModel:
    """Columns c-m-1 .. c+m-1 instead of c-m .. c+m."""

    def cropped(self: VerticalConv, x: Tensor) -> Tensor:
        return torch.nn.Conv2d.forward(self, F.pad(x, (1, 0, 0, 0)))[:, :, : x.shape[2], : x.shape[3]]

    plant(patch, VerticalConv, "forward", cropped)
    return grey()


def residual_in_the_first_layer(patch: Patch) -> ConditionalModel:
    sound = GatedLayer.horizontal

    def horizontal(
        self: GatedLayer,
        z: Tensor,
        link: Tensor,
        terms: Terms,
        features: Any,
        dropout: Dropout | None,
        cache: Any = None,
    ) -> Any:
        new, given = sound(self, z, link, terms, features, dropout, cache)
        return (new + z if self.first and cache is None else new), given

    plant(patch, GatedLayer, "horizontal", horizontal)
    return grey()


def horizontal_features_enter_the_vertical_stack(patch: Patch) -> ConditionalModel:
    """The edge that the paper forbids, with the vertical stack read on its own row."""
    sound = GatedPixelCNN.vertical

    def vertical(self: GatedPixelCNN, x: Tensor, terms: Terms, dropout: Dropout | None = None) -> list[Tensor]:
        links = sound(self, x, terms, dropout)
        return [links[0], links[1] + F.conv2d(x, torch.ones(1, x.shape[1], 1, 3, dtype=x.dtype), padding=(0, 1))]

    plant(patch, GatedPixelCNN, "vertical", vertical)
    return grey()


# colours


def reversed(colours: Tensor) -> Tensor:
    return colours.max() - colours


def colours_in_the_order_b_g_r(patch: Patch) -> ConditionalModel:
    """The core orders the colours one way, the likelihood the other."""
    sound = Categorical.colour_of_outputs
    patch.setattr(Categorical, "colour_of_outputs", lambda self: reversed(sound(self)))
    return model()


def outputs_value_major(patch: Patch) -> ConditionalModel:
    """The core's outputs lie value by value, the likelihood reads them colour by colour."""
    patch.setattr(Categorical, "colour_of_outputs", lambda self: torch.arange(self.outputs) % self.channels)
    return model()


def bernoulli_reads_other_channels(patch: Patch) -> ConditionalModel:
    patch.setattr(Bernoulli, "colour_of_outputs", lambda self: torch.tensor([1, 0, 2]))
    return model("bernoulli")


def gate_halves_grouped_at_once(patch: Patch) -> ConditionalModel:
    """A rule applied to all 2p maps: with 7 maps of three colours the halves of the gate no longer match."""
    planted = model(filters=7)
    halves = colour_groups(14, 3)
    for k, layer in enumerate(planted.core.layers):
        inputs = colour_groups(3 if k == 0 else 7, 3)
        layer.horizontal_conv.mask[..., -1] = colour_mask(halves, inputs, "A" if k == 0 else "B")[:, :, None]
    return planted


def colour_masks_on_a_mixture(patch: Patch) -> ConditionalModel:
    """A mixture takes whole pixels; a core that orders colours shows it R and G twice."""
    planted = model("logistic_mixture", bit_depth=4)
    other = tiny_model(channels=3, height=6, width=7, conditioning="both", filters=6)
    for sound, ordered in zip(planted.core.layers, other.core.layers, strict=True):
        sound.horizontal_conv.mask.copy_(ordered.horizontal_conv.mask)
    return planted


def no_colour_masks(patch: Patch) -> ConditionalModel:
    """R, G and B independent given the past: nothing leaks, but the order is not there."""
    planted = model()
    planted.core.layers[0].horizontal_conv.mask[..., -1] = 0
    return planted


# conditions


def condition_ignored(patch: Patch) -> ConditionalModel:
    patch.setattr(Conditioning, "forward", lambda self, condition, keep=False: Terms(None, (), keep))
    return model()


def vector_ignored_beside_a_map(patch: Patch) -> ConditionalModel:
    sound = Conditioning.forward
    patch.setattr(
        Conditioning, "forward", lambda self, c, keep=False: sound(self, Condition(c.vector * 0, c.map), keep)
    )
    return tiny_model(channels=3, conditioning="vector+map", height=6, width=7, filters=6)


def map_ignored_beside_a_vector(patch: Patch) -> ConditionalModel:
    patch.setattr(ConditionBias, "forward", lambda self, vector, map: self.of_vector(vector)[:, :, None, None])
    return tiny_model(channels=3, conditioning="vector+map", height=6, width=7, filters=6)


def map_shifted(patch: Patch) -> ConditionalModel:
    """s lies a column off: pixel (r, 0) gets nothing of its own place."""
    sound = ConditionBias.forward

    def forward(self: ConditionBias, vector: Tensor | None, map: Tensor | None) -> Tensor | None:
        return sound(self, vector, None if map is None else F.pad(map, (0, 1))[..., 1:])

    patch.setattr(ConditionBias, "forward", forward)
    planted = tiny_model(channels=1, conditioning="map", height=6, width=7, layers=1)
    planted.core.layers[0].vertical_bias = planted.core.layers[0].horizontal_bias
    return planted


def condition_in_the_horizontal_stack_alone(patch: Patch) -> ConditionalModel:
    planted = model()
    for layer in planted.core.layers:
        layer.vertical_bias = Silent()
    return planted


def condition_in_the_vertical_stack_alone(patch: Patch) -> ConditionalModel:
    planted = model()
    for layer in planted.core.layers:
        layer.horizontal_bias = Silent()
    return planted


def condition_missing_in_one_layer(patch: Patch) -> ConditionalModel:
    """The weights are there, but the second layer's horizontal stack does not use them."""
    planted = model(layers=3)
    bias = planted.core.layers[1].horizontal_bias
    bias.register_forward_hook(lambda module, inputs, output: output * 0)
    return planted


def one_attribute_without_weight(patch: Patch) -> ConditionalModel:
    planted = tiny_model(channels=1, conditioning="global", height=6, width=7)
    with torch.no_grad():
        for layer in planted.core.layers:
            layer.vertical_bias.of_vector.weight[:, 1] = 0
            layer.horizontal_bias.of_vector.weight[:, 1] = 0
    return planted


class Silent(torch.nn.Module):
    scale = 0

    def forward(self, vector: Tensor | None, map: Tensor | None) -> None:
        return None


# likelihoods


def softmax_over_colours_and_values(patch: Patch) -> ConditionalModel:
    """One softmax over all outputs of a pixel, not one for each colour."""
    patch.setattr(
        Categorical,
        "table",
        lambda self, parameters, x, channel: parameters.log_softmax(1).unflatten(1, (3, -1))[:, channel],
    )
    return model()


def edges_without_tails(patch: Patch) -> ConditionalModel:
    """The outermost bins are as wide as the others: what lies beyond is lost."""

    def mass(self: LogisticMixture, value: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        half = 1 / (self.levels - 1)
        centred = (2 * value - (self.levels - 1)) * half - mean
        inverse = torch.exp(-log_scale)
        upper, lower = torch.sigmoid((centred + half) * inverse), torch.sigmoid((centred - half) * inverse)
        return (upper - lower).clamp(min=1e-300).log()

    patch.setattr(LogisticMixture, "_log_mass", mass)
    return model("logistic_mixture", bit_depth=4)


def log_prob_of_the_wrong_channel_order(patch: Patch) -> ConditionalModel:
    sound = Categorical.log_prob
    patch.setattr(Categorical, "log_prob", lambda self, parameters, x: sound(self, parameters, x.flip(1)))
    return model()


# sampling


def values_truncated_instead_of_rounded(patch: Patch) -> ConditionalModel:
    sound = MixtureDrawer.draw

    def draw(*arguments: Any) -> Tensor:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(torch, "round", torch.floor)
            return sound(*arguments)

    patch.setattr(MixtureDrawer, "draw", draw)
    return model("logistic_mixture", bit_depth=5)


def argmax_instead_of_a_draw(patch: Patch) -> ConditionalModel:
    def draw(
        self: Categorical, parameters: Tensor, x: Tensor, uniforms: Tensor, step: int, temperature: Any = 1
    ) -> Tensor:
        x = x.clone()
        x[:, step] = parameters.unflatten(1, (self.channels, -1))[:, step].argmax(1).to(x.dtype)
        return x

    patch.setattr(Categorical, "draw", draw)
    return model()


def sampler_scales_otherwise_than_the_model(patch: Patch) -> ConditionalModel:
    """Inputs scaled by the number of levels, not by the largest value."""
    patch.setattr(naive_module, "scaled", lambda x, levels, dtype: x.to(dtype) / (levels / 2) - 1)
    return model()


def sampler_draws_all_colours_at_once(patch: Patch) -> ConditionalModel:
    """G is drawn before R is fed back."""
    sound = naive_module.naive

    class Single:
        def __init__(self, likelihood: Any) -> None:
            self.inner, self.channels, self.levels, self.passes = likelihood, 3, likelihood.levels, 1
            self.log_prob = likelihood.log_prob

        def draw(self, parameters: Tensor, x: Tensor, uniforms: Tensor, step: int, temperature: float) -> Tensor:
            for each in range(3):
                x = self.inner.draw(parameters, x, uniforms, each, temperature)
            return x

    def sampler(core: Any, likelihood: Any, *rest: Any, **named: Any) -> Any:
        return sound(core, Single(likelihood), *rest, **named)

    patch.setitem(SAMPLERS, "naive", sampler)
    return model()


def sampler_forgets_what_is_given(patch: Patch) -> ConditionalModel:
    sound = naive_module.naive

    def sampler(*arguments: Any, known: Any, mask: Any, **named: Any) -> Any:
        return sound(*arguments, **named)

    patch.setitem(SAMPLERS, "naive", sampler)
    return grey()


def second_sampler_with_its_own_noise(patch: Patch) -> ConditionalModel:
    sound = naive_module.naive

    def sampler(core: Any, likelihood: Any, terms: Any, noise: Tensor, **named: Any) -> Any:
        return sound(core, likelihood, terms, 1 - noise, **named)

    patch.setitem(SAMPLERS, "other", sampler)
    return grey()


PLANTED: list[tuple[Plant, str]] = [
    (mask_b_on_the_image, "colour_order"),
    (mask_b_on_the_image, "causality"),
    (mask_b_on_the_grey_image, "causality"),
    (mask_a_twice, "colour_order"),
    (mask_a_drops_the_neighbour_too, "coverage"),
    (link_without_shift, "causality"),
    (link_shifted_twice, "coverage"),
    (blind_spot, "coverage"),
    (crop_a_row_too_low, "causality"),
    (crop_a_row_too_high, "coverage"),
    (crop_a_column_too_far_right, "causality"),
    (crop_of_vertical_columns, "coverage"),
    (residual_in_the_first_layer, "causality"),
    (horizontal_features_enter_the_vertical_stack, "causality"),
    (colours_in_the_order_b_g_r, "colour_order"),
    (outputs_value_major, "colour_order"),
    (bernoulli_reads_other_channels, "colour_order"),
    (gate_halves_grouped_at_once, "colour_order"),
    (colour_masks_on_a_mixture, "colour_order"),
    (no_colour_masks, "colour_order"),
    (condition_ignored, "condition"),
    (vector_ignored_beside_a_map, "condition"),
    (map_ignored_beside_a_vector, "condition"),
    (map_shifted, "condition"),
    (condition_in_the_horizontal_stack_alone, "condition"),
    (condition_in_the_vertical_stack_alone, "condition"),
    (condition_missing_in_one_layer, "condition"),
    (one_attribute_without_weight, "condition"),
    (softmax_over_colours_and_values, "normalisation"),
    (edges_without_tails, "normalisation"),
    (log_prob_of_the_wrong_channel_order, "normalisation"),
    (values_truncated_instead_of_rounded, "sampling"),
    (argmax_instead_of_a_draw, "sampling"),
    (sampler_scales_otherwise_than_the_model, "sampling"),
    (sampler_draws_all_colours_at_once, "sampling"),
    (sampler_forgets_what_is_given, "sampling"),
    (second_sampler_with_its_own_noise, "sampling"),
]
HARMLESS_TO_CAUSALITY = {
    blind_spot,
    link_shifted_twice,
    crop_a_row_too_high,
    mask_a_drops_the_neighbour_too,
    no_colour_masks,
}


@pytest.mark.parametrize(("plant", "broken"), PLANTED, ids=[f"{plant.__name__}-{broken}" for plant, broken in PLANTED])
def test_verify_finds_the_planted_bug(plant: Plant, broken: str, monkeypatch: Patch) -> None:
    found = verify(plant(monkeypatch), quiet=True)
    assert found[broken] is False, found
    if plant in HARMLESS_TO_CAUSALITY:  # what only loses sight is not called a leak
        assert found["causality"] is True, found
    if broken in ("condition", "normalisation", "sampling") and plant is not softmax_over_colours_and_values:
        assert [found[name] for name in ("causality", "coverage", "colour_order")] == [True] * 3, found


@pytest.mark.parametrize("sound", [model(), grey(), model("bernoulli"), model("logistic_mixture", bit_depth=4)])
def test_without_the_bug_the_same_models_pass(sound: ConditionalModel) -> None:
    assert set(verify(sound, quiet=True).values()) == {True}
