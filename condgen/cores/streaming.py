"""The causal layers of ``layers.py`` at one row, with what a cache remembers for them; ``steps.py`` has single pixels.

Each function gives, at the cache's row, exactly what the layer gives there for a whole image. A layer that halves the
resolution gives None where it has no output; one that doubles it takes None where its input has not moved.

Legend: B images, kh x kw a layer's kernel, s its stride, W pixels of a row at the resolution of the *input* (for
transposed convolutions: of the output).
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from condgen.cores.cache import Cache


class _Rows:
    """The last rows that a layer was given, (B, rows, W, C), oldest first; zeros before the image.

    Channels come last, so that convolutions need not turn what they are given.
    """

    def __init__(self, batch: int, channels: int, rows: int, columns: int, like: Tensor) -> None:
        self.kept = like.new_zeros(batch, rows, columns, channels)
        self.row = -1

    def enter(self, row: int) -> None:
        """Makes room for ``row``."""
        if row > self.row and row > 0:
            self.kept[:, :-1] = self.kept[:, 1:].clone()
        self.row = row

    def image(self, rows: slice = slice(None)) -> Tensor:
        """(B, C, rows, columns), as convolutions take it."""
        return self.kept[:, rows].permute(0, 3, 1, 2)


def vertical_row(layer: nn.Conv2d, x: Tensor, cache: Cache) -> Tensor | None:
    """Row ``cache.row`` of a ``VerticalConv``: (B, inputs, 1, W) -> (B, outputs, 1, W / s)."""
    kh, kw = layer.kernel_size
    rows = cache.of(layer, lambda: _Rows(len(x), x.shape[1], kh, x.shape[3], x))
    rows.enter(cache.row)
    rows.kept[:, -1:] = x.permute(0, 2, 3, 1)
    if cache.row % layer.stride[0]:
        return None
    return F.conv2d(rows.image(), layer.weight, layer.bias, layer.stride, (0, kw // 2))


def up_row(layer: Any, x: Tensor | None, cache: Cache) -> Tensor:
    """Fine row ``cache.row`` of an ``UpConv``: (B, inputs, 1, W / 2) -> (B, outputs, 1, W)."""
    kh = layer.kernel_size[0]
    rows = cache.of(layer, lambda: _Rows(len(_given(x)), layer.in_channels, (kh + 1) // 2, cache.width // 2, _given(x)))
    if x is not None:
        rows.enter(cache.row // 2)
        rows.kept[:, -1:] = x.permute(0, 2, 3, 1)
    y = rows.kept.new_zeros(1, 1, 1, 1) if layer.bias is None else layer.bias.view(1, -1, 1, 1)
    for t, a in enumerate(range(cache.row % 2, kh, 2)):
        last = rows.kept.shape[1] - 1 - t
        coarse = rows.image(slice(last, last + 1))  # (B, inputs, 1, W / 2)
        fine = F.conv_transpose2d(coarse, layer.weight[:, :, a : a + 1], stride=2)
        y = y + fine[..., layer.offset : layer.offset + cache.width]
    return y.expand(-1, -1, 1, cache.width)


def _given(x: Tensor | None) -> Tensor:
    if x is None:
        raise AssertionError("a coarse row comes before the fine ones that are made of it")
    return x
