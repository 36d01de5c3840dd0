from __future__ import annotations

import math

import pytest

from condgen.recipe import TrainSection
from condgen.train.budget import Budget
from condgen.train.schedule import ema_decay, learning_rate


def test_warm_up_then_constant() -> None:
    train = TrainSection(learning_rate=0.1, warmup_steps=4)
    assert [learning_rate(train, t) for t in range(6)] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    assert learning_rate(TrainSection(learning_rate=0.1, warmup_steps=0), 0) == 0.1


def test_decay_is_a_factor_a_step() -> None:
    train, rate = TrainSection(learning_rate=0.1, warmup_steps=0, decay=0.9), 0.1
    for t in range(50):
        assert learning_rate(train, t) == pytest.approx(rate, rel=1e-12)
        rate *= 0.9


def test_cosine_ends_at_zero_and_stays() -> None:
    train = TrainSection(learning_rate=0.1, warmup_steps=0, decay_steps=10)
    rates = [learning_rate(train, t) for t in range(13)]
    assert rates[0] == 0.1 and rates[5] == pytest.approx(0.05) and rates[10:] == pytest.approx([0, 0, 0])
    assert rates == sorted(rates, reverse=True)
    assert rates[3] == pytest.approx(0.1 * math.cos(math.pi * 3 / 20) ** 2)  # the half cosine, written otherwise


def test_ema_decay_rises_to_its_value() -> None:
    train = TrainSection(ema_decay=0.99)
    assert ema_decay(train, 0) == 0.1 and ema_decay(train, 1) == 2 / 11
    assert ema_decay(train, 890) == pytest.approx(891 / 900) and ema_decay(train, 100_000) == 0.99


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_minutes_add_up_over_restarts() -> None:
    clock = Clock()
    budget = Budget(None, 2.0, spent=90.0, clock=clock)
    assert budget.seconds == 90 and budget.fraction(5) == 0.75 and not budget.exhausted(29)
    clock.now += 10
    assert budget.seconds == 100 and budget.exhausted(20) and not budget.exhausted(19)
    clock.now += 100
    assert budget.fraction(0) == 1.0


def test_whichever_ends_first() -> None:
    clock = Clock()
    budget = Budget(100, 1.0, clock=clock)
    assert budget.fraction(40) == 0.4
    clock.now += 45
    assert budget.fraction(40) == 0.75 and budget.fraction(90) == 0.9
    assert Budget(None, None, clock=clock).fraction(7) == 0 and not Budget(100, None, clock=clock).exhausted(1e9)
