"""The steps that the training benchmark times: condgen's own, and the plain network's, ready to be called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from plain import PlainPixelCNNpp, PlainTraining

from condgen.condition import DataInfo
from condgen.recipe import Recipe
from condgen.recipe.build import build_model
from condgen.train.batches import Batches, Order
from condgen.train.budget import Budget
from condgen.train.loop import Loop
from condgen.train.objective import LikelihoodObjective
from condgen.train.process import determinism
from condgen.train.ranks import Ranks
from condgen.train.signals import Signals
from condgen.train.state import TrainState


@dataclass(frozen=True)
class Variant:
    """One thing that is timed: a step of condgen's training, or of the plain network's."""

    filters: int
    batch: int
    plain: bool = False
    compiled: bool = False
    precision: str = "fp32"
    dropout: str = "elements"
    """``elements``, ``channels`` (plain alone) or ``none``."""
    side: int = 32
    resnets: int = 5
    mixtures: int = 10

    @property
    def name(self) -> str:
        what = "plain" if self.plain else "compiled" if self.compiled else "eager"
        dropout = "" if self.dropout == "elements" else f", dropout of {self.dropout}"
        return f"{self.filters} filters, {what} {self.precision}{dropout}"


def images(variant: Variant, device: torch.device) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (variant.batch, 3, variant.side, variant.side)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)


def plain_step(variant: Variant, device: torch.device) -> Callable[[], None]:
    network = PlainPixelCNNpp(
        variant.filters,
        variant.resnets,
        variant.mixtures,
        dropout=0.0 if variant.dropout == "none" else 0.5,
        whole_channels=variant.dropout == "channels",
    )
    training, x = PlainTraining(network.to(device)), images(variant, device)
    return lambda: training.step(x)


def condgen_step(variant: Variant, device: torch.device) -> Callable[[], None]:
    """One step of condgen's own loop, without files, on one batch."""
    recipe = Recipe.model_validate(
        {
            "data": {"image_size": variant.side},
            "model": {
                "core": "pixelcnn++",
                "filters": variant.filters,
                "resnets": variant.resnets,
                "mixtures": variant.mixtures,
                "dropout": 0.0 if variant.dropout == "none" else 0.5,
            },
            "train": {"max_steps": 10**9, "batch_size": variant.batch, "precision": variant.precision},
        }
    )
    model = build_model(recipe, DataInfo(3, variant.side, variant.side, 8)).to(device)
    order = Order(variant.batch, 0)
    x, (_, keys) = images(variant, device), order.at(0, variant.batch)
    batch = {"image": x, "key": keys.to(device)}
    model.eval().initialise(batch)
    state = TrainState(model, recipe.train)
    if variant.compiled:
        model.core.compile()
    loop = Loop(
        recipe.train,
        LikelihoodObjective(model),
        state,
        order,
        Batches(lambda step: batch, 0),
        Ranks(str(device)),
        Budget(recipe.train.max_steps, None),
        Signals(),
        None,
    )
    model.train()

    def step() -> None:
        with determinism(recipe.train.deterministic, device):
            loop.advance()

    return step


def step_of(variant: Variant, device: torch.device) -> Callable[[], None]:
    return plain_step(variant, device) if variant.plain else condgen_step(variant, device)
