"""Convolutions with packed weights: those of ``F.conv2d``, for whatever order of channels they are given."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from condgen.cores.packed import Packed


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stride", [(1, 1), (1, 2)])
@pytest.mark.parametrize("kernel", [(1, 1), (2, 3)])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("order", [torch.channels_last, torch.contiguous_format])
@torch.no_grad()
def test_it_is_a_convolution(
    dtype: torch.dtype, stride: tuple[int, int], kernel: tuple[int, int], biased: bool, order: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    x, weight, bias = some(3, 10, 2, 12).contiguous(memory_format=order), some(6, 10, *kernel), some(6)
    packed = Packed(weight, bias if biased else None, stride)
    expected = F.conv2d(x, weight, bias if biased else None, stride)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    for _ in range(2):  # the weights are packed by the first call
        torch.testing.assert_close(packed(x), expected, rtol=0, atol=tolerance)
    y = some(*expected.shape).contiguous(memory_format=order)
    both = y + expected
    assert packed.add_to(y, x) is y
    torch.testing.assert_close(y, both, rtol=0, atol=2 * tolerance)


@torch.no_grad()
def test_without_the_operators_it_is_a_convolution_too(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = torch.linspace(-1, 1, 24).view(4, 6, 1, 1), torch.linspace(-2, 2, 36).view(1, 6, 2, 3)
    fast = Packed(weight)(x)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    slow = Packed(weight)
    assert slow._packs is False
    torch.testing.assert_close(slow(x), fast)
