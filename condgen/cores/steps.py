"""The causal layers of ``layers.py`` at one pixel: the buffers of each, and the step that it leaves in a cache.

A step computes, at a column, exactly what the layer gives there for a whole image. It is a closure over buffers that
are there once for all pixels, views of them that are cut out beforehand for every column, and weights as matrices:
per pixel nothing is allocated, sliced or looked up.

Legend: B images, C channels, kh x kw a layer's kernel, s its stride, W pixels of a row at the layer's resolution.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from condgen.cores.cache import Cache, Step


class Row:
    """What is known of all pixels of the row in hand, (B, C, 1, W): the same object in every row, another tensor."""

    def __init__(self) -> None:
        self.x = torch.empty(0)


class Here:
    """A tensor at the pixel in hand, (B, C): a buffer that every pixel overwrites.

    Attributes:
        values: (B, C).
        signed: (B, 2, C): the values, and room for what is minus them, which concat_elu takes beside them.
    """

    def __init__(self, signed: Tensor) -> None:
        self.signed = signed
        self.values = signed[:, 0]
        self.strip: Strip | None = None

    def image(self) -> Tensor:
        """(B, C, 1, 1)."""
        return self.values[:, :, None, None]

    @classmethod
    def of(cls, batch: int, channels: int, like: Tensor) -> Here:
        return cls(like.new_zeros(batch, 2, channels))


class Strip:
    """A layer's input along the row in hand, as far as it is computed, and the rows above it; zeros outside the image.

    Args:
        kernel: (kh, kw) of the layer that reads it.

    Attributes:
        kept: (B, rows, columns - 1 + W, C), the oldest row first. It has the kh - 1 rows above the one in hand until
            that one is begun; then the oldest makes room for it.
        pixels: of the row in hand, for each column, (B, C).
        windows: the same pixel after those to its left, (B, kw C).
    """

    def __init__(self, batch: int, channels: int, kernel: tuple[int, ...], width: int, like: Tensor) -> None:
        rows, columns = kernel
        left = columns - 1
        self.columns = columns
        self.kept = like.new_zeros(batch, max(1, rows - 1), left + width, channels)
        last = self.kept[:, -1]
        self.pixels = list(last[:, left:].unbind(1))
        self.windows = [last[:, c : c + columns].view(batch, -1) for c in range(width)]

    def above(self) -> Tensor:
        """(B, C, kh - 1, kw - 1 + W), as convolutions take it."""
        return self.kept.permute(0, 3, 1, 2)

    def begin_row(self) -> None:
        if self.kept.shape[1] > 1:
            self.kept[:, :-1] = self.kept[:, 1:].clone()


def by_column(width: int, batch: int, channels: int, like: Tensor) -> Tensor:
    """A buffer for what a row brings to each of its pixels, (W, B, C); see ``put``."""
    return like.new_zeros(width, batch, channels)


def put(row: Tensor, buffer: Tensor) -> None:
    """(B, C, 1, W) into a buffer ``by_column``."""
    buffer.copy_(row[:, :, 0].permute(2, 0, 1))


def matrix(weight: Tensor) -> Tensor:
    """The last row of a kernel (outputs, inputs, kh, kw) as a matrix for windows, (kw inputs, outputs)."""
    return weight.detach()[:, :, -1].permute(2, 1, 0).flatten(0, 1).contiguous()


def activate(nonlinearity: str, x: Here, out: list[Tensor]) -> Step:
    """The step that writes the nonlinearity of ``x`` to ``out``, for each column (B, C), of concat_elu (B, 2 C)."""
    values = x.values
    if nonlinearity == "relu":

        def relu(c: int) -> None:
            torch.clamp(values, 0, out=out[c])

        return relu
    below = torch.empty_like(values)
    if nonlinearity == "elu":

        def elu(c: int) -> None:
            torch.clamp(values, max=0, out=below)
            torch.maximum(values, below.exp_().sub_(1), out=out[c])

        return elu
    signed, negative = x.signed, x.signed[:, 1]
    wide = below[:, None]
    both = [y.view(signed.shape) for y in out]

    def concat_elu(c: int) -> None:
        torch.neg(values, out=negative)
        torch.minimum(values, negative, out=below)  # -|x|
        below.exp_().sub_(1)
        torch.maximum(signed, wide, out=both[c])  # elu(x) = max(x, e^-|x| - 1), and so is elu(-x)

    return concat_elu


def corner_pixel(layer: Any, x: Here, cache: Cache) -> Here | None:
    """A ``CornerConv``; what the rows above bring is computed once a row, for the whole width."""
    kh, kw = layer.kernel_size
    s = layer.stride[0]
    weight = layer.weight.detach()
    B, width = len(x.values), cache.width

    def make() -> tuple[Strip, Tensor, Here]:
        strip = Strip(B, weight.shape[1], (kh, kw), width, weight)
        above = by_column(width // s, B, len(weight), weight)

        def begin() -> None:
            if cache.row % s == 0:
                put(F.conv2d(strip.above(), weight[:, :, :-1], layer.bias, (1, s)), above)
            strip.begin_row()

        cache.row_step(begin)
        return strip, above, Here.of(B, len(weight), weight)

    strip, above, y = cache.of(layer, make)
    here, values = strip.pixels, x.values
    if cache.row % s or cache.column % s:
        cache.step(lambda c: here[c].copy_(values))
        return None
    columns, windows, taps, out = above.unbind(0), strip.windows, matrix(weight), y.values

    def step(c: int) -> None:
        here[c].copy_(values)
        torch.addmm(columns[c // s], windows[c], taps, out=out)

    cache.step(step)
    return y


def up_pixel(layer: Any, x: Here | None, cache: Cache) -> Here:
    """An ``UpConv`` without offset; ``x`` is None where the coarse input has not moved."""
    kh, kw = layer.kernel_size
    weight, bias = layer.weight.detach(), layer.bias.detach()

    def make() -> tuple[Strip, Here]:
        # as many coarse rows and columns, up to the last, as reach here
        strip = Strip(cache.batch, len(weight), ((kh + 1) // 2 + 1, (kw + 1) // 2), cache.width // 2, weight)

        def begin() -> None:
            if cache.row % 2 == 0:
                strip.begin_row()

        cache.row_step(begin)
        return strip, Here.of(cache.batch, weight.shape[1], weight)

    strip, y = cache.of(layer, make)
    if x is not None:
        values, here = x.values, strip.pixels
        cache.step(lambda c: here[c // 2].copy_(values))
    sources = []
    for t, a in enumerate(range(cache.row % 2, kh, 2)):
        for u, b in enumerate(range(cache.column % 2, kw, 2)):
            row = strip.kept[:, -1 - t].unbind(1)[strip.columns - 1 - u :]
            sources.append((row, weight[:, :, a, b].contiguous()))
    (first, taps), *others = sources
    out = y.values

    def step(c: int) -> None:
        torch.addmm(bias, first[c // 2], taps, out=out)
        for row, more in others:
            torch.addmm(out, row[c // 2], more, out=out)

    cache.step(step)
    return y


def joined(layer: Any, parts: list[Here], cache: Cache) -> Here:
    """Channels of several tensors side by side, for ``layer``."""
    values = [part.values for part in parts]
    y = cache.of(layer, lambda: Here.of(len(values[0]), sum(x.shape[1] for x in values), values[0]), "joined")
    out = y.values
    cache.step(lambda c: torch.cat(values, 1, out=out))
    return y
