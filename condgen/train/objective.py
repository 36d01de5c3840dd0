"""What a training step lowers. The loop knows this much of what it trains and no more."""

from __future__ import annotations

import math
from typing import Protocol

from torch import Tensor, nn

from condgen.condition import Batch
from condgen.model import ConditionalModel


class Objective(Protocol):
    """A loss over examples, and the module whose trainable parameters it moves."""

    @property
    def module(self) -> nn.Module: ...

    couples_examples: bool
    """Whether the loss of one example depends on its batch mates (triplets): such a batch is never cut in pieces."""
    unit: str
    """What ``scale`` times the mean loss is called in logs, e.g. ``bits_per_dim``."""
    scale: float

    def loss(self, batch: Batch) -> Tensor:
        """The loss of each example, (B,); their sum over the global batch, divided by its size, is minimised."""
        ...


class LikelihoodObjective:
    """-ln p(x | encoder(batch)) of each image, in nats."""

    couples_examples = False
    unit = "bits_per_dim"

    def __init__(self, model: ConditionalModel) -> None:
        self.module = model
        self.scale = 1 / (math.log(2) * model.info.dimensions)

    def loss(self, batch: Batch) -> Tensor:
        return self.module.nll(batch)
