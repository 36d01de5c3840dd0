"""What the parts of ``verify`` share: a finding, a copy to experiment on, and random things to feed it."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from condgen import streams
from condgen.condition import Condition
from condgen.likelihoods import scaled
from condgen.model import ConditionalModel


@dataclass(frozen=True)
class Finding:
    """Whether a property holds (None: it does not apply), and a sentence that says what was seen."""

    holds: bool | None
    detail: str


def in_float64(model: ConditionalModel) -> ConditionalModel:
    """A copy to compute exactly with: float64, evaluation mode, no gradients of weights."""
    twin = copy.deepcopy(model)
    if model.device.type == "mps":  # has no float64
        twin = twin.cpu()
    return twin.double().eval().requires_grad_(False)


def shaken(model: ConditionalModel, seed: int, number: int, gain: float = 1.0) -> ConditionalModel:
    """The model itself for ``number`` 0; else a copy with other weights in its core.

    A ReLU can sleep on every image there is: then these very weights hide what the architecture sees. In the copy every
    bias is positive, about 1, which opens most of them, and every other weight has a factor of random sign. Its
    zeros stay zeros, so what masks, missing connections or dead weights cut stays cut. ``gain`` multiplies the weights:
    a network of small weights hardly answers to its input.
    """
    if number == 0:
        return model
    other = copy.deepcopy(model)
    with torch.no_grad():
        for k, weight in enumerate(other.core.parameters()):
            u = torch.from_numpy(streams.uniforms(weight.numel(), seed, "shaken", number, k)).view(weight.shape)
            if weight.dim() == 1:
                weight.copy_(u + 0.5)
            else:
                weight *= gain * torch.where(u < 0.5, u + 0.5, -u).to(weight.device)  # magnitudes from 1/2 to 1
    return other


def random_images(model: ConditionalModel, count: int, seed: int, *purpose: int | str) -> Tensor:
    """Noise on the model's grid, uint8 (count, C, H, W): every other image of full contrast, the rest of less, for
    saturated units see nothing."""
    info = model.info
    levels = model.likelihood.levels
    shape = (count, info.channels, info.height, info.width)
    u = streams.uniforms(int(np.prod(shape)), seed, "images", *purpose).reshape(shape)
    narrow = 0.5 + (u - 0.5) * np.where(np.arange(count) % 2, 0.3, 1.0)[:, None, None, None]
    return torch.from_numpy((narrow * levels).astype(np.uint8)).to(model.device)


def random_condition(model: ConditionalModel, count: int, seed: int, *purpose: int | str) -> Condition:
    """Standard normal vectors and maps as wide as the encoder's, float64."""
    info, encoder = model.info, model.encoder

    def normal(*shape: int) -> Tensor:
        u = streams.uniforms(int(np.prod(shape)), seed, "condition", *purpose, len(shape))
        return torch.special.ndtri(torch.from_numpy(u)).reshape(shape).to(model.device)

    return Condition(
        normal(count, encoder.vector_size) if encoder.vector_size else None,
        normal(count, encoder.map_channels, info.height, info.width) if encoder.map_channels else None,
    )


def on_grid(model: ConditionalModel, images: Tensor) -> Tensor:
    """Images as the core takes them, float64 on [-1, 1]."""
    return scaled(images, model.likelihood.levels, torch.float64)


def parameters_of(model: ConditionalModel, images: Tensor, h: Condition) -> Tensor:
    """The core's parameters of every pixel, (B, outputs, H, W)."""
    parameters: Tensor = model.core(on_grid(model, images), model.core.terms(h))
    return parameters


def forward_operations(model: ConditionalModel) -> float:
    """Multiplications and additions of one image's forward pass, roughly: every weight is used at every pixel."""
    weights = sum(p.numel() for p in model.core.parameters())
    return 2.0 * weights * model.info.height * model.info.width
