"""The causal layers of ``layers.py`` at one row or one pixel, with what a cache remembers for them.

Each function gives, at the cache's place, exactly what the layer gives there for a whole image. A layer that halves the
resolution gives None where it has no output; one that doubles it takes None where its input has not moved.

Legend: B images, kh x kw a layer's kernel, s its stride, W pixels of a row at the resolution of the *input* (for
transposed convolutions: of the output).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condgen.cores.cache import Cache


class _Rows:
    """The last rows that a layer was given, (B, rows, columns, C), oldest first; zeros before the image.

    Channels come last, so that what lies beside each other in a row is a vector as it stands.
    """

    def __init__(self, batch: int, channels: int, rows: int, columns: int, like: Tensor) -> None:
        self.kept = like.new_zeros(batch, rows, columns, channels)
        self.row = -1
        self.above: Any = None
        """What a convolution makes of all but the last row, for every column of the output."""
        self.weights: dict[Any, Tensor] = {}
        """Parts of the layer's weight as matrices (inputs, outputs): cut out once, used at every pixel."""

    def enter(self, row: int) -> bool:
        """Makes room for ``row``; whether it is a new one."""
        if row == self.row:
            return False
        if row > 0:
            self.kept[:, :-1] = self.kept[:, 1:].clone()
        self.row = row
        return True

    def image(self, rows: slice = slice(None)) -> Tensor:
        """(B, C, rows, columns), as convolutions take it."""
        return self.kept[:, rows].permute(0, 3, 1, 2)


def _bias(layer: Any, like: Tensor) -> Tensor:
    return like.new_zeros(1, 1, 1, 1) if layer.bias is None else layer.bias.view(1, -1, 1, 1)


def vertical_row(layer: nn.Conv2d, x: Tensor, cache: Cache) -> Tensor | None:
    """Row ``cache.row`` of a ``VerticalConv``: (B, inputs, 1, W) -> (B, outputs, 1, W / s)."""
    kh, kw = layer.kernel_size
    rows = cache.of(layer, lambda: _Rows(len(x), x.shape[1], kh, x.shape[3], x))
    rows.enter(cache.row)
    rows.kept[:, -1:] = x.permute(0, 2, 3, 1)
    if cache.row % layer.stride[0]:
        return None
    return F.conv2d(rows.image(), layer.weight, layer.bias, layer.stride, (0, kw // 2))


def corner_pixel(layer: nn.Conv2d, x: Tensor, cache: Cache) -> Tensor | None:
    """A pixel of a ``CornerConv``: (B, inputs, 1, 1) -> (B, outputs, 1, 1).

    What the rows above bring is computed once a row, for the whole width.
    """
    kh, kw = layer.kernel_size
    s = layer.stride[0]
    rows = cache.of(layer, lambda: _Rows(len(x), x.shape[1], kh, cache.width + kw - 1, x))
    due = not cache.row % s and not cache.column % s
    if rows.enter(cache.row) and not cache.row % s:
        rows.above = _bias(layer, x).expand(len(x), -1, 1, cache.width // s)
        if kh > 1:
            rows.above = F.conv2d(rows.image(slice(-1)), layer.weight[:, :, :-1], layer.bias, (1, s))
    c = cache.column
    rows.kept[:, -1, c + kw - 1] = x[:, :, 0, 0]
    if not due:
        return None
    if not rows.weights:
        rows.weights[0] = layer.weight[:, :, -1].permute(2, 1, 0).flatten(0, 1).contiguous()  # (kw inputs, outputs)
    here = rows.kept[:, -1, c : c + kw].flatten(1)  # (B, kw inputs)
    return torch.addmm(rows.above[:, :, 0, c // s], here, rows.weights[0])[:, :, None, None]


def up_row(layer: Any, x: Tensor | None, cache: Cache) -> Tensor:
    """Fine row ``cache.row`` of an ``UpConv``: (B, inputs, 1, W / 2) -> (B, outputs, 1, W)."""
    kh = layer.kernel_size[0]
    rows = cache.of(layer, lambda: _Rows(len(_given(x)), layer.in_channels, (kh + 1) // 2, cache.width // 2, _given(x)))
    if x is not None:
        rows.enter(cache.row // 2)
        rows.kept[:, -1:] = x.permute(0, 2, 3, 1)
    y = _bias(layer, rows.kept)
    for t, a in enumerate(range(cache.row % 2, kh, 2)):
        last = rows.kept.shape[1] - 1 - t
        coarse = rows.image(slice(last, last + 1))  # (B, inputs, 1, W / 2)
        fine = F.conv_transpose2d(coarse, layer.weight[:, :, a : a + 1], stride=2)
        y = y + fine[..., layer.offset : layer.offset + cache.width]
    return y.expand(-1, -1, 1, cache.width)


def up_pixel(layer: Any, x: Tensor | None, cache: Cache) -> Tensor:
    """A fine pixel of an ``UpConv`` without offset: (B, inputs, 1, 1) -> (B, outputs, 1, 1)."""
    kh, kw = layer.kernel_size
    left = (kw + 1) // 2 - 1  # coarse columns to the left that reach here
    rows = cache.of(
        layer, lambda: _Rows(len(_given(x)), layer.in_channels, (kh + 1) // 2, cache.width // 2 + left, _given(x))
    )
    r, c = cache.row, cache.column
    if x is not None:
        rows.enter(r // 2)
        rows.kept[:, -1, c // 2 + left] = x[:, :, 0, 0]
    y = _bias(layer, rows.kept)
    for t, a in enumerate(range(r % 2, kh, 2)):
        for u, b in enumerate(range(c % 2, kw, 2)):
            if (a, b) not in rows.weights:
                rows.weights[a, b] = layer.weight[:, :, a, b].contiguous()
            coarse = rows.kept[:, rows.kept.shape[1] - 1 - t, c // 2 + left - u]  # (B, inputs)
            y = y + (coarse @ rows.weights[a, b])[:, :, None, None]
    return y.expand(len(rows.kept), -1, -1, -1)


def _given(x: Tensor | None) -> Tensor:
    if x is None:
        raise AssertionError("a coarse row or pixel comes before the fine ones that are made of it")
    return x


def masked_pixel(layer: Any, x: Tensor, cache: Cache) -> Tensor:
    """A pixel of a ``MaskedConv``: (B, inputs, 1, 1), or the row so far (B, inputs, 1, W), -> (B, outputs, 1, 1)."""
    reach = layer.kernel_size[1] - 1
    c = cache.column
    rows = cache.of(layer, lambda: _Rows(len(x), x.shape[1], 1, cache.width + reach, x))
    if not rows.weights:
        taps = (layer.weight * layer.mask)[:, :, 0]  # (outputs, inputs, reach + 1)
        rows.weights[0] = taps.permute(2, 1, 0).flatten(0, 1).contiguous()
    if x.shape[3] > 1:
        here = F.pad(x[:, :, 0, max(0, c - reach) : c + 1], (max(0, reach - c), 0)).transpose(1, 2)
    elif reach:
        rows.kept[:, 0, c + reach] = x[:, :, 0, 0]
        here = rows.kept[:, 0, c : c + reach + 1]
    else:
        here = x
    here = here.flatten(1)  # (B, (reach + 1) inputs)
    bias = layer.bias
    y = here @ rows.weights[0] if bias is None else torch.addmm(bias, here, rows.weights[0])
    return y[:, :, None, None]


class _Parts:
    """A ``Pointwise`` by the tensors it takes: its weights, and what it makes of those that come as whole rows."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []
        self.matrices: list[Tensor] = []
        self.row: dict[int, int] = {}
        self.of_row: dict[int, Tensor] = {}


def pointwise_pixel(layer: Any, tensors: tuple[Tensor, ...], cache: Cache) -> Tensor:
    """A pixel of a ``Pointwise``; what comes as a whole row (B, n, 1, W) is computed once for all of it."""
    state = cache.of(layer, _Parts)
    if not state.weights:
        state.weights = list(layer.weight.split(layer.inputs, dim=1))
        state.matrices = [part.flatten(1).t().contiguous() for part in state.weights]
    y = layer.bias.expand(len(tensors[0]), -1)  # (B, outputs)
    for k, x in enumerate(tensors):
        if x.shape[3] == 1:
            y = torch.addmm(y, x.flatten(1), state.matrices[k])
            continue
        if state.row.get(k) != cache.row:
            state.row[k], state.of_row[k] = cache.row, F.conv2d(x, state.weights[k])
        y = y + state.of_row[k][:, :, 0, cache.column]
    return y[:, :, None, None]
