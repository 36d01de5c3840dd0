"""What single images cost under a model, and where in them the bits are spent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from condgen.condition import Condition
from condgen.errors import NumericalError, shown
from condgen.evaluate.bits import evaluating
from condgen.model import ConditionalModel


@dataclass(frozen=True)
class Score:
    """One image under a model.

    Attributes:
        nats: -ln p(x | h), summed over pixels and channels.
        bits_per_dim: the same in bits per sub-pixel.
        bits: bits spent on each pixel, all its channels together, float64 (H, W).
    """

    nats: float
    bits_per_dim: float
    bits: Tensor


def score(
    model: ConditionalModel, images: Tensor, condition: Condition | None = None, names: Sequence[str] | None = None
) -> list[Score]:
    """The score of each image, which does not depend on what else is scored: they go through the model one by one.

    Args:
        images: uint8 (N, C, H, W) on 0 .. 2^bits - 1.
        condition: one for each image, or one for all; None for an unconditional model.
        names: what an error calls the images; default: their numbers.

    Raises:
        NumericalError: the log-probability of an image is NaN or infinite.
        InputError: the images have another shape than the model's.
        RecipeError: the model is conditional and there is no condition.
    """
    conditions = (condition or Condition()).expand(len(images))
    scores = []
    with evaluating(model):
        for i in range(len(images)):
            nats = -model.log_prob_map(images[i : i + 1], conditions[i])[0].double().cpu()
            total = float(nats.sum())
            if not math.isfinite(total):
                name = f"image {i}" if names is None else shown(names[i])
                raise NumericalError(f"The log-probability of {name} is {-total}; use an earlier checkpoint.")
            scores.append(Score(total, total / math.log(2) / images[i].numel(), nats / math.log(2)))
    return scores
