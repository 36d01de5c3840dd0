"""100,000 images of a model that knows 256: they come as often as its enumeration says, by every sampler."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from building import all_images, condition_for, tiny_model
from scipy.stats import chisquare
from torch import Tensor

from condgen.condition import Condition
from condgen.model import ConditionalModel
from condgen.samplers import SAMPLERS, noise

COUNT, PART = 100_000, 20_000
CORES: dict[str, tuple[str, dict[str, Any]]] = {
    "gated": ("categorical", {}),
    "pixelcnn++": ("logistic_mixture", {"scales": 1}),
}


@pytest.fixture(scope="module")
def uniforms() -> Tensor:
    """The noise of samples 0 .. 99,999, with the plane of the component."""
    return noise(5, range(COUNT), 2, 1, 4)


def four_pixels(core: str, conditioning: str) -> ConditionalModel:
    """A row of four pixels of two bits, whose values depend on each other and on the condition."""
    kind, sizes = CORES[core]
    model = tiny_model(
        kind, core=core, height=1, width=4, bit_depth=2, conditioning=conditioning, dtype=torch.float32, **sizes
    )
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.core.parameters():
            weight += 0.2 * torch.randn(weight.shape, generator=generator)
    return model


@torch.no_grad()
def probabilities(model: ConditionalModel, h: Condition) -> np.ndarray:
    """Of every image, in counting order: one pass over all 256, in double precision."""
    p: np.ndarray = model.double().log_prob(all_images(model), h).exp().numpy()
    model.float()
    assert p.sum() == pytest.approx(1, abs=1e-9)
    return p / p.sum()


@torch.no_grad()
def frequencies(model: ConditionalModel, h: Condition, sampler: str, uniforms: Tensor) -> np.ndarray:
    """How often each of the 256 images came."""
    counts = np.zeros(256)
    for start in range(0, COUNT, PART):
        terms = model.core.terms(h.expand(PART), keep=True)
        part = uniforms[start : start + PART, : model.likelihood.planes]
        x, _ = SAMPLERS[sampler](model.core, model.likelihood, terms, part)
        number = x.flatten(1).long() @ torch.tensor([64, 16, 4, 1])
        counts += np.bincount(number.numpy(), minlength=256)
    return counts


def p_value(counts: np.ndarray, p: np.ndarray) -> float:
    """Of Pearson's chi-square; images that are expected less than ten times are one case."""
    often = 10 <= p * COUNT
    observed, expected = counts[often], p[often] * COUNT
    if not often.all():
        observed, expected = np.append(observed, counts[~often].sum()), np.append(expected, p[~often].sum() * COUNT)
    return float(chisquare(observed, expected).pvalue)


@pytest.mark.parametrize("conditioning", ["none", "vector+map"])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("core", CORES)
def test_images_come_as_often_as_the_model_says(core: str, sampler: str, conditioning: str, uniforms: Tensor) -> None:
    model = four_pixels(core, conditioning)
    h = condition_for(model, 1, seed=2)
    p = probabilities(model, h)
    counts = frequencies(model, h, sampler, uniforms)
    assert p_value(counts, p) > 1e-4
    assert p.max() > 3 / 256  # far from uniform
    # independent pixels of the same marginals would be told apart, and so would another condition
    table = p.reshape(4, 4, 4, 4)
    margins = [table.sum(tuple(axis for axis in range(4) if axis != pixel)) for pixel in range(4)]
    independent = np.einsum("a,b,c,d->abcd", *margins).ravel()
    assert p_value(counts, independent) < 1e-4
    if conditioning != "none":
        assert p_value(counts, probabilities(model, condition_for(model, 1, seed=3))) < 1e-4
