"""What PixelCNN++ does between its convolutions, each in few passes over memory: there its time goes, not into sums.

Legend: B images, F channels, H x W pixels. Tensors lie channels-last in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from condgen.cores.layers import Dropout


class ConcatElu(torch.autograd.Function):
    """elu([x, -x]), (B, F, H, W) -> (B, 2F, H, W), with dropout of single elements.

    Saves its result alone, which the convolution behind it saves as well.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor | None, scale: float) -> Tensor:
        B, channels, H, W = x.shape
        y = x.new_empty((B, H, W, 2 * channels)).permute(0, 3, 1, 2)
        y[:, :channels] = x
        torch.neg(x, out=y[:, channels:])
        F.elu_(y)
        if kept is not None:
            y.mul_(kept).mul_(scale)
        ctx.save_for_backward(y, kept)
        ctx.scale = scale
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        y, kept = ctx.saved_tensors
        g = torch.ops.aten.elu_backward(gradients[0], 1.0, ctx.scale, 1.0, True, y)
        if kept is not None:
            g.mul_(kept)
        channels = y.shape[1] // 2
        return g[:, :channels] - g[:, channels:], None, None


@dataclass(frozen=True)
class Activation:
    """A nonlinearity, with dropout behind it.

    Attributes:
        widening: channels that come out for each that goes in.
    """

    function: Callable[[Tensor], Tensor]
    widening: int

    def __call__(self, x: Tensor, dropout: Dropout | None = None) -> Tensor:
        if self.widening == 2:
            if dropout is None:
                return ConcatElu.apply(x, None, 1.0)
            B, channels, H, W = x.shape
            kept, scale = dropout.kept((B, 2 * channels, H, W))
            return ConcatElu.apply(x, kept, scale)
        y = self.function(x)
        return y if dropout is None else dropout(y)


NONLINEARITIES = {
    "concat_elu": Activation(lambda x: F.elu(torch.cat([x, -x], dim=1)), 2),
    "elu": Activation(F.elu, 1),
    "relu": Activation(F.relu, 1),
}


def gated_residual(x: Tensor, gates: Tensor) -> Tensor:
    """x + a * sigmoid(b), (B, F, H, W) and (B, 2F, H, W): no tanh here, unlike in Gated PixelCNN."""
    a, b = gates.chunk(2, dim=1)
    return x + a * torch.sigmoid(b)
