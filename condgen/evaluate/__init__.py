"""Evaluation: bits per dimension, lossless files to compare with, scores of single images, and ``verify``."""

from condgen.evaluate.baselines import baselines
from condgen.evaluate.bits import bits_per_dim, likelihood_report
from condgen.evaluate.roc import roc_picture
from condgen.evaluate.score import Score, score
from condgen.evaluate.trial import Finding
from condgen.evaluate.verification import verification_report
from condgen.evaluate.verify import findings, verify

__all__ = [
    "Finding",
    "Score",
    "baselines",
    "bits_per_dim",
    "findings",
    "likelihood_report",
    "roc_picture",
    "score",
    "verification_report",
    "verify",
]
