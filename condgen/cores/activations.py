"""What PixelCNN++ does between its convolutions, each in few passes over memory: there its time goes, not into sums.

Legend: B images, F channels, H x W pixels. Tensors lie channels-last in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from condgen.cores.kernels import FormulaKernels, Kernels, NativeKernels, cropped
from condgen.cores.layers import Dropout, Mask


class _Forgetful:
    """In the place of autograd's memory where nothing will be differentiated: at single pixels autograd costs most."""

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...


def elu(x: Tensor) -> Tensor:
    """elu(x) = max(x, e^min(x, 0) - 1): several times faster on a CPU than an exact expm1, which nobody needs here."""
    y: Tensor = _Elu.apply(x) if torch.is_grad_enabled() else _Elu.forward(_Forgetful(), x)
    return y


def _new(shape: torch.Size, like: Tensor, dtype: torch.dtype) -> Tensor:
    B, channels, H, W = shape
    return like.new_empty((B, H, W, channels), dtype=dtype).permute(0, 3, 1, 2)


class _Elu(torch.autograd.Function):
    """Saves its result alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.maximum(x, x.clamp(max=0).exp_().sub_(1))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        of_x: Tensor = torch.ops.aten.elu_backward(gradients[0], 1.0, 1.0, 1.0, True, y)
        return of_x


@contextmanager
def _remembering(mask: Mask | None, bits: Tensor | None) -> Iterator[None]:
    """Autograd keeps drawn bits, since it lets go of tensors after use; a mask in the graph would keep them longer."""
    if mask is not None and bits is not None:
        mask.kept = bits
    yield
    if mask is not None:
        mask.forget()


class _ConcatElu(torch.autograd.Function):
    """Saves its result alone, which the convolution behind it saves as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, added: Tensor | None, mask: Mask | None, kernels: Kernels) -> Tensor:
        kind = x.device.type
        autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)  # not on "meta"
        dtype = torch.get_autocast_dtype(kind) if autocast else x.dtype
        B, channels, rows, columns = (x if added is None else added).shape
        y = _new(torch.Size((B, 2 * channels, rows, columns)), x, dtype)
        kernels.concat_elu(x, added, mask, y)
        ctx.save_for_backward(y, None if mask is None else mask.forget())
        ctx.mask, ctx.kernels, ctx.shape, ctx.dtype = mask, kernels, x.shape, x.dtype
        ctx.adds = added is not None
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        y, bits = ctx.saved_tensors
        of_x = _new(ctx.shape, y, ctx.dtype)
        with _remembering(ctx.mask, bits):
            ctx.kernels.concat_elu_backward(gradients[0], y, ctx.mask, of_x)
        return of_x, cropped(of_x, y) if ctx.adds else None, None, None


class _GatedResidual(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gates: Tensor, kernels: Kernels) -> Tensor:
        out = _new(x.shape, x, x.dtype)
        kernels.gated_residual(x, gates, out)
        ctx.save_for_backward(gates)
        ctx.kernels = kernels
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gates,) = ctx.saved_tensors
        of_gates = _new(gates.shape, gates, gates.dtype)
        ctx.kernels.gated_residual_backward(gradients[0], gates, of_gates)
        return gradients[0], of_gates, None


class Activations:
    """The nonlinearity of a network, with dropout behind it, and the gate of its resnets.

    Args:
        nonlinearity: ``concat_elu``: elu([x, -x]); ``elu``; ``relu``.
    """

    def __init__(self, nonlinearity: str) -> None:
        if nonlinearity not in ("concat_elu", "elu", "relu"):
            raise ValueError(f"nonlinearity is concat_elu, elu or relu, not {nonlinearity}")
        self.nonlinearity = nonlinearity
        self.kernels = Kernels()

    @property
    def widening(self) -> int:
        """Channels that come out for each that goes in."""
        return 2 if self.nonlinearity == "concat_elu" else 1

    def __call__(self, x: Tensor, added: Tensor | None = None, dropout: Dropout | None = None) -> Tensor:
        """(B, F, H, W) -> (B, widening F, H, W).

        Args:
            added: (B, F, H, W) to be added to x first; rows and columns of x beyond these are cropped.
        """
        if self.nonlinearity == "concat_elu":
            B, channels, H, W = (x if added is None else added).shape
            mask = None if dropout is None else dropout.mask((B, 2 * channels, H, W))
            if torch.is_grad_enabled():
                return _ConcatElu.apply(x, added, mask, self.kernels)
            return _ConcatElu.forward(_Forgetful(), x, added, mask, self.kernels)
        if added is not None:
            x = x[:, :, : added.shape[2], : added.shape[3]] + added
        y = elu(x) if self.nonlinearity == "elu" else F.relu(x)
        return y if dropout is None else dropout(y)

    def gated_residual(self, x: Tensor, gates: Tensor) -> Tensor:
        """x + a * sigmoid(b), (B, F, H, W) and (B, 2F, H, W): no tanh here, unlike in Gated PixelCNN.

        Rows and columns of ``gates`` beyond those of x are cropped.
        """
        if torch.is_grad_enabled():
            return _GatedResidual.apply(x, gates, self.kernels)
        return _GatedResidual.forward(_Forgetful(), x, gates, self.kernels)

    def compile(self, device: torch.device) -> None:
        """Compiled loops from now on: by the C compiler for a CPU (a second), by torch's for a GPU.

        Raises:
            MachineError: a CPU without a C compiler.
        """
        self.kernels = NativeKernels() if device.type == "cpu" else FormulaKernels()
