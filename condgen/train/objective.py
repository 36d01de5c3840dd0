"""What a training step lowers, ``Objective``: the loop knows this much of what it trains and no more; and what happens
around the loop with what is trained, ``Training``."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor, nn

from condgen.autoencoder import Autoencoder
from condgen.condition import Batch
from condgen.data import Dataset
from condgen.model import ConditionalModel
from condgen.recipe import Recipe, SampleSection
from condgen.train.batches import Order, Sequence
from condgen.train.chores import Chore, Pictures, Validation
from condgen.train.ranks import Ranks
from condgen.train.reconstructions import ErrorValidation, Reconstructions
from condgen.train.triplets import TripletObjective


class Objective(Protocol):
    """A loss over examples, and the module whose trainable parameters it moves."""

    @property
    def module(self) -> nn.Module: ...

    couples_examples: bool
    """Whether the loss of one example depends on its batch mates (triplets): such a batch is never cut in pieces."""
    unit: str
    """What ``scale`` times the mean loss is called in logs, e.g. ``bits_per_dim``."""
    scale: float
    figure: str
    """What validation calls its figure; of two the lower one is better, or the higher one where ``figure_rises``."""
    figure_rises: bool

    def loss(self, batch: Batch) -> Tensor:
        """The loss of each example, (B,); their sum over the global batch, divided by its size, is minimised."""
        ...


class Training(Objective, Protocol):
    """An objective that also knows how its module is begun, fed, validated and pictured."""

    def order(self, images: Dataset, seed: int) -> Sequence:
        """Which examples come when."""
        ...

    def initialise(self, batch: Batch) -> None:
        """Data-dependent initialisation of the module, once, before training."""
        ...

    def compile(self) -> None:
        """Has the greatest part of the module compiled."""
        ...

    def validation(self, average: Any, images: Dataset, limit: int, batch_size: int) -> Chore:
        """What measures a module like ``average`` on ``limit`` of ``images``; its figure is called ``figure``."""
        ...

    def pictures(
        self,
        average: Any,
        folder: Path,
        sample: SampleSection,
        images: Dataset,
        validation: Dataset | None,
        quiet: bool | None,
    ) -> Chore | None:
        """What draws sheets with a module like ``average`` into ``folder``; None where there is nothing to draw."""
        ...


_Model = TypeVar("_Model", ConditionalModel, Autoencoder)


class _OfEachImage(Generic[_Model]):
    """What objectives share whose loss is a sum over the images: any order will do, and the figure is to be lowered."""

    couples_examples = False
    figure_rises = False

    def __init__(self, model: _Model) -> None:
        self.module: _Model = model

    def order(self, images: Dataset, seed: int) -> Sequence:
        return Order(len(images), seed)

    def initialise(self, batch: Batch) -> None:
        self.module.initialise(batch)


class LikelihoodObjective(_OfEachImage[ConditionalModel]):
    """-ln p(x | encoder(batch)) of each image, in nats."""

    unit = figure = "bits_per_dim"

    def __init__(self, model: ConditionalModel) -> None:
        super().__init__(model)
        self.scale = 1 / (math.log(2) * model.info.dimensions)

    def loss(self, batch: Batch) -> Tensor:
        return self.module.nll(batch)

    def compile(self) -> None:
        self.module.core.compile()

    def validation(self, average: ConditionalModel, images: Dataset, limit: int, batch_size: int) -> Chore:
        return Validation(images, limit, batch_size, average)

    def pictures(
        self,
        average: ConditionalModel,
        folder: Path,
        sample: SampleSection,
        images: Dataset,
        validation: Dataset | None,
        quiet: bool | None,
    ) -> Chore:
        return Pictures(folder, sample, images, average, quiet)


class SquaredErrorObjective(_OfEachImage[Autoencoder]):
    """Squared error of each image's reconstruction, of values on 0 .. 1, summed over its sub-pixels."""

    unit = figure = "squared_error"

    def __init__(self, model: Autoencoder) -> None:
        super().__init__(model)
        self.scale = 1 / model.info.dimensions

    def loss(self, batch: Batch) -> Tensor:
        return self.module.squared_error(batch)

    def compile(self) -> None:
        self.module.decoder.compile()

    def validation(self, average: Autoencoder, images: Dataset, limit: int, batch_size: int) -> Chore:
        return ErrorValidation(images, limit, batch_size, average)

    def pictures(
        self,
        average: Autoencoder,
        folder: Path,
        sample: SampleSection,
        images: Dataset,
        validation: Dataset | None,
        quiet: bool | None,
    ) -> Chore:
        return Reconstructions(folder, sample, images, average)


_OBJECTIVES: dict[str, Callable[[Any], Training]] = {
    "likelihood": LikelihoodObjective,
    "squared_error": SquaredErrorObjective,
}


def build_objective(recipe: Recipe, module: Any, ranks: Ranks) -> Training:
    """``train.objective`` of ``recipe`` for ``module``, which ``build_trained`` made by the same recipe.

    Raises:
        MachineError: the package that it needs is not installed.
    """
    if recipe.train.objective == "triplet":
        return TripletObjective(module, recipe.train, ranks)
    return _OBJECTIVES[recipe.train.objective](module)
