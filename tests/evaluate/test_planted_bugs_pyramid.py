"""Bugs of PixelCNN++, planted one at a time: ``verify`` finds each and names the property that it breaks."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from building import random_images, tiny_model
from torch import Tensor

from condgen.condition import Condition
from condgen.cores import two_streams
from condgen.cores.layers import shift_down
from condgen.evaluate import verify
from condgen.evaluate.trial import Finding, on_grid
from condgen.likelihoods import Bernoulli
from condgen.model import ConditionalModel

Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], ConditionalModel]


@pytest.fixture(autouse=True)
def no_samples(monkeypatch: Patch) -> None:
    """Drawing images takes longer than all the rest, and these bugs are in what they are drawn from."""
    module = importlib.import_module("condgen.evaluate.verify")  # the name in the package is the function
    monkeypatch.setattr(module, "sampling_finding", lambda *arguments: Finding(True, "not tried"))


def model(**settings: Any) -> ConditionalModel:
    """Wide: at the sides the field ends inside the image."""
    own: dict[str, Any] = {"channels": 1, "height": 4, "width": 16, "conditioning": "both", "bit_depth": 4} | settings
    return tiny_model("logistic_mixture", core="pixelcnn++", **own)


def on_output(layers: Any, change: Callable[[Any, Tensor], Tensor]) -> None:
    """Lets ``change(layer, output)`` take the place of what each layer gives."""
    for layer in layers:
        layer.register_forward_hook(lambda layer, inputs, output: change(layer, output))


def moved(rows: int, columns: int) -> Callable[[Any, Tensor], Tensor]:
    """Each place gets what belongs to the one so many rows below and columns to the right; zeros from outside."""

    def change(layer: Any, y: Tensor) -> Tensor:
        y = F.pad(y, (max(0, -columns), max(0, columns), max(0, -rows), max(0, rows)))
        H, W = y.shape[2] - abs(rows), y.shape[3] - abs(columns)
        return y[:, :, max(0, rows) :, max(0, columns) :][:, :, :H, :W]

    return change


def convs(core: Any, stream: str) -> list[Any]:
    """The convolutions of all resnets of one stream."""
    resnets = [resnet for half in (core.down, core.up) for block in half for resnet in getattr(block, stream)]
    return [conv for resnet in resnets for conv in (resnet.conv_in, resnet.conv_out)]


# shifts and crops


def no_shift_down(patch: Patch) -> ConditionalModel:
    patch.setattr(two_streams, "shift_down", lambda x: x)
    return model()


def no_shift_right(patch: Patch) -> ConditionalModel:
    patch.setattr(two_streams, "shift_right", lambda x: x)
    return model()


def shifted_twice(patch: Patch) -> ConditionalModel:
    patch.setattr(two_streams, "shift_down", lambda x: shift_down(shift_down(x)))
    return model()


def ul_starts_with_its_own_row(patch: Patch) -> ConditionalModel:
    """Its share of the row above is not shifted, alone."""
    planted = model()
    on_output([planted.core.start_row], moved(1, 0))
    return planted


def u_crops_transposed_columns_at_zero(patch: Patch) -> ConditionalModel:
    """Columns 0 .. 2W - 1 of what a transposed convolution writes, not 1 .. 2W."""
    planted = model(height=8, width=24)
    for block in planted.core.up[:-1]:
        block.u_resize.offset = 0
    return planted


def u_crops_transposed_rows_at_one(patch: Patch) -> ConditionalModel:
    planted = model(height=8, width=8)
    on_output([planted.core.up[0].u_resize], moved(1, 0))
    return planted


def ul_crops_transposed_columns_at_one(patch: Patch) -> ConditionalModel:
    planted = model()
    on_output([planted.core.up[1].ul_resize], moved(0, 1))
    return planted


def ul_convolution_reads_the_right_neighbour(patch: Patch) -> ConditionalModel:
    planted = model()
    on_output([planted.core.down[0].ul[0].conv_in], moved(0, 1))
    return planted


def coarse_ul_convolution_reads_the_right_neighbour(patch: Patch) -> ConditionalModel:
    planted = model()
    on_output([planted.core.up[0].ul[0].conv_out], moved(0, 1))
    return planted


def u_convolution_reads_the_row_below(patch: Patch) -> ConditionalModel:
    planted = model()
    on_output([planted.core.up[2].u[1].conv_in], moved(1, 0))
    return planted


def strided_convolution_reads_odd_places(patch: Patch) -> ConditionalModel:
    """Around fine (2i + 1, 2j + 1), not (2i, 2j): the padding is on the wrong side."""
    planted = model()
    planted.core.down[0].ul_resize.register_forward_pre_hook(lambda conv, inputs: (moved(1, 1)(conv, inputs[0]),))
    return planted


def u_convolutions_exclude_their_own_row(patch: Patch) -> ConditionalModel:
    """Causal, but the blind spot is back."""
    planted = model()
    on_output(convs(planted.core, "u"), moved(-1, 0))
    return planted


def u_convolutions_lean_to_the_left(patch: Patch) -> ConditionalModel:
    planted = model()
    on_output(convs(planted.core, "u"), moved(0, -1))
    return planted


def u_says_nothing_to_ul(patch: Patch) -> ConditionalModel:
    planted = model()
    for half in (planted.core.down, planted.core.up):
        on_output([resnet.nin for block in half for resnet in block.ul], lambda layer, y: y * 0)
    return planted


# mixing


def normalised_over_the_batch(patch: Patch) -> ConditionalModel:
    """In training alone: each pixel depends on the others, later ones and those of other images."""
    planted = model()
    on_output(
        [planted.core.up[2].ul[0].conv_out],
        lambda layer, y: F.batch_norm(y, None, None, training=True) if layer.training else y,
    )
    return planted


def normalised_over_the_image(patch: Patch) -> ConditionalModel:
    planted = model()
    on_output([planted.core.down[1].u[0].conv_out], lambda layer, y: y - y.mean((2, 3), keepdim=True))
    return planted


def a_leak_in_training_alone(patch: Patch) -> ConditionalModel:
    planted = model(dropout=0.5)
    on_output([planted.core.down[0].ul[0].conv_in], lambda layer, y: y + y.roll(-1, 3) if layer.training else y)
    return planted


# the path of all earlier pixels


def recalls_the_pixel_itself(patch: Patch) -> ConditionalModel:
    """An inclusive running sum."""
    sound = F.pad
    patch.setattr(F, "pad", lambda x, *rest, **named: x if x.dim() == 3 else sound(x, *rest, **named))
    return model(full_sight=True)


def recalls_all_but_one_pixel(patch: Patch) -> ConditionalModel:
    planted = model(full_sight=True)
    on_output([planted.core.recall.what], lambda layer, y: y * (torch.arange(64) != 12).view(4, 16))
    return planted


# colours


def a_likelihood_that_orders_colours(patch: Patch) -> ConditionalModel:
    """The core sees whole pixels: G is never told R."""
    planted = model(channels=3, bit_depth=1)
    planted.likelihood = Bernoulli(3)
    on_output([planted.core.out], lambda layer, y: y[:, :3])
    return planted


# conditions


class Silent(torch.nn.Module):
    scale = 0

    def forward(self, vector: Tensor | None, map: Tensor | None) -> None:
        return None


def silenced(resnets: Any, hushed: bool) -> None:
    """Without weights for the condition, or with weights of no effect."""
    for resnet in resnets:
        if hushed:
            resnet.condition.register_forward_hook(lambda layer, inputs, added: added * 0)
        else:
            resnet.condition = Silent()


def condition_missing_in_ul(patch: Patch) -> ConditionalModel:
    planted = model()
    for half in (planted.core.down, planted.core.up):
        for block in half:
            silenced(block.ul, hushed=False)
    return planted


def condition_missing_in_u(patch: Patch) -> ConditionalModel:
    planted = model()
    for half in (planted.core.down, planted.core.up):
        for block in half:
            silenced(block.u, hushed=False)
    return planted


def condition_missing_in_one_scale(patch: Patch) -> ConditionalModel:
    planted = model()
    for block in (planted.core.down[1], planted.core.up[1]):
        silenced([*block.u, *block.ul], hushed=False)
    return planted


def condition_unused_in_one_scale(patch: Patch) -> ConditionalModel:
    planted = model()
    for block in (planted.core.down[2], planted.core.up[0]):
        silenced([*block.u, *block.ul], hushed=True)
    return planted


def condition_unused_in_one_layer(patch: Patch) -> ConditionalModel:
    planted = model()
    silenced([planted.core.up[1].u[1]], hushed=True)
    return planted


def coarse_map_a_column_off(patch: Patch) -> ConditionalModel:
    planted = model(conditioning="map")
    on_output([planted.core.conditioning.shrink[1]], moved(0, -1))
    return planted


def coarse_map_a_row_off_in_one_layer(patch: Patch) -> ConditionalModel:
    planted = model(conditioning="vector+map")
    on_output([planted.core.up[1].ul[0].condition], moved(1, 0))
    return planted


def coarse_map_half_an_image_off(patch: Patch) -> ConditionalModel:
    planted = model(conditioning="map")
    on_output([planted.core.conditioning.shrink[0]], lambda layer, s: s.roll(s.shape[3] // 2, 3))
    return planted


def one_number_without_weight_in_the_projection(patch: Patch) -> ConditionalModel:
    planted = model(conditioning="global", vector_width=2)
    with torch.no_grad():
        planted.core.conditioning.project.weight[:, 1] = 0
    return planted


PLANTED: list[tuple[Plant, str]] = [
    (no_shift_down, "causality"),
    (no_shift_right, "causality"),
    (shifted_twice, "coverage"),
    (ul_starts_with_its_own_row, "causality"),
    (u_crops_transposed_columns_at_zero, "coverage"),
    (u_crops_transposed_rows_at_one, "causality"),
    (ul_crops_transposed_columns_at_one, "causality"),
    (ul_convolution_reads_the_right_neighbour, "causality"),
    (coarse_ul_convolution_reads_the_right_neighbour, "causality"),
    (u_convolution_reads_the_row_below, "causality"),
    (strided_convolution_reads_odd_places, "causality"),
    (u_convolutions_exclude_their_own_row, "coverage"),
    (u_convolutions_lean_to_the_left, "coverage"),
    (u_says_nothing_to_ul, "coverage"),
    (normalised_over_the_batch, "causality"),
    (normalised_over_the_image, "causality"),
    (a_leak_in_training_alone, "causality"),
    (recalls_the_pixel_itself, "causality"),
    (recalls_all_but_one_pixel, "coverage"),
    (a_likelihood_that_orders_colours, "colour_order"),
    (condition_missing_in_ul, "condition"),
    (condition_missing_in_u, "condition"),
    (condition_missing_in_one_scale, "condition"),
    (condition_unused_in_one_scale, "condition"),
    (condition_unused_in_one_layer, "condition"),
    (coarse_map_a_column_off, "condition"),
    (coarse_map_a_row_off_in_one_layer, "condition"),
    (coarse_map_half_an_image_off, "condition"),
    (one_number_without_weight_in_the_projection, "condition"),
]


@pytest.mark.parametrize(("plant", "broken"), PLANTED, ids=[f"{plant.__name__}-{broken}" for plant, broken in PLANTED])
def test_verify_finds_the_planted_bug(plant: Plant, broken: str, monkeypatch: Patch) -> None:
    found = verify(plant(monkeypatch), quiet=True)
    assert found[broken] is False, found
    if broken in ("coverage", "condition", "colour_order"):  # what only loses sight is not called a leak
        assert found["causality"] is True, found
    if broken == "condition":
        assert [found[name] for name in ("coverage", "colour_order", "normalisation")] == [True] * 3, found


@pytest.mark.parametrize("sound", [model(), model(full_sight=True, dropout=0.5), model(height=8, width=8)])
def test_without_the_bug_the_same_models_pass(sound: ConditionalModel) -> None:
    assert set(verify(sound, quiet=True).values()) == {True}


def test_a_first_row_of_bias_breaks_none_of_these_properties(monkeypatch: Patch) -> None:
    """Shifting the input instead of the output is another network, and as exact: only the original's numbers tell."""
    planted, sound = model(conditioning="none"), model(conditioning="none")
    for each in (planted, sound):
        with torch.no_grad():
            each.core.start_above.bias += 1
    x = on_grid(sound, random_images(sound, 1))
    expected = sound.core(x, sound.core.terms(Condition()))
    for conv in (planted.core.start_above, planted.core.start_row):
        conv.register_forward_pre_hook(lambda conv, inputs: (shift_down(inputs[0]),))
    monkeypatch.setattr(two_streams, "shift_down", lambda x: x)
    assert not torch.allclose(planted.core(x, planted.core.terms(Condition())), expected)
    found = verify(planted, quiet=True)
    assert found["causality"] and found["coverage"] and found["normalisation"], found


def test_up_blocks_of_no_more_resnets_than_down_blocks_do_not_run() -> None:
    """5|5|5 instead of 5|6|6: a short-cut of one resolution meets a resnet of another."""
    planted = model(conditioning="none")
    for block in planted.core.up[1:]:
        block.u, block.ul = block.u[:-1], block.ul[:-1]
    x = on_grid(planted, random_images(planted, 1))
    with pytest.raises((RuntimeError, IndexError)):
        planted.core(x, planted.core.terms(Condition()))
