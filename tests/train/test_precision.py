"""The probe for bf16, with clocks that say what the test wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from condgen.train import precision
from condgen.train.precision import BF16_IS_FAST, bf16_is_fast, bf16_speed_up

CPU = torch.device("cpu")


class Clock:
    """Stands still, except where a convolution is computed: that takes ``fp32`` or ``bf16`` seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fp32: float, bf16: float) -> None:
        self.now = 0.0
        self.calls: list[torch.dtype] = []
        convolve = F.conv2d

        def slow(*arguments: Any, **options: Any) -> torch.Tensor:
            y = convolve(*arguments, **options)
            self.calls.append(y.dtype)
            self.now += bf16 if y.dtype == torch.bfloat16 else fp32
            return y

        monkeypatch.setattr(F, "conv2d", slow)

    def __call__(self) -> float:
        return self.now


def test_the_speed_up_is_that_of_the_clock_and_both_were_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, fp32=3.0, bf16=2.0)
    assert bf16_speed_up(CPU, clock) == 1.5
    assert clock.calls.count(torch.float32) == clock.calls.count(torch.bfloat16) >= 4


def test_a_hiccup_in_one_round_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, fp32=3.0, bf16=2.0)

    def disturbed() -> float:
        if len(clock.calls) == 9:
            clock.now += 100.0
        return clock()

    assert bf16_speed_up(CPU, disturbed) == 1.5


def test_a_device_without_bf16_has_no_speed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> torch.Tensor:
        raise RuntimeError("not implemented for 'BFloat16'")

    monkeypatch.setattr(F, "conv2d", refuse)
    assert bf16_speed_up(CPU) is None
    assert bf16_is_fast(CPU) is False


@pytest.mark.parametrize(("speed_up", "fast"), [(0.3, False), (BF16_IS_FAST - 0.01, False), (BF16_IS_FAST, True)])
def test_only_a_clear_gain_is_fast(monkeypatch: pytest.MonkeyPatch, speed_up: float, fast: bool) -> None:
    probe: Callable[[torch.device], float] = lambda device: speed_up  # noqa: E731
    monkeypatch.setattr(precision, "bf16_speed_up", probe)
    assert bf16_is_fast(CPU) is fast


def test_the_probe_leaves_threads_and_gradients_as_they_were() -> None:
    torch.set_num_threads(2)
    try:
        with torch.no_grad():
            assert bf16_speed_up(CPU) is not None
            assert not torch.is_grad_enabled()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
