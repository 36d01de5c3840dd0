"""PixelCNN++ against the original's own numbers: outputs, losses, gradients, initialisation; and bugs it must show."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import golden
import pytest
import torch
import torch.nn.functional as F
from golden import INIT, ORIGINAL, PORT, Golden
from torch import Tensor

from condgen.cores import two_streams
from condgen.cores.layers import UpConv, shift_down, shift_right
from condgen.cores.two_streams import GatedResnet
from condgen.cores.weight_norm import WeightNorm, factors
from condgen.likelihoods import scaled
from condgen.model import ConditionalModel
from condgen.store.foreign import read_foreign
from condgen.store.layouts import layers, original_entries
from condgen.store.published import model_of

pytestmark = golden.needed

EXACT_NATS = {
    "pixelcnnpp_r1_f8_m3_8x8.npz": 6707.4635,
    "pixelcnnpp_r1_f8_m10_16x16_labels.npz": 21236.8504,
    "pixelcnnpp_r2_f12_m10_16x16.npz": 21617.0480,
    "pixelcnnpp_r2_f12_m3_8x8_labels.npz": 6362.7134,
    "pixelcnnpp_r1_f8_m10_32x32.npz": 39361.5304,
    "pixelcnnpp_r1_f8_m3_8x8_elu.npz": 5958.1467,
}
"""Of the same networks in fp64, under the likelihood whose probabilities sum to one."""


def imported(found: Golden) -> ConditionalModel:
    return model_of(read_foreign(found.path))[0]


@torch.no_grad()
def output(model: ConditionalModel, found: Golden) -> Tensor:
    x = scaled(found.images, 256, model.dtype)
    parameters: Tensor = model.core(x, model.core.terms(found.condition))
    return parameters


@torch.no_grad()
def nats(model: ConditionalModel, found: Golden, rule: str) -> float:
    model.likelihood.rule = rule  # type: ignore[attr-defined]
    return -float(model.log_prob(found.images, found.condition).double().sum())


def off(parameters: Tensor, expected: Tensor) -> float:
    """The largest difference in units of 2e-5 + 1e-6 |expected|, a sound bound for fp32."""
    return float(((parameters - expected).abs() / (2e-5 + 1e-6 * expected.abs())).max())


@pytest.mark.parametrize("name", [*ORIGINAL, *PORT])
def test_outputs_and_losses(name: str) -> None:
    found = Golden(name)
    model = imported(found)
    bit = math.log(2) * found.images.numel()
    theirs = float(found.arrays["loss_nats"])
    assert off(output(model, found), found.output) < 1
    assert abs(nats(model, found, "classic") - theirs) / bit < 5e-5
    model.double()
    assert off(output(model, found), found.output) < 1
    difference = abs(nats(model, found, "classic") - theirs)
    assert difference / bit < 1e-5 or difference / theirs < 2e-6
    assert theirs / bit == pytest.approx(float(found.arrays["bits_per_dim"]), rel=1e-9)
    if name in EXACT_NATS:
        assert nats(model, found, "exact") == pytest.approx(EXACT_NATS[name], rel=1e-6)


def test_gradients() -> None:
    found = Golden("pixelcnnpp_r1_f8_m3_8x8.npz")
    model = imported(found).double()
    model.likelihood.rule = "classic"  # type: ignore[attr-defined]
    (-model.log_prob(found.images, found.condition).sum()).backward()
    twin = copy.deepcopy(model.core)  # its weights become the gradients, which so get the original's names
    with torch.no_grad():
        for place, weight in zip(twin.parameters(), model.core.parameters(), strict=True):
            place.copy_(weight.grad)
    distance = total = 0.0
    for name, entry in original_entries(twin).items():
        mine = entry.place.detach().reshape(entry.shape)
        theirs = torch.from_numpy(found.arrays[f"grad/{name}"]).double()
        assert float((mine - theirs).norm() / theirs.norm()) < 2e-4, name
        distance += float((mine - theirs).square().sum())
        total += float(theirs.square().sum())
    assert math.sqrt(distance / total) < 3e-5


def uninitialised(found: Golden) -> ConditionalModel:
    """With g and b as they were before the initialisation."""
    model = imported(found)
    with torch.no_grad():
        for layer in layers(model.core):
            if layer.kind != "conditional_weights":
                factors(layer.module)[0].fill_(1.0)
                layer.module.bias.zero_()
    return model


def initialised(model: ConditionalModel, found: Golden) -> dict[str, float]:
    """The largest error of g (relative), of b, and of the output after the core's own initialisation."""
    model.core.initialise(scaled(found.images, 256, model.dtype), model.core.terms(found.condition))
    worst = {"g": 0.0, "b": 0.0}
    for name, entry in original_entries(model.core).items():
        theirs = torch.from_numpy(found.arrays[name])
        difference = (entry.place.detach().reshape(entry.shape) - theirs).abs()
        kind = name.rpartition("/")[2]
        if kind == "g":
            difference = difference / theirs.abs()
        if kind in worst:
            worst[kind] = max(worst[kind], float(difference.max()))
        else:  # V and hw stay as they were drawn
            assert not difference.any(), name
    return {**worst, "output": float((output(model, found) - found.output).abs().max())}


def test_the_initialisation_is_the_originals() -> None:
    found = Golden(INIT)
    errors = initialised(uninitialised(found).double(), found)
    assert errors["g"] < 2e-6 and errors["b"] < 4e-6 and errors["output"] < 2e-5, errors
    errors = initialised(uninitialised(found), found)
    assert max(errors.values()) < 1e-4, errors


# planted bugs: each is a mistake of some public implementation


def crop_off_by_one(core: Any, patch: pytest.MonkeyPatch) -> None:
    for block in core.up:
        if block.resizes:
            block.u_resize.offset = 0


def shifted_input(core: Any, patch: pytest.MonkeyPatch) -> None:
    """The first row is then the bias instead of zero."""

    def before(shift: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
        return lambda module, inputs: (shift(inputs[0]),)

    core.start_above.register_forward_pre_hook(before(shift_down))
    core.start_row.register_forward_pre_hook(before(shift_down))
    core.start_left.register_forward_pre_hook(before(shift_right))
    patch.setattr(two_streams, "shift_down", lambda x: x)
    patch.setattr(two_streams, "shift_right", lambda x: x)


def no_ones(core: Any, patch: pytest.MonkeyPatch) -> None:
    def without(module: Any, inputs: Any) -> Any:
        return (inputs[0] * torch.tensor([1.0, 1.0, 1.0, 0.0]).view(1, -1, 1, 1),)

    for conv in (core.start_above, core.start_row, core.start_left):
        conv.register_forward_pre_hook(without)


def norm_of_the_wrong_axis(core: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WeightNorm, "norm", lambda self, v: torch.linalg.vector_norm(v, dim=(1, 2, 3), keepdim=True))


def short_cuts_from_the_front(core: Any, patch: pytest.MonkeyPatch) -> None:
    """First in, first out within each scale."""
    forward = GatedResnet.forward
    seen: dict[Any, Any] = {}

    def noting(self: Any, feature: Any, terms: Any, dropout: Any, *auxiliary: Any, **more: Any) -> Any:
        seen[self] = auxiliary[-1] if auxiliary else None
        return forward(self, feature, terms, dropout, *auxiliary, **more)

    def swapped(x: Tensor, terms: Any) -> Tensor:
        patch.setattr(GatedResnet, "forward", noting)
        original(x, terms)
        instead: dict[Any, Any] = {}
        for block in core.up:
            for stream in (block.u, block.ul):
                instead |= {one: seen[other] for one, other in zip(stream, reversed(stream), strict=True)}

        def crossed(self: Any, feature: Any, terms: Any, dropout: Any, *auxiliary: Any, **more: Any) -> Any:
            if self in instead:
                auxiliary = (*auxiliary[:-1], instead[self])
            return forward(self, feature, terms, dropout, *auxiliary, **more)

        patch.setattr(GatedResnet, "forward", crossed)
        return original(x, terms)

    original = core.forward
    patch.setattr(core, "forward", swapped)


def pairs_the_other_way(core: Any, patch: pytest.MonkeyPatch) -> None:
    """The two features that enter a resnet of ul change places."""
    forward = GatedResnet.forward

    def turned(self: Any, x: Any, terms: Any, dropout: Any, *others: Any, **more: Any) -> Any:
        return forward(self, x, terms, dropout, *others[::-1], **more)

    patch.setattr(GatedResnet, "forward", turned)


def relu_before_the_outputs(core: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(core, "head", lambda features: core.out(F.relu(features)))


@pytest.mark.parametrize(
    "bug",
    [
        *(crop_off_by_one, shifted_input, no_ones, norm_of_the_wrong_axis, short_cuts_from_the_front),
        *(pairs_the_other_way, relu_before_the_outputs),
    ],
    ids=lambda bug: bug.__name__,
)
def test_a_planted_bug_shows_in_the_outputs(bug: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    found = Golden("pixelcnnpp_r2_f12_m10_16x16.npz")
    model = imported(found)
    assert off(output(model, found), found.output) < 1
    bug(model.core, monkeypatch)
    assert off(output(model, found), found.output) > 100


def cropped_moments(core: Any, patch: pytest.MonkeyPatch) -> None:
    def cropped(self: Any, x: Tensor) -> tuple[Tensor, int]:
        y = self.forward(x)
        return y, y.numel() // y.shape[1]

    patch.setattr(UpConv, "uncropped", cropped)


def one_scale_for_all(core: Any, patch: pytest.MonkeyPatch) -> None:
    for layer in layers(core):
        if layer.kind != "conditional_weights":
            layer.module.parametrizations.weight[0].init_scale = 1.0


@pytest.mark.parametrize("bug", [cropped_moments, one_scale_for_all], ids=lambda bug: bug.__name__)
def test_a_planted_bug_shows_in_the_initialisation(bug: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    found = Golden(INIT)
    model = uninitialised(found)
    bug(model.core, monkeypatch)
    errors = initialised(model, found)
    assert errors["g"] > 0.05 and errors["output"] > 1e-3, errors


def test_the_files_that_are_named_here_are_all() -> None:
    known = {*ORIGINAL, INIT, *PORT, "dmol_cases.npz", "sampler_cases.npz"}
    assert {path.name for path in golden.FOLDER.glob("*.npz")} == known
