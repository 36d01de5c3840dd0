"""Which likelihood a recipe gets."""

from __future__ import annotations

import pytest

from condgen.condition import DataInfo
from condgen.likelihoods import (
    Bernoulli,
    Categorical,
    ContinuousMixture,
    Likelihood,
    LinearCategorical,
    LogisticMixture,
)
from condgen.recipe import recipe_from_dict
from condgen.recipe.build import build_likelihood


@pytest.mark.parametrize(
    ("core", "likelihood", "channels", "bit_depth", "kind", "outputs"),
    [
        ("gated", "auto", 3, 8, Categorical, 768),
        ("gated", "auto", 3, 1, Bernoulli, 3),
        ("gated", "continuous_mixture", 3, 8, ContinuousMixture, 100),
        ("pixelcnn++", "auto", 3, 8, LogisticMixture, 100),
        ("pixelcnn++", "categorical", 3, 8, LinearCategorical, 1536),
        ("pixelcnn++", "categorical", 1, 8, LinearCategorical, 256),
        ("pixelcnn++", "continuous_mixture", 1, 8, ContinuousMixture, 30),
        ("pixelcnn++", "auto", 1, 1, Bernoulli, 1),
        ("pixelcnn++", "auto", 3, 1, LinearCategorical, 12),
    ],
)
def test_whole_pixels_have_likelihoods_of_whole_pixels(
    core: str, likelihood: str, channels: int, bit_depth: int, kind: type[Likelihood], outputs: int
) -> None:
    recipe = recipe_from_dict(
        {
            "data": {"image_size": 32, "channels": channels, "bit_depth": bit_depth},
            "model": {"core": core, "likelihood": likelihood, "mixtures": 10},
            "train": {"max_steps": 1},
        },
        "tests",
    )
    found = build_likelihood(recipe, DataInfo(channels, 32, 32, bit_depth))
    assert type(found) is kind and found.outputs == outputs
    assert core == "gated" or not found.colour_ordered
