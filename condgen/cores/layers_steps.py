"""The causal layers of ``layers.py`` at one row or one pixel: their buffers, and the step each leaves in a cache (see
``steps.py``).

Legend: B images, C channels, kh x kw a layer's kernel, s its stride, W pixels of a row at the layer's resolution.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from condgen.cores.cache import Cache, Step
from condgen.cores.packed import Packed, packed
from condgen.cores.steps import Here, PixelStrip, RowStrip, flat, matrix, put


def vertical_row(layer: Any, x: Here, cache: Cache) -> Here | None:
    """A row of a ``VerticalConv``; None where a stride has none. Above the image, at row -1, zero."""
    s, batch = layer.stride[0], len(x.values)

    def make() -> tuple[Step, Step, Here]:
        convolution, like = cache.of_weights(layer, "row", lambda: packed(layer)), layer.bias.detach()
        strip = RowStrip(batch, layer.in_channels, layer.kernel_size, cache.width, like)
        y = Here.of((batch, cache.width // s), layer.out_channels, like)

        def take(c: int) -> None:
            if cache.row >= 0:
                strip.begin_row()
                strip.places[0].copy_(x.values)

        def give(c: int) -> None:
            if cache.row >= 0:
                y.values.copy_(flat(convolution(strip.whole)))

        return take, give, y

    take, give, y = cache.of(layer, make)
    cache.step(take)
    if cache.row % s:
        return None
    cache.step(give)
    return y


def corner_pixel(layer: Any, x: Here, cache: Cache) -> Here | None:
    """A pixel of a ``CornerConv``, whose share of rows above is computed once a row; None where a stride has none."""
    s = layer.stride[0]

    def make() -> tuple[Step, Step, Here]:
        B, width, like = len(x.values), cache.width, layer.bias.detach()
        strip = PixelStrip(B, layer.in_channels, layer.kernel_size, width, like)
        beside = cache.of_weights(layer, "above", lambda: Packed(layer.weight[:, :, :-1], layer.bias, (1, s)))
        above = like.new_zeros(width // s, B, layer.out_channels)
        y = Here.of((B,), layer.out_channels, like)

        def begin() -> None:
            if cache.row % s == 0:
                put(beside(strip.above()), above)
            strip.begin_row()

        cache.row_step(begin)
        values, out, places, windows, columns = x.values, y.values, strip.places, strip.windows, above.unbind(0)
        taps = cache.of_weights(layer, "taps", lambda: matrix(layer.weight))
        return (
            lambda c: places[c].copy_(values),
            lambda c: torch.addmm(columns[c // s], windows[c], taps, out=out),
            y,
        )

    take, give, y = cache.of(layer, make)
    cache.step(take)
    if cache.row % s or cache.column % s:
        return None
    cache.step(give)
    return y


def up_row(layer: Any, x: Here | None, cache: Cache) -> Here:
    """A fine row of an ``UpConv``; ``x`` is None where the coarse input has not moved."""
    kh = layer.kernel_size[0]
    bias = layer.bias.detach()
    weight = cache.of_weights(layer, "weight", lambda: layer.weight.detach())

    def make() -> tuple[RowStrip, Here]:
        strip = RowStrip(cache.batch, len(weight), ((kh + 1) // 2, 1), cache.width // 2, bias)
        return strip, Here.of((cache.batch, cache.width), weight.shape[1], bias)

    strip, y = cache.of(layer, make)
    if x is not None:
        values = x.values

        def take(c: int) -> None:
            strip.begin_row()
            strip.places[0].copy_(values)

        cache.step(take)
    taps = range(cache.row % 2, kh, 2)

    def give(c: int) -> None:
        y.values.copy_(bias)
        for t, a in enumerate(taps):
            last = strip.whole.shape[2] - 1 - t
            fine = F.conv_transpose2d(strip.whole[:, :, last : last + 1], weight[:, :, a : a + 1], stride=2)
            y.values.add_(flat(fine[..., layer.offset : layer.offset + cache.width]))

    cache.step(give)
    return y


def up_pixel(layer: Any, x: Here | None, cache: Cache) -> Here:
    """A fine pixel of an ``UpConv`` without offset; ``x`` is None where the coarse input has not moved."""
    kh, kw = layer.kernel_size

    def make() -> tuple[PixelStrip, Here]:
        # as many coarse rows and columns, up to the last, as reach here
        coarse = (kh + 1) // 2 + 1, (kw + 1) // 2
        strip = PixelStrip(cache.batch, layer.in_channels, coarse, cache.width // 2, layer.bias.detach())

        def begin() -> None:
            if cache.row % 2 == 0:
                strip.begin_row()

        cache.row_step(begin)
        return strip, Here.of((cache.batch,), layer.out_channels, layer.bias.detach())

    strip, y = cache.of(layer, make)
    row, column = cache.row % 2, cache.column % 2

    def make_step() -> Step:
        weight = cache.of_weights(layer, "weight", lambda: layer.weight.detach())
        bias, out = layer.bias.detach(), y.values
        sources = []
        for t, a in enumerate(range(row, kh, 2)):
            for u, b in enumerate(range(column, kw, 2)):
                places = strip.kept[:, -1 - t].unbind(1)[strip.columns - 1 - u :]
                sources.append((places, weight[:, :, a, b].contiguous()))
        (first, taps), *others = sources

        def step(c: int) -> None:
            torch.addmm(bias, first[c // 2], taps, out=out)
            for places, more in others:
                torch.addmm(out, places[c // 2], more, out=out)

        return step

    if x is not None:
        values, here = x.values, strip.places
        cache.step(lambda c: here[c // 2].copy_(values))
    cache.step(cache.of(layer, make_step, f"{row} {column}"))
    return y
