"""Convolutions whose weights do not change any more: brought into the order in which oneDNN computes, once.

``F.conv2d`` does so in every call, which costs little with a whole image and a seventh of the time with a single row.

Legend: B images, C input and N output channels, kh x kw the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Packed:
    """``F.conv2d`` without padding, to be called with inputs of one shape and without gradients.

    On a CPU in fp32 by oneDNN, elsewhere by ``F.conv2d`` itself.

    Args:
        weight: (N, C, kh, kw).
        bias: (N,), or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, stride: Sequence[int] = (1, 1)) -> None:
        self._weight = weight.detach().contiguous(memory_format=torch.channels_last)
        self._bias, self._stride = None if bias is None else bias.detach(), list(stride)
        self._packed: Tensor | None = None
        self._packs = weight.device.type == "cpu" and weight.dtype == torch.float32 and _onednn()
        if self._packs:
            self._run: Any = torch.ops.mkldnn._convolution_pointwise.default
            self._run_and_add: Any = torch.ops.mkldnn._convolution_pointwise_.binary

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, H', W')."""
        if not self._packs:
            return F.conv2d(x, self._weight, self._bias, self._stride)
        weight, stride = self._order(x), self._stride
        y: Tensor = self._run(x, weight, self._bias, _ZEROS, stride, _ONES, 1, "none", (), "")
        return y

    def add_to(self, y: Tensor, x: Tensor) -> Tensor:
        """``y`` (B, N, H', W'), changed in place, plus what ``x`` gives."""
        if not (self._packs and y.is_contiguous(memory_format=torch.channels_last)):  # oneDNN adds in no other order
            return y.add_(self(x))
        weight, stride = self._order(x), self._stride
        self._run_and_add(y, x, weight, self._bias, _ZEROS, stride, _ONES, 1, "add", 1.0, None, (), None)
        return y

    def _order(self, x: Tensor) -> Tensor:
        if self._packed is None:
            order = torch.ops.mkldnn._reorder_convolution_weight
            self._packed = order(self._weight, _ZEROS, self._stride, _ONES, 1, list(x.shape))
        return self._packed


def packed(convolution: Any) -> Packed:
    """The weights, bias and stride of a layer."""
    return Packed(convolution.weight, convolution.bias, convolution.stride)


_ZEROS, _ONES = [0, 0], [1, 1]


def _onednn() -> bool:
    """Whether torch has the operators that its own compiler uses for this; they are not promised to anyone."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return False
    names = ("_reorder_convolution_weight", "_convolution_pointwise", "_convolution_pointwise_")
    return all(hasattr(torch.ops.mkldnn, name) for name in names)
