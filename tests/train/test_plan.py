"""What a training would take: held against a model that is really built, and a step that is really taken."""

from __future__ import annotations

import pytest
import torch

from condgen.condition import Condition
from condgen.errors import InputError, RecipeError
from condgen.model import ConditionalModel
from condgen.recipe import Recipe, with_overrides
from condgen.recipe.build import build_model
from condgen.train.plan import check_memory, make_plan, planned_info

CPU = torch.device("cpu")
BASE = Recipe.model_validate(
    {
        "data": {"image_size": [16, 20], "identities": 20, "views": 2},
        "encoder": {"type": "labels", "code": "attributes"},
        "model": {
            "filters": 8,
            "layers": 3,
            "kernel_size": 3,
            "conditioning": "both",
            "likelihood": "logistic_mixture",
        },
        "train": {"batch_size": 6, "max_steps": 1},
    }
)
MODELS = [
    {},
    {"model.likelihood": "categorical", "model.filters": 6},
    {"data.bit_depth": 1, "model.likelihood": "bernoulli", "data.channels": 1},
    {"encoder.type": "none", "model.skips": False},
    {"encoder.code": "embedding", "data.source": "cifar10", "model.conditioning": "global", "encoder.size": 5},
    {"train.precision": "fp64"},
    {"model.dropout": 0.3},
    {"model.core": "pixelcnn++", "model.resnets": 2, "data.bit_depth": 8},
    {"model.core": "pixelcnn++", "model.resnets": 1, "model.dropout": 0.5, "model.full_sight": True},
    {"model.core": "pixelcnn++", "model.resnets": 1, "model.dropout": 0.3, "model.likelihood": "categorical"},
    {"model.core": "pixelcnn++", "model.resnets": 1, "model.nonlinearity": "elu", "model.dropout": 0.5},
]


def kept_bytes(model: ConditionalModel, recipe: Recipe, count: int) -> int:
    """Bytes that a real forward pass of ``count`` images keeps, weights not counted: the slow witness."""
    seen: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    info = model.info
    x = torch.zeros(count, info.channels, info.height, info.width, dtype=torch.uint8)
    h = Condition(torch.zeros(count, model.encoder.vector_size)) if model.encoder.vector_size else Condition()
    keys = torch.arange(count) if recipe.model.dropout else None
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total = -model.likelihood.log_prob(model._parameters_of(x, h, keys), x).sum()
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    found = sum(t.untyped_storage().nbytes() for pointer, t in seen.items() if pointer not in weights)
    total.backward()  # the graph kept everything alive until here
    return found


@pytest.mark.parametrize("overrides", MODELS, ids=str)
def test_the_plan_is_what_a_step_takes(overrides: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = with_overrides(BASE, overrides)
    plan = make_plan(recipe, CPU)
    model = build_model(recipe, planned_info(recipe))
    if recipe.train.precision == "fp64":
        model = model.double()
    assert plan.parameters == sum(weight.numel() for weight in model.parameters())
    assert plan.memory.weights == sum(weight.nbytes for weight in model.parameters())
    assert plan.memory.activations == pytest.approx(kept_bytes(model, recipe, 6), rel=0.15)
    assert plan.memory.total > plan.memory.training + plan.memory.activations


def test_the_parts_of_a_batch() -> None:
    def activations(processes: int = 1, **train: object) -> int:
        recipe = with_overrides(BASE, {f"train.{name}": value for name, value in train.items()})
        return make_plan(recipe, CPU, processes).memory.activations

    whole, four, two = activations(), activations(micro_batch=4), activations(micro_batch=2)
    assert whole - four == four - two > 0
    assert 0 < two - (whole - four) < 0.1 * whole  # weights under their masks, kept once
    assert activations(processes=3) == two
    assert activations(processes=4) == two  # 6 images over 4: somebody has 2
    assert activations(precision="bf16") < whole


def test_data_sizes_are_told_without_opening_the_data() -> None:
    plan = make_plan(BASE, CPU)
    assert plan.data is not None and plan.data["train"] == 40 and plan.classes_known
    absent = make_plan(with_overrides(BASE, {"data.source": "folder", "encoder.type": "none"}), CPU)
    assert absent.data is None and absent.classes_known
    unknown = make_plan(with_overrides(BASE, {"data.source": "folder", "encoder.code": "one_hot"}), CPU)
    assert unknown.data is None and not unknown.classes_known
    with pytest.raises(InputError, match=r"data\.root"):
        make_plan(with_overrides(BASE, {"data.source": "folder", "data.root": "/none"}), CPU)


def test_what_cannot_fit_is_refused_with_the_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    check_memory(BASE, CPU)
    with pytest.raises(RecipeError, match=r"^train\.batch_size or train\.micro_batch: this takes about [\d,.]+ GiB"):
        check_memory(with_overrides(BASE, {"train.batch_size": 10**9}), CPU)
    check_memory(with_overrides(BASE, {"train.batch_size": 10**6, "train.micro_batch": 4}), CPU)
    huge = with_overrides(BASE, {"model.filters": 4096, "model.layers": 200})
    with pytest.raises(RecipeError, match=r"^model\.filters or model\.layers: .* of weights, .* lower it\.$"):
        check_memory(huge, CPU)
    wide = with_overrides(BASE, {"model.core": "pixelcnn++", "model.filters": 4096, "model.resnets": 1})
    with pytest.raises(RecipeError, match=r"^model\.filters or model\.resnets: .* of weights"):
        check_memory(wide, CPU)
    monkeypatch.setattr("condgen.train.plan._memory_of", lambda device: 2**60)
    check_memory(huge, CPU)


def test_an_encoder_that_cannot_be_built_without_data_is_no_reason_to_refuse() -> None:
    check_memory(with_overrides(BASE, {"encoder.type": "vector"}), CPU)  # there is no column; training will say so


def test_of_frozen_weights_there_is_one_copy() -> None:
    recipe = with_overrides(BASE, {"encoder.type": "autoencoder", "encoder.size": 3})
    learning, frozen = (make_plan(with_overrides(recipe, more), CPU) for more in ({}, {"encoder.weights": "a/run"}))
    assert learning.parameters == frozen.parameters and learning.memory.weights == frozen.memory.weights
    assert learning.memory.training == 5 * learning.memory.weights
    encoder = build_model(recipe, planned_info(recipe)).encoder
    kept = 4 * sum(weight.numel() for weight in encoder.parameters())
    assert frozen.memory.training == learning.memory.training - 4 * kept
