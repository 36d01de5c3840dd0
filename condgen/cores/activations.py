"""What PixelCNN++ does between its convolutions, each in few passes over memory: there its time goes, not into sums.

Each function is written twice: in few of torch's own operators, and as a formula for a compiler. Both are checked
against each other and against plain autograd.

Legend: B images, F channels, H x W pixels. Tensors lie channels-last in memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from condgen.cores.layers import Dropout


def elu(x: Tensor) -> Tensor:
    """elu(x) = max(x, e^min(x, 0) - 1): several times faster on a CPU than an exact expm1, which nobody needs here."""
    return torch.maximum(x, x.clamp(max=0).exp() - 1)


def _new(shape: torch.Size, like: Tensor, dtype: torch.dtype) -> Tensor:
    B, channels, H, W = shape
    return like.new_empty((B, H, W, channels), dtype=dtype).permute(0, 3, 1, 2)


def _bordered(shape: torch.Size, rows: int, columns: int, like: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A tensor that is zero below ``rows`` and right of ``columns``, and the view of the rest, which is unset.

    The gradient of a tensor that was cropped, to be written in place instead of being copied into zeros.
    """
    whole = _new(shape, like, dtype)
    whole[:, :, rows:] = 0
    whole[:, :, :, columns:] = 0
    return whole, whole[:, :, :rows, :columns]


def _wide(x: Tensor) -> Tensor:
    """At least fp32: e^-|x| - 1 of small x is nothing in bf16, and torch is slow where types are mixed."""
    return x if x.dtype == torch.float64 else x.float()


def _concat_elu(x: Tensor, kept: Tensor | None, factor: float, out: Tensor) -> None:
    x = _wide(x)
    y = out if out.dtype == x.dtype else torch.empty_like(out, dtype=x.dtype)
    below = x.abs().neg_().exp_().sub_(1)  # elu(x) = max(x, e^-|x| - 1), and so is elu(-x) with the same exponential
    channels = x.shape[1]
    torch.maximum(x, below, out=y[:, :channels])
    torch.maximum(-x, below, out=y[:, channels:])
    if kept is not None:
        y.mul_(kept.to(y.dtype).mul_(factor))
    if y is not out:
        out.copy_(y)


def _concat_elu_formula(x: Tensor, kept: Tensor | None, factor: float, out: Tensor) -> None:
    x = _wide(x)
    below = torch.exp(-x.abs()) - 1
    y = torch.cat([torch.maximum(x, below), torch.maximum(-x, below)], dim=1)
    # a product: a choice by ``where`` is not vectorised; one copy: two of halves cost twice as much
    out.copy_(y if kept is None else y * (kept.to(y.dtype) * factor))


def _concat_elu_backward(g: Tensor, y: Tensor, kept: Tensor | None, factor: float, out: Tensor) -> None:
    # of the result alone: d elu = 1 above 0, elu + 1 below; both times the factor
    g = torch.ops.aten.elu_backward(g, 1.0, factor, 1.0, True, y)
    if kept is not None:
        g.mul_(kept.to(g.dtype))
    channels = y.shape[1] // 2
    if g.dtype == out.dtype:
        torch.sub(g[:, :channels], g[:, channels:], out=out)
    else:
        out.copy_(g[:, :channels] - g[:, channels:])


def _concat_elu_backward_formula(g: Tensor, y: Tensor, kept: Tensor | None, factor: float, out: Tensor) -> None:
    g = _wide(g) * (_wide(y).clamp(max=0) + factor)
    if kept is not None:
        g = g * kept.to(g.dtype)
    channels = y.shape[1] // 2
    out.copy_(g[:, :channels] - g[:, channels:])


def _gated_residual(x: Tensor, gates: Tensor, out: Tensor) -> None:
    a, b = gates.to(x.dtype).chunk(2, dim=1)
    torch.addcmul(x, a, b.sigmoid(), out=out)


def _gated_residual_formula(x: Tensor, gates: Tensor, out: Tensor) -> None:
    a, b = gates.to(out.dtype).chunk(2, dim=1)
    out.copy_(x + a * b.sigmoid())


def _gated_residual_backward(g: Tensor, gates: Tensor, out: Tensor) -> None:
    a, b = gates.to(g.dtype).chunk(2, dim=1)
    both = out if out.dtype == g.dtype else torch.empty_like(out, dtype=g.dtype)
    channels = a.shape[1]
    opening = b.sigmoid()
    of_a = torch.mul(g, opening, out=both[:, :channels])
    torch.mul(torch.addcmul(of_a, of_a, opening, value=-1), a, out=both[:, channels:])  # g s (1 - s) a
    if both is not out:
        out.copy_(both)


def _gated_residual_backward_formula(g: Tensor, gates: Tensor, out: Tensor) -> None:
    a, b = gates.to(g.dtype).chunk(2, dim=1)
    opening = b.sigmoid()
    of_a = g * opening
    out.copy_(torch.cat([of_a, of_a * a * (1 - opening)], dim=1))


class _Kernels:
    """The functions in use: plain ones, or compiled formulas. Each writes its last argument."""

    concat_elu: Callable[..., None] = staticmethod(_concat_elu)
    concat_elu_backward: Callable[..., None] = staticmethod(_concat_elu_backward)
    gated_residual: Callable[..., None] = staticmethod(_gated_residual)
    gated_residual_backward: Callable[..., None] = staticmethod(_gated_residual_backward)


class _CompiledKernels(_Kernels):
    """The formulas, each compiled to a loop over memory for every size of tensor that comes."""

    def __init__(self) -> None:
        import torch._dynamo.config as dynamo  # late: it costs a second and 100 MB

        dynamo.recompile_limit = max(dynamo.recompile_limit, 64)
        # fullgraph would turn the 65th size, of a sampler or of another model, into an error instead of a slower loop
        build = functools.partial(torch.compile, dynamic=False)
        self.concat_elu = build(_concat_elu_formula)
        self.concat_elu_backward = build(_concat_elu_backward_formula)
        self.gated_residual = build(_gated_residual_formula)
        self.gated_residual_backward = build(_gated_residual_backward_formula)


class _ConcatElu(torch.autograd.Function):
    """Saves its result alone, which the convolution behind it saves as well."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, added: Tensor | None, kept: Tensor | None, factor: float, kernels: _Kernels
    ) -> Tensor:
        kind = x.device.type
        autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)  # not on "meta"
        dtype = torch.get_autocast_dtype(kind) if autocast else x.dtype
        B, channels, rows, columns = (x if added is None else added).shape
        inner = x[:, :, :rows, :columns]
        y = _new(torch.Size((B, 2 * channels, rows, columns)), x, dtype)
        kernels.concat_elu(inner if added is None else inner + added, kept, factor, y)
        ctx.save_for_backward(y, kept)
        ctx.factor, ctx.kernels, ctx.shape, ctx.dtype = factor, kernels, x.shape, x.dtype
        ctx.adds = added is not None
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        y, kept = ctx.saved_tensors
        whole, inner = _bordered(ctx.shape, y.shape[2], y.shape[3], y, ctx.dtype)
        ctx.kernels.concat_elu_backward(gradients[0], y, kept, ctx.factor, inner)
        return whole, inner if ctx.adds else None, None, None, None


class _GatedResidual(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gates: Tensor, kernels: _Kernels) -> Tensor:
        inner = gates[:, :, : x.shape[2], : x.shape[3]]
        out = _new(x.shape, x, x.dtype)
        kernels.gated_residual(x, inner, out)
        ctx.save_for_backward(inner)
        ctx.kernels, ctx.shape = kernels, gates.shape
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inner,) = ctx.saved_tensors
        whole, of_inner = _bordered(ctx.shape, inner.shape[2], inner.shape[3], inner, inner.dtype)
        ctx.kernels.gated_residual_backward(gradients[0], inner, of_inner)
        return gradients[0], whole, None


class _Forgetful:
    """In the place of autograd's memory where nothing will be differentiated: at single pixels autograd costs most."""

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...


class Activations:
    """The nonlinearity of a network, with dropout behind it, and the gate of its resnets.

    Args:
        nonlinearity: ``concat_elu``: elu([x, -x]); ``elu``; ``relu``.
    """

    def __init__(self, nonlinearity: str) -> None:
        if nonlinearity not in ("concat_elu", "elu", "relu"):
            raise ValueError(f"nonlinearity is concat_elu, elu or relu, not {nonlinearity}")
        self.nonlinearity = nonlinearity
        self.kernels = _Kernels()

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
            kept = None if dropout is None else dropout.kept((B, 2 * channels, H, W))
            factor = 1.0 if dropout is None else dropout.factor
            if torch.is_grad_enabled():
                return _ConcatElu.apply(x, added, kept, factor, self.kernels)
            return _ConcatElu.forward(_Forgetful(), x, added, kept, factor, self.kernels)
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

    def compile(self) -> None:
        """Compiled loops from now on."""
        self.kernels = _CompiledKernels()
