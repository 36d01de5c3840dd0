"""What steps are made of: buffers for the row or the pixel in hand, strips of what lies around it, the nonlinearity.

A step computes, at the cache's row and a column, exactly what a layer gives there for a whole image. It is a closure
over buffers that are there once for all places, views of them that are cut out beforehand for every column, and the
layer's weights: at a pixel nothing is allocated, sliced or looked up. Vertical layers leave steps for whole rows,
horizontal ones for pixels, whose column they are given (``layers_steps.py``, ``two_streams_steps.py``,
``gated_steps.py``).

Legend: B images, C channels, kh x kw a layer's kernel, W pixels of a row at the layer's resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condgen import native
from condgen.cores.cache import Cache, Step


class Here:
    """A tensor at the place in hand, a buffer that every place overwrites: (B, C) at a pixel, (B, W, C) along a row.

    Attributes:
        values: (B, C) or (B, W, C).
        signed: (2, B, C) or (2, B, W, C): the values, and room for what is minus them, which concat_elu takes too.
        strip: where readers that look around find what the nonlinearity makes of it, or it itself.
        to_strip: the step that writes it there.
    """

    def __init__(self, signed: Tensor) -> None:
        self.signed = signed
        self.values = signed[0]
        self.strip: Strip | None = None
        self.to_strip: Step | None = None

    @classmethod
    def of(cls, places: Sequence[int], channels: int, like: Tensor) -> Here:
        """``places``: (B,) or (B, W)."""
        return cls(like.new_zeros(2, *places, channels))

    @property
    def by_rows(self) -> bool:
        return self.values.dim() == 3

    def image(self) -> Tensor:
        """Of a pixel, (B, C, 1, 1)."""
        return self.values[:, :, None, None]


class Strip:
    """A layer's input along the row in hand, as far as it is computed, and the rows above it; zeros outside the image.

    Args:
        kernel: (kh, kw) of the layer that reads it.

    Attributes:
        places: where the input of the row in hand is written: for each column (B, C), or for all columns (B, W, C).
    """

    places: list[Tensor]

    def begin_row(self) -> None:
        """Makes room for the row in hand."""


class PixelStrip(Strip):
    """For a layer that reads pixel after pixel, up to kw - 1 to its left.

    Attributes:
        kept: (B, rows, kw - 1 + W, C), the oldest row first. It has the kh - 1 rows above the one in hand until that
            one is begun; then the oldest makes room for it.
        windows: for each column that pixel after those to its left, (B, kw C).
    """

    def __init__(self, batch: int, channels: int, kernel: Sequence[int], width: int, like: Tensor) -> None:
        rows, columns = kernel
        self.columns = columns
        self.kept = like.new_zeros(batch, max(1, rows - 1), columns - 1 + width, channels)
        last = self.kept[:, -1]
        self.places = [last[:, columns - 1 + c] for c in range(width)]
        self.windows = [last[:, c : c + columns].view(batch, -1) for c in range(width)]

    def above(self) -> Tensor:
        """(B, C, kh - 1, kw - 1 + W), as convolutions take it; before the row in hand is begun."""
        return self.kept.permute(0, 3, 1, 2)

    def begin_row(self) -> None:
        _up(self.kept)


class RowStrip(Strip):
    """For a layer that reads whole rows, kw // 2 columns to either side.

    Attributes:
        whole: (B, C, kh, W + kw - 1), as convolutions take it, the row in hand last.
        row: the row in hand alone, (B, C, 1, W).
    """

    def __init__(self, batch: int, channels: int, kernel: Sequence[int], width: int, like: Tensor) -> None:
        rows, columns = kernel
        m = columns // 2
        self._kept = like.new_zeros(batch, rows, width + 2 * m, channels)
        self.whole = self._kept.permute(0, 3, 1, 2)
        self.row = self.whole[:, :, -1:, m : m + width]
        self.places = [self._kept[:, -1, m : m + width]]

    def begin_row(self) -> None:
        _up(self._kept)


def _up(rows: Tensor) -> None:
    """(B, rows, ...): the last one is free, the others hold what came after them."""
    if rows.shape[1] == 2:
        rows[:, 0].copy_(rows[:, 1])
    elif rows.shape[1] > 2:
        rows[:, :-1] = rows[:, 1:].clone()


def flat(row: Tensor) -> Tensor:
    """(B, C, 1, W) -> (B, W, C)."""
    return row[:, :, 0].transpose(1, 2)


def matrix(weight: Tensor) -> Tensor:
    """The last row of a kernel (outputs, inputs, kh, kw) as a matrix for windows, (kw inputs, outputs)."""
    return weight.detach()[:, :, -1].permute(2, 1, 0).flatten(0, 1).contiguous()


def activate(nonlinearity: str, x: Here, out: Sequence[Tensor], compiled: bool = False) -> Step:
    """The step that writes the nonlinearity of ``x`` to ``out``, for each column; of concat_elu 2 C channels."""
    values = x.values
    if compiled and nonlinearity == "concat_elu" and not x.by_rows:
        fields = [len(values), values.shape[1], *way([values]), *way(out)]
        return native.step("concat_elu_pixel", *fields)
    if nonlinearity == "relu":
        return lambda c: torch.clamp(values, 0, out=out[c])
    if nonlinearity == "concat_elu" and values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64):
        return _concat_elu_of_numpy(x.signed, out)
    below = torch.empty_like(values, memory_format=torch.contiguous_format)
    one = below.new_ones(())  # a number would be made a tensor in every call
    exp_, sub_ = below.exp_, below.sub_
    if nonlinearity == "elu":

        def elu(c: int) -> None:
            torch.clamp(values, max=0, out=below)
            exp_()
            sub_(one)
            torch.maximum(values, below, out=out[c])

        return elu
    signed, negative, wide, both = x.signed, x.signed[1], below[None], _halves(out)
    neg, minimum, maximum = torch.neg, torch.minimum, torch.maximum

    def concat_elu(c: int) -> None:
        neg(values, out=negative)
        minimum(values, negative, out=below)  # -|x|
        exp_()
        sub_(one)
        maximum(signed, wide, out=both[c])  # elu(x) = max(x, e^-|x| - 1), and so is elu(-x)

    return concat_elu


def _halves(out: Sequence[Tensor]) -> list[Tensor]:
    """Of (..., 2 C) each the half for x and the one for -x, (2, ..., C)."""
    return [y.unflatten(-1, (2, -1)).movedim(-2, 0) for y in out]


def _concat_elu_of_numpy(signed: Tensor, out: Sequence[Tensor]) -> Step:
    """On a CPU numpy's functions over the same memory cost half of torch's operators, which are made for more."""
    both, whole = [y.numpy() for y in _halves(out)], signed.numpy()
    values, negative = whole
    below, zero = np.empty_like(values), np.zeros((), values.dtype)
    subtract, minimum, expm1, maximum = np.subtract, np.minimum, np.expm1, np.maximum

    def concat_elu(c: int) -> None:
        subtract(zero, values, negative)  # numpy 2.4's own ``negative`` errs where values lie 16 bytes apart
        minimum(values, negative, out=below)  # -|x|
        expm1(below, below)
        maximum(whole, below, out=both[c])  # elu(x) = max(x, e^-|x| - 1), and so is elu(-x)

    return concat_elu


def joined(layer: Any, parts: list[Here], cache: Cache) -> Here:
    """Channels of several tensors side by side, for ``layer``."""

    def make() -> tuple[Step, Here]:
        values = [part.values for part in parts]
        y = Here.of(values[0].shape[:-1], sum(x.shape[-1] for x in values), values[0])
        return lambda c: torch.cat(values, -1, out=y.values), y

    step, y = cache.of(layer, make, "joined")
    cache.step(step)
    return y


def put(row: Tensor, buffer: Tensor) -> None:
    """(B, C, 1, W) into a buffer for what a row brings to each of its pixels, (W, B, C)."""
    buffer.copy_(row[:, :, 0].permute(2, 0, 1))


def way(columns: Sequence[Tensor] | None) -> tuple[Tensor | None, int, int]:
    """Where a kernel finds column c of (B, ...): the first one, and how far apart images and columns are."""
    if columns is None:
        return None, 0, 0
    first, size = columns[0], columns[0].element_size()
    return first, first.stride(0), (columns[1].data_ptr() - first.data_ptr()) // size if len(columns) > 1 else 0
