"""What PixelCNN++ does between its convolutions, three times: in few of torch's own operators, as formulas for torch's
compiler, and in C. They are checked against each other and against plain autograd.

Legend: B images, F channels, H x W pixels. Tensors lie channels-last in memory. The last argument is what is written.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from condgen import native, streams
from condgen.cores.layers import Mask


def _wide(x: Tensor) -> Tensor:
    """At least fp32: e^-|x| - 1 of small x is nothing in bf16, and torch is slow where types are mixed."""
    return x if x.dtype == torch.float64 else x.float()


class Kernels:
    """In torch's own operators."""

    @staticmethod
    def concat_elu(x: Tensor, added: Tensor | None, mask: Mask | None, out: Tensor) -> None:
        """elu([v, -v]), dropped by ``mask``, of v = x, cropped to the size of ``out``, + added."""
        x = _wide(cropped(x, out) if added is None else cropped(x, out) + added)
        y = out if out.dtype == x.dtype else torch.empty_like(out, dtype=x.dtype)
        below = x.abs().neg_().exp_().sub_(1)  # elu(x) = max(x, e^-|x| - 1), and so is elu(-x) with this exponential
        channels = x.shape[1]
        torch.maximum(x, below, out=y[:, :channels])
        torch.maximum(-x, below, out=y[:, channels:])
        if mask is not None:
            y.mul_(mask.kept.to(y.dtype).mul_(mask.factor))
        if y is not out:
            out.copy_(y)

    @staticmethod
    def concat_elu_backward(g: Tensor, y: Tensor, mask: Mask | None, out: Tensor) -> None:
        """The gradient of x, zero where it was cropped, from the result alone: d elu = 1 above 0, elu + 1 below; both
        times the mask's factor."""
        inner = _inner(out, y)
        g = torch.ops.aten.elu_backward(g, 1.0, 1.0 if mask is None else mask.factor, 1.0, True, y)
        if mask is not None:
            g.mul_(mask.kept.to(g.dtype))
        channels = y.shape[1] // 2
        if g.dtype == out.dtype:
            torch.sub(g[:, :channels], g[:, channels:], out=inner)
        else:
            inner.copy_(g[:, :channels] - g[:, channels:])

    @staticmethod
    def gated_residual(x: Tensor, gates: Tensor, out: Tensor) -> None:
        """x + a sigmoid(b); the gates are cropped to the size of x."""
        a, b = cropped(gates, x).to(x.dtype).chunk(2, dim=1)
        torch.addcmul(x, a, b.sigmoid(), out=out)

    @staticmethod
    def gated_residual_backward(g: Tensor, gates: Tensor, out: Tensor) -> None:
        """The gradient of the gates, zero where they were cropped."""
        inner = _inner(out, g)
        a, b = cropped(gates, g).to(g.dtype).chunk(2, dim=1)
        both = inner if inner.dtype == g.dtype else torch.empty_like(inner, dtype=g.dtype)
        channels = a.shape[1]
        opening = b.sigmoid()
        of_a = torch.mul(g, opening, out=both[:, :channels])
        torch.mul(torch.addcmul(of_a, of_a, opening, value=-1), a, out=both[:, channels:])  # g s (1 - s) a
        if both is not inner:
            inner.copy_(both)


def cropped(x: Tensor, like: Tensor) -> Tensor:
    return x[:, :, : like.shape[2], : like.shape[3]]


def _inner(whole: Tensor, like: Tensor) -> Tensor:
    """The part of ``whole`` that has the size of ``like``; what lies beyond is made zero.

    The gradient of a tensor that was cropped is written in place instead of being copied into zeros.
    """
    rows, columns = like.shape[2:]
    whole[:, :, rows:] = 0
    whole[:, :, :, columns:] = 0
    return whole[:, :, :rows, :columns]


class FormulaKernels(Kernels):
    """As formulas, each of which torch's compiler turns into a loop over memory, for every size that comes."""

    def __init__(self) -> None:
        import torch._dynamo.config as dynamo  # late: it costs a second and 100 MB

        dynamo.recompile_limit = max(dynamo.recompile_limit, 64)
        # fullgraph would turn the 65th size, of a sampler or of another model, into an error instead of a slower loop
        build = functools.partial(torch.compile, dynamic=False)
        self._concat_elu, self._concat_elu_backward = build(_concat_elu), build(_concat_elu_backward)
        self._gated_residual, self._gated_residual_backward = build(_gated_residual), build(_gated_residual_backward)

    def concat_elu(self, x: Tensor, added: Tensor | None, mask: Mask | None, out: Tensor) -> None:  # type: ignore[override]
        x = cropped(x, out)
        self._concat_elu(x if added is None else x + added, *_kept(mask), out)

    def concat_elu_backward(self, g: Tensor, y: Tensor, mask: Mask | None, out: Tensor) -> None:  # type: ignore[override]
        self._concat_elu_backward(g, y, *_kept(mask), _inner(out, y))

    def gated_residual(self, x: Tensor, gates: Tensor, out: Tensor) -> None:  # type: ignore[override]
        self._gated_residual(x, cropped(gates, x), out)

    def gated_residual_backward(self, g: Tensor, gates: Tensor, out: Tensor) -> None:  # type: ignore[override]
        self._gated_residual_backward(g, cropped(gates, g), _inner(out, g))


def _kept(mask: Mask | None) -> tuple[Tensor | None, float]:
    return (None, 1.0) if mask is None else (mask.kept, mask.factor)


def _concat_elu(x: Tensor, kept: Tensor | None, factor: float, out: Tensor) -> None:
    x = _wide(x)
    below = torch.exp(-x.abs()) - 1
    y = torch.cat([torch.maximum(x, below), torch.maximum(-x, below)], dim=1)
    # a product: a choice by ``where`` is not vectorised; one copy: two of halves cost twice as much
    out.copy_(y if kept is None else y * (kept.to(y.dtype) * factor))


def _concat_elu_backward(g: Tensor, y: Tensor, kept: Tensor | None, factor: float, out: Tensor) -> None:
    g = _wide(g) * (_wide(y).clamp(max=0) + factor)
    if kept is not None:
        g = g * kept.to(g.dtype)
    channels = y.shape[1] // 2
    out.copy_(g[:, :channels] - g[:, channels:])


def _gated_residual(x: Tensor, gates: Tensor, out: Tensor) -> None:
    a, b = gates.to(out.dtype).chunk(2, dim=1)
    out.copy_(x + a * b.sigmoid())


def _gated_residual_backward(g: Tensor, gates: Tensor, out: Tensor) -> None:
    a, b = gates.to(g.dtype).chunk(2, dim=1)
    opening = b.sigmoid()
    of_a = g * opening
    out.copy_(torch.cat([of_a, of_a * a * (1 - opening)], dim=1))


class NativeKernels(Kernels):
    """In C (``kernels.c``), for tensors on a CPU in fp32 and bf16; others go the plain way."""

    def __init__(self) -> None:
        native.library()  # now, not in the first step

    @staticmethod
    def concat_elu(x: Tensor, added: Tensor | None, mask: Mask | None, out: Tensor) -> None:
        letters = native.letters(x, out) if added is None or added.dtype == x.dtype else None
        if letters is None:
            return Kernels.concat_elu(x, added, mask, out)
        B, channels, H, W = out.shape
        x, plus = _pixels(x, W), None if added is None else _pixels(added, W)
        strides = (0, 0) if plus is None else (plus.stride(0), plus.stride(2))
        sizes = (B, H, W, channels // 2, x.stride(0), x.stride(2), *strides)
        native.call("concat_elu", letters, x, plus, out, *sizes, *_drawn(mask))

    @staticmethod
    def concat_elu_backward(g: Tensor, y: Tensor, mask: Mask | None, out: Tensor) -> None:
        letters = native.letters(out, y)
        if letters is None or g.dtype != y.dtype:
            return Kernels.concat_elu_backward(g, y, mask, out)
        B, channels, H, W = y.shape
        g = g.contiguous(memory_format=torch.channels_last)
        native.call("concat_elu_backward", letters, g, y, out, B, H, W, channels // 2, *out.shape[2:], *_drawn(mask))

    @staticmethod
    def gated_residual(x: Tensor, gates: Tensor, out: Tensor) -> None:
        letters = native.letters(x, gates)
        if letters is None:
            return Kernels.gated_residual(x, gates, out)
        B, channels, H, W = x.shape
        x, gates = x.contiguous(memory_format=torch.channels_last), _pixels(gates, W)
        native.call("gated_residual", letters, x, gates, out, B, H, W, channels, gates.stride(0), gates.stride(2))

    @staticmethod
    def gated_residual_backward(g: Tensor, gates: Tensor, out: Tensor) -> None:
        letters = native.letters(g, gates)
        if letters is None:
            return Kernels.gated_residual_backward(g, gates, out)
        B, channels, H, W = g.shape
        g, gates = g.contiguous(memory_format=torch.channels_last), _pixels(gates, W)
        sizes = (B, H, W, channels, gates.stride(0), gates.stride(2), *out.shape[2:])
        native.call("gated_residual_backward", letters, g, gates, out, *sizes)


def _pixels(x: Tensor, width: int) -> Tensor:
    """x with channels innermost and the ``width`` pixels of a row one after the other."""
    if x.stride(1) == 1 and (width == 1 or x.stride(3) == x.shape[1]):
        return x
    return x.contiguous(memory_format=torch.channels_last)


def _drawn(mask: Mask | None) -> tuple[Tensor | None, int, int, float]:
    return (
        (None, 0, 0, 1.0)
        if mask is None
        else (mask.keys.contiguous(), streams.offset(mask.use), mask.threshold, mask.factor)
    )
