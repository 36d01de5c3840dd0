"""PixelCNN++ (Salimans et al. 2017, section 2 and Figure 2): two streams at several resolutions, whole pixels.

Legend: B images, C colour channels, F filters, n the side of a layer's field, m = n // 2, H x W pixels, R resnets of a
block, k a scale: 0 for full resolution, sides halved from each to the next.

The vertical stream ``u`` knows the rows above a pixel; the horizontal one ``ul`` those and what lies to the left. Both
go down through strided convolutions and up again through transposed ones; short-cuts bring what a block on the way
down found to the block of the same resolution on the way up. There are no masks: both streams *start* shifted by a
pixel, and every layer after that may read its own place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from condgen.cores.activations import Activations
from condgen.cores.conditioning import Conditioning, Terms
from condgen.cores.layers import CornerConv, Dropout, UpConv, VerticalConv
from condgen.cores.promise import everything_before, pyramid_sees
from condgen.cores.two_streams import Feature, GatedResnet, TwoStreams
from condgen.cores.weight_norm import weight_normalised


class Block(nn.Module):
    """The resnets of one resolution in one half, stream by stream, and the way to the next resolution, if any.

    Args:
        auxiliary: other features that enter the resnets of u; those of ul get u's as well.
        resize: "down", "up" or "" for the last block of a half.
    """

    def __init__(
        self, resnets: int, filters: int, field: int, activation: Activations, conditioning: Conditioning, *,
        auxiliary: int, scale: int, resize: str,
    ) -> None:  # fmt: skip
        super().__init__()
        rows = field // 2 + 1
        self.u: Any = nn.ModuleList()
        self.ul: Any = nn.ModuleList()
        for _ in range(resnets):
            self.u.append(GatedResnet("u", filters, field, activation, conditioning, auxiliary=auxiliary, scale=scale))
            self.ul.append(
                GatedResnet("ul", filters, field, activation, conditioning, auxiliary=auxiliary + 1, scale=scale)
            )
        self.u_resize: Any
        self.ul_resize: Any
        if resize == "down":
            self.u_resize = weight_normalised(VerticalConv(filters, filters, field, stride=2))
            self.ul_resize = weight_normalised(CornerConv(filters, filters, rows, rows, stride=2))
        elif resize == "up":
            self.u_resize = weight_normalised(UpConv(filters, filters, rows, field, offset=field // 2))
            self.ul_resize = weight_normalised(UpConv(filters, filters, rows, rows, offset=0))
        self.resizes = bool(resize)


class PixelCNNpp(TwoStreams):
    """The core: an image on [-1, 1] and a condition in, parameters of every pixel out, never looking ahead.

    Args:
        channels: C of the image.
        outputs: parameters of a pixel.
        filters: F.
        resnets: R. On the way down every block has R of them in each stream, on the way up the first R, the others
            R + 1: one for every feature that the way down left behind.
        scales: number of resolutions; H and W divide by 2^(scales - 1).
        field: n, odd, at least 3. The vertical stream's kernels are (m+1) x n, the horizontal one's (m+1) x (m+1).
        nonlinearity: ``concat_elu``, ``elu`` or ``relu``.
        dropout: probability of dropping an element between the two convolutions of a resnet in training.
        short_cuts: bring the features of the way down to the way up.
        full_sight: a path from all earlier pixels to each. Without it a pixel misses up to a few of the earliest ones
            in its row and the one above: coarse scales know only the rows above the coarse row's first line.

    Raises:
        ValueError: an even field or one of 1.
    """

    def __init__(
        self, channels: int, outputs: int, conditioning: Conditioning, *, filters: int, resnets: int, scales: int,
        field: int, nonlinearity: str, dropout: float, short_cuts: bool, full_sight: bool,
    ) -> None:  # fmt: skip
        super().__init__(
            channels, outputs, conditioning, filters=filters, field=field, nonlinearity=nonlinearity, dropout=dropout,
            full_sight=full_sight,
        )  # fmt: skip
        self.short_cuts = short_cuts

        def block(resnets: int, scale: int, half: str) -> Block:
            last = scale == (scales - 1 if half == "down" else 0)
            return Block(
                resnets, filters, field, self.activation, conditioning,
                auxiliary=int(half == "up" and short_cuts), scale=scale, resize="" if last else half,
            )  # fmt: skip

        self.down: Any = nn.ModuleList(block(resnets, k, "down") for k in range(scales))
        self.up: Any = nn.ModuleList(
            block(resnets if k == scales - 1 else resnets + 1, k, "up") for k in reversed(range(scales))
        )

    def vertical(self, x: Tensor, terms: Terms, dropout: Dropout | None = None) -> list[Any]:
        """What is known of the rows above: the two words of ``start``, then u after each of its resnets, in order, as
        ``Feature``. Never asks the horizontal stream."""
        u, found = self.start(x)
        left = [u]  # what the way down leaves for the way up, last in, first out
        for block in self.down:
            for resnet in block.u:
                u = resnet(u, terms, dropout)
                found.append(u)
                left.append(u)
            if block.resizes:
                u = self._feature(block.u_resize(u.x))
                left.append(u)
        u = left.pop()
        for block in self.up:
            for resnet in block.u:
                u = resnet(u, terms, dropout, *([left.pop()] if self.short_cuts else []))
                found.append(u)
            if block.resizes:
                u = self._feature(block.u_resize(u.x))
        return found

    def horizontal(self, x: Tensor, vertical: list[Any], terms: Terms, dropout: Dropout | None = None) -> Tensor:
        """The features of the head, (B, F, H, W): the rows above and what lies to the left in the row."""
        ul, *us = self.start_horizontal(vertical)
        next_u: Iterator[Feature] = iter(us)
        left = [ul]
        for block in self.down:
            for resnet in block.ul:
                ul = resnet(ul, terms, dropout, next(next_u))
                left.append(ul)
            if block.resizes:
                ul = self._feature(block.ul_resize(ul.x))
                left.append(ul)
        ul = left.pop()
        for block in self.up:
            for resnet in block.ul:
                ul = resnet(ul, terms, dropout, next(next_u), *([left.pop()] if self.short_cuts else []))
            if block.resizes:
                ul = self._feature(block.ul_resize(ul.x))
        return ul.x

    def sees(self, row: int, column: int, height: int, width: int) -> Tensor:
        """Which pixels the parameters at (row, column) depend on, the own one aside: bool (H, W).

        Not every earlier one: odd rows of coarse cells are known to full resolution alone. See ``pyramid_sees``.
        """
        if self.recall is not None:
            return everything_before(row, column, height, width)
        counts = [len(block.u) for block in self.down], [len(block.u) for block in self.up]
        return pyramid_sees(row, column, height, width, *counts, self.field, self.short_cuts)
