"""Learning rate and EMA decay: pure functions of the number of updates. There is nothing to save or to step twice."""

from __future__ import annotations

import math

from condgen.recipe import TrainSection


def learning_rate(train: TrainSection, updates: int) -> float:
    """The step size of the update after ``updates`` others.

    Linear warm-up over ``warmup_steps``, times ``decay ** updates``; with ``decay_steps`` also times a half cosine
    that reaches 0 there and stays.
    """
    rate = train.learning_rate * train.decay**updates
    if updates < train.warmup_steps:
        rate *= (updates + 1) / train.warmup_steps
    if train.decay_steps is not None:
        rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, updates / train.decay_steps)))
    return rate


def ema_decay(train: TrainSection, updates: int) -> float:
    """The decay of the average after ``updates`` earlier ones: rises to ``ema_decay``, so that early averages are of
    recent weights and not of the random ones (the warm-up of TensorFlow's ExponentialMovingAverage)."""
    return min(train.ema_decay, (1 + updates) / (10 + updates))
