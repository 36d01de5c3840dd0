"""PixelCNN++ as a probability distribution: all images of a tiny model enumerated, its samples held against that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from building import all_images, condition_for, tiny_model
from scipy.stats import chisquare
from torch import Tensor

from condgen.condition import Condition
from condgen.model import ConditionalModel


def lively(kind: str, seed: int = 0, **settings: Any) -> ConditionalModel:
    """With weights so large that some images are a thousand times as likely as others."""
    model = tiny_model(kind, core="pixelcnn++", **settings)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.core.parameters():
            weight += 0.5 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return model


@torch.no_grad()
def probabilities(model: ConditionalModel, h: Condition) -> Tensor:
    """Of all images, in counting order."""
    return torch.cat([model.log_prob(images, h).exp() for images in all_images(model).split(4096)])


@pytest.mark.parametrize(
    ("kind", "conditioning", "settings"),
    [
        ("bernoulli", "none", {"height": 4, "width": 4}),
        ("bernoulli", "both", {"height": 4, "width": 4, "filters": 2}),
        ("bernoulli", "map", {"height": 4, "width": 2, "scales": 2, "full_sight": True}),
        ("logistic_mixture", "global", {"height": 2, "width": 4, "scales": 2}),
        ("logistic_mixture", "spatial", {"channels": 3, "height": 2, "width": 1, "scales": 1}),
        ("logistic_mixture", "none", {"channels": 4, "height": 1, "width": 2, "scales": 1, "full_sight": True}),
        ("linear_categorical", "vector+map", {"channels": 3, "height": 2, "width": 2, "scales": 2, "bit_depth": 1}),
    ],
    ids=str,
)
def test_all_images_together_have_probability_one(kind: str, conditioning: str, settings: dict[str, Any]) -> None:
    model = lively(kind, conditioning=conditioning, **settings)
    p = probabilities(model, condition_for(model))
    assert float(p.sum()) == pytest.approx(1, abs=1e-10)
    assert p.max() > 100 * p.min()


@pytest.mark.parametrize("conditioning", ["none", "both"])
def test_samples_come_as_often_as_their_probability_says(conditioning: str) -> None:
    model = lively("bernoulli", height=2, width=4, scales=2, conditioning=conditioning)
    h = condition_for(model)
    expected = probabilities(model, h)
    n = 8_000
    x = model.sample(h, count=n, seed=1, tile=2000, sampler="naive")
    code = (x.flatten(1).long() * 2 ** torch.arange(7, -1, -1)).sum(1)
    seen = torch.bincount(code, minlength=256).double()
    # outcomes expected less than five times are counted together, as the test demands
    rare = expected * n < 5
    pooled_seen = torch.cat([seen[~rare], seen[rare].sum()[None]])
    pooled_expected = torch.cat([expected[~rare], expected[rare].sum()[None]]) * n
    keep = pooled_expected > 0
    assert int(keep.sum()) > 20
    assert chisquare(pooled_seen[keep], pooled_expected[keep] * (n / pooled_expected[keep].sum())).pvalue > 1e-4
    assert chisquare(seen).pvalue < 1e-9  # far from uniform


@pytest.mark.parametrize("kind", ["logistic_mixture", "linear_categorical"])
@torch.no_grad()
def test_an_image_is_as_likely_as_the_product_of_its_conditionals(kind: str) -> None:
    """Each conditional computed on an image whose later pixels are another's."""
    model = lively(kind, channels=3, height=4, width=4, bit_depth=3, conditioning="vector+map")
    h = condition_for(model)
    generator = torch.Generator().manual_seed(1)
    x, other = torch.randint(0, 8, (2, 1, 3, 4, 4), generator=generator, dtype=torch.uint8)
    product = torch.zeros((), dtype=torch.float64)
    for pixel in range(16):
        early = torch.arange(16).view(4, 4) <= pixel
        product += model.log_prob_map(torch.where(early, x, other), h)[0, pixel // 4, pixel % 4]
    assert float(product) == pytest.approx(float(model.log_prob(x, h)), abs=1e-10)
