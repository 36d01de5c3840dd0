"""Small models for tests, built without files or recipes on disk."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from condgen.condition import Batch, Condition, DataInfo, Encoder, Options
from condgen.cores.conditioning import Conditioning
from condgen.cores.gated import GatedPixelCNN
from condgen.cores.pixelcnnpp import PixelCNNpp
from condgen.cores.small_field import SmallFieldPixelCNN
from condgen.likelihoods import (
    Bernoulli,
    Categorical,
    ContinuousMixture,
    Likelihood,
    LinearCategorical,
    LogisticMixture,
)
from condgen.model import ConditionalModel

VECTOR, MAP = 3, 2


class Given(Encoder):
    """Hands the batch's own ``vector`` and ``map`` on."""

    def __init__(self, info: DataInfo, vector_size: int, map_channels: int) -> None:
        super().__init__(Options(), info)
        self.vector_size, self.map_channels = vector_size, map_channels

    def encode(self, batch: Batch) -> Condition:
        return Condition(batch.get("vector"), batch.get("map"))


def likelihood_of(kind: str, channels: int, bit_depth: int) -> Likelihood:
    if kind == "bernoulli":
        return Bernoulli(channels)
    if kind == "logistic_mixture":
        return LogisticMixture(channels, 2**bit_depth, mixtures=2)
    if kind == "continuous_mixture":
        return ContinuousMixture(channels, 2**bit_depth, mixtures=2)
    if kind == "linear_categorical":
        return LinearCategorical(channels, 2**bit_depth)
    return Categorical(channels, 2**bit_depth)


def tiny_model(
    kind: str = "categorical",
    *,
    channels: int = 1,
    height: int = 8,
    width: int = 8,
    bit_depth: int = 2,
    conditioning: str = "none",
    filters: int = 4,
    layers: int = 2,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    core: str = "gated",
    condition_dropout: float = 0.0,
    **sizes: Any,
) -> ConditionalModel:
    """A model with random weights; ``sizes`` are its core's own arguments.

    ``core``: gated or pixelcnn++; with ``variant``, the latter of a small field.

    ``conditioning``: none, global, spatial, both, map (the encoder's own map), or vector+map.
    """
    bit_depth = 1 if kind == "bernoulli" else bit_depth
    info = DataInfo(channels, height, width, bit_depth)
    vector_size = VECTOR if conditioning in ("global", "spatial", "both", "vector+map") else 0
    map_channels = MAP if conditioning in ("map", "vector+map") else 0
    how = conditioning if conditioning in ("spatial", "both") else "global"
    likelihood = likelihood_of(kind, channels, bit_depth)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if core == "pixelcnn++":
            net = _pyramid(channels, likelihood, vector_size, map_channels, how, height, width, filters, sizes)
        else:
            net = _stacks(channels, likelihood, vector_size, map_channels, how, height, width, filters, layers, sizes)
    encoder = Given(info, vector_size, map_channels)
    model = ConditionalModel(encoder, net, likelihood, info, condition_dropout=condition_dropout)
    return model.to(dtype).eval()


def _stacks(
    channels: int, likelihood: Likelihood, vector_size: int, map_channels: int, how: str, height: int, width: int,
    filters: int, layers: int, sizes: dict[str, Any],
) -> nn.Module:  # fmt: skip
    own = {"field": 3, "first_field": 3, "head": 2 * filters, "dropout": 0.0, "skips": True, "linear_path": False}
    return GatedPixelCNN(
        channels,
        likelihood.starting_bias(),
        likelihood.colour_of_outputs() if likelihood.colour_ordered else None,
        Conditioning(vector_size, map_channels, how, 4, height, width),
        filters=filters,
        layers=layers,
        **own | sizes,
    )


def _pyramid(
    channels: int, likelihood: Likelihood, vector_size: int, map_channels: int, how: str, height: int, width: int,
    filters: int, sizes: dict[str, Any],
) -> nn.Module:  # fmt: skip
    small = "variant" in sizes
    own: dict[str, Any] = {
        "resnets": 1, "field": 3, "nonlinearity": "concat_elu", "dropout": 0.0, "full_sight": False,
    } | ({} if small else {"scales": 3, "short_cuts": True}) | sizes  # fmt: skip
    conditioning = Conditioning(
        vector_size, map_channels, how, 4, height, width,
        scales=own.get("scales", 1), vector_width=own.pop("vector_width", 64),
    )  # fmt: skip
    core = SmallFieldPixelCNN if small else PixelCNNpp
    return core(channels, likelihood.outputs, conditioning, filters=filters, **own)


def condition_for(model: ConditionalModel, batch: int = 1, seed: int = 0) -> Condition:
    """A random condition of the widths that ``model`` wants."""
    generator = torch.Generator().manual_seed(seed)
    encoder, info = model.encoder, model.info

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Condition(
        normal(batch, encoder.vector_size) if encoder.vector_size else None,
        normal(batch, encoder.map_channels, info.height, info.width) if encoder.map_channels else None,
    )


def random_images(model: ConditionalModel, batch: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    info = model.info
    shape = (batch, info.channels, info.height, info.width)
    return torch.randint(0, 2**info.bit_depth, shape, generator=generator).to(torch.uint8)


def all_images(model: ConditionalModel) -> Tensor:
    """Every image there is, in counting order: (V^(C H W), C, H, W)."""
    info, levels = model.info, 2**model.info.bit_depth
    count = levels**info.dimensions
    digits = [torch.arange(count) // levels**k % levels for k in reversed(range(info.dimensions))]
    return torch.stack(digits, dim=1).view(count, info.channels, info.height, info.width).to(torch.uint8)


def bits(nats: float) -> float:
    return nats / math.log(2)
