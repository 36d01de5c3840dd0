"""The recipes that come along, built: published sizes to the last parameter, ablations that change one thing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from condgen.autoencoder import Autoencoder
from condgen.cores.pixelcnnpp import PixelCNNpp
from condgen.cores.small_field import SmallFieldPixelCNN
from condgen.model import ConditionalModel
from condgen.recipe import read_recipe, recipe_names, recipe_text
from condgen.recipe.build import build_model, build_trained
from condgen.train.plan import make_plan, planned_info


def built(name: str, **overrides: Any) -> ConditionalModel:
    """The model of a recipe, without memory for its weights."""
    recipe = read_recipe(name, {f"model.{key}": value for key, value in overrides.items()})
    with torch.device("meta"):
        return build_model(recipe, planned_info(recipe))


def size(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize(
    ("filters", "parameters"), [(160, 53_659_080), (192, 77_244_104), (80, 13_440_840), (40, 3_373_320)]
)
def test_cifar10_has_the_published_number_of_parameters(filters: int, parameters: int) -> None:
    """Salimans et al. 2017: 2092 F^2 + 648 F + 200 at five resnets, three scales and ten mixtures."""
    recipe = read_recipe("cifar10", {"model.filters": filters, "train.micro_batch": 1})
    assert make_plan(recipe, torch.device("cpu")).parameters == parameters == 2092 * filters**2 + 648 * filters + 200
    assert read_recipe("cifar10").model.filters == 160


def test_classes_add_one_bias_to_each_gated_resnet() -> None:
    assert size(built("cifar10-classes++")) == 53_659_080 + 64 * 10 * 2 * 160


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_a_model(name: str) -> None:
    model = built(name)
    assert model.core.head and size(model.core) > 100_000
    assert isinstance(model.core, PixelCNNpp | SmallFieldPixelCNN) == (read_recipe(name).model.core == "pixelcnn++")


ABLATIONS = {
    "softmax": {"likelihood"},
    "continuous": {"likelihood"},
    "no-short-cuts": {"short_cuts"},
    "no-dropout": {"dropout"},
    "small-11x5": {"small_field", "resnets"},
    "small-11x5-nin": {"small_field", "resnets"},
    "small-11x5-channels": {"small_field", "resnets"},
    "small-15x8": {"small_field", "resnets"},
    "small-15x8-nin": {"small_field", "resnets"},
    "small-15x8-channels": {"small_field", "resnets"},
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_changes_what_its_name_says_and_nothing_else(name: str) -> None:
    main, other = (read_recipe(recipe).model_dump() for recipe in ("cifar10", f"cifar10-{name}"))
    changed = {key for key in main["model"] if main["model"][key] != other["model"][key]}
    assert changed == ABLATIONS[name]
    assert {key for key in main if main[key] != other[key]} == {"model", "description"}


def test_every_ablation_of_the_paper_is_there() -> None:
    assert {name for name in recipe_names() if read_recipe(name).model.core == "pixelcnn++"} == {
        "cifar10", "cifar10-classes++", "imagenet32++", "fashion-mnist++", *(f"cifar10-{name}" for name in ABLATIONS),
    }  # fmt: skip


def test_what_the_ablations_are_as_models() -> None:
    assert built("cifar10-softmax").likelihood.outputs == 1536  # section 3.4.1
    assert built("cifar10-continuous").likelihood.bound
    core = built("cifar10-no-short-cuts").core
    # 5 + 6 + 6 resnets of either stream lose the 1x1 that took 2 x 160 channels; those of u its g and b with it
    assert isinstance(core, PixelCNNpp)
    assert size(built("cifar10").core) - size(core) == 2 * 17 * 320 * 160 + 17 * 2 * 160
    for name, rows, columns, left in (("15x8", 8, 15, 7), ("11x5", 6, 11, 5)):
        core = built(f"cifar10-small-{name}").core
        assert isinstance(core, SmallFieldPixelCNN)
        seen = core.sees(16, 16, 32, 32)
        assert seen[:16].any(1).sum() == rows and seen[:16].any(0).sum() == columns and seen[16].sum() == left


def test_the_autoencoders_that_are_compared_have_one_encoder_and_one_set_of_images() -> None:
    bits, wide, error = (read_recipe(name) for name in ("autoencoder", "autoencoder-100", "autoencoder-mse"))
    assert (bits.train.objective, error.train.objective) == ("likelihood", "squared_error")
    assert bits.data == wide.data == error.data
    assert (bits.encoder.options["size"], wide.encoder.options["size"]) == (10, 100)
    assert bits.encoder.options == error.encoder.options
    assert bits.encoder.options | {"size": 100} == wide.encoder.options
    assert bits.model == wide.model and bits.train == wide.train
    for name in ("autoencoder", "autoencoder-imagenet32", "autoencoder-cifar10", "autoencoder-mnist"):
        recipe = read_recipe(name)  # h by place and as a bias: a vector alone cannot say where something is
        assert recipe.encoder.type == "autoencoder" and recipe.model.conditioning == "both", name
        other = build_trained(read_recipe(name, {"train.objective": "squared_error"}), planned_info(recipe))
        assert isinstance(other, Autoencoder)


def test_adams_epsilon_is_the_originals() -> None:
    """There 1e-8 stands inside the root, beside the square of the gradient of the loss summed over 128 images."""
    train = read_recipe("cifar10").train
    assert train.adam_epsilon == pytest.approx(1e-8**0.5 / train.batch_size, rel=0.01)
    assert recipe_text(read_recipe("cifar10")).count("adam_epsilon: 7.8e-07") == 1
