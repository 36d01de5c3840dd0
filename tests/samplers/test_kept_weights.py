"""What the cached sampler keeps of a core's weights between batches: nothing of weights that have changed."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable

import pytest
import torch
from building import condition_for, tiny_model
from torch import nn

from condgen.cores.cache import Kept
from condgen.samplers.cached import _kept


def by_assignment(weight: nn.Parameter) -> None:
    weight.data = weight.data + 0.5


def in_place(weight: nn.Parameter) -> None:
    weight.detach().add_(0.5)


def behind_the_version(weight: nn.Parameter) -> None:
    weight.data.add_(0.5)


@pytest.mark.parametrize("core", ["gated", "pixelcnn++"])
@pytest.mark.parametrize("change", [by_assignment, in_place, behind_the_version])
def test_changed_weights_draw_as_new_ones(core: str, change: Callable[[nn.Parameter], None]) -> None:
    model = tiny_model("logistic_mixture", core=core, channels=3, bit_depth=8).float()
    h = condition_for(model)
    before = model.sample(h, 4, seed=1)
    assert torch.equal(before, model.sample(h, 4, seed=1))  # out of what was kept
    for weight in list(model.core.parameters())[::5]:
        change(weight)
    fresh = copy.deepcopy(model)
    after = model.sample(h, 4, seed=1)
    assert not torch.equal(before, after) and torch.equal(after, fresh.sample(h, 4, seed=1))


def test_the_second_batch_folds_nothing() -> None:
    model = tiny_model("logistic_mixture", core="pixelcnn++", channels=3, bit_depth=8)
    folded: list[int] = []
    for module in model.core.modules():
        if type(module).__name__ == "WeightNorm":
            module.register_forward_hook(lambda *_: folded.append(1))
    first = model.sample(condition_for(model), 4)
    assert folded
    folded.clear()
    assert torch.equal(model.sample(condition_for(model), 4), first) and not folded


def test_nothing_is_kept_of_a_core_that_is_gone() -> None:
    gc.collect()
    before = len(_kept)
    model = tiny_model("categorical", channels=1, bit_depth=1)
    model.sample(condition_for(model))
    assert len(_kept) == before + 1
    del model
    gc.collect()
    assert len(_kept) == before


def test_numbers_that_are_none_are_never_the_same() -> None:
    kept, layer = Kept(), nn.Linear(1, 1)
    kept.check(layer)
    kept.made["a"] = 1
    kept.check(layer)
    assert kept.made
    nn.init.constant_(layer.bias, float("nan"))
    kept.check(layer)
    assert not kept.made
