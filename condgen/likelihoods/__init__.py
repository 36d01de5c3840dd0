"""Likelihoods: parameters of a pixel in, log-probabilities and values out. Nothing here is trained.

Legend: B images, C colour channels, V values of a sub-pixel (2^bits), K mixture components, H x W pixels. Images are
integers 0 .. V-1; the network sees them on [-1, 1] (``scaled``). Log-probabilities are natural (nats), at least fp32.
"""

from __future__ import annotations

from condgen.likelihoods.base import Likelihood, Temperature, scaled
from condgen.likelihoods.guided import Guided
from condgen.likelihoods.logistic import ContinuousMixture, LogisticMixture
from condgen.likelihoods.softmax import Bernoulli, Categorical, LinearCategorical

__all__ = [
    "Bernoulli",
    "Categorical",
    "ContinuousMixture",
    "Guided",
    "Likelihood",
    "LinearCategorical",
    "LogisticMixture",
    "Temperature",
    "scaled",
]
