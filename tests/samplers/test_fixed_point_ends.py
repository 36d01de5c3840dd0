"""Fixed-point sampling ends: after as many rounds as a causal core can need, whatever it is given."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from building import condition_for, tiny_model
from torch import Tensor, nn

from condgen.cores.layers import colour_groups, colour_mask
from condgen.errors import ModelError
from condgen.samplers import resolved


@pytest.mark.parametrize("core", ["gated", "pixelcnn++"])
@pytest.mark.parametrize("gain", [1.0, 4.0])
def test_chaotic_causal_cores_settle(core: str, gain: float) -> None:
    """Where every pixel turns on every earlier one, rounds are as many as pixels: the most that are allowed."""
    kind = "categorical" if core == "gated" else "logistic_mixture"
    model = tiny_model(kind, channels=3, height=4, width=4, core=core, filters=6)
    with torch.no_grad():
        for weight in model.core.parameters():
            weight *= gain
    drawn = model.sample(condition_for(model), count=8, seed=0, sampler="fixed_point")
    assert torch.equal(drawn, model.sample(condition_for(model), count=8, seed=0, sampler="naive"))


def test_a_core_that_looks_ahead_is_an_error() -> None:
    model = tiny_model("categorical", channels=3, height=4, width=4, filters=6)
    conv = model.core.layers[0].horizontal_conv
    conv.mask[..., -1] = colour_mask(colour_groups(12, 3), colour_groups(3, 3), "B")[:, :, None]
    with torch.no_grad():
        for weight in model.core.parameters():
            weight *= 4
    with pytest.raises(ModelError, match="looks ahead"):
        model.sample(count=16, seed=0, sampler="fixed_point")


class OnlyWhole(nn.Module):
    """A causal core of somebody's own, which has no parts for a cache to ask."""

    def __init__(self, core: Any) -> None:
        super().__init__()
        self.core = core
        self.terms = core.terms

    def forward(self, x: Tensor, terms: Any, dropout_keys: Tensor | None = None) -> Tensor:
        parameters: Tensor = self.core(x, terms, dropout_keys)
        return parameters


def test_a_core_without_parts_is_drawn_by_the_fixed_point() -> None:
    model = tiny_model("categorical", channels=3, filters=6)
    expected = model.sample(count=4, seed=1)
    model.core = OnlyWhole(model.core)
    assert resolved("auto", model.core) == "fixed_point" and resolved("naive", model.core) == "naive"
    assert torch.equal(model.sample(count=4, seed=1), expected)
