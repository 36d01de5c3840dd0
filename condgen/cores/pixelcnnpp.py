"""PixelCNN++ (Salimans et al. 2017, section 2 and Figure 2): two streams at several resolutions, whole pixels.

Legend: B images, C colour channels, F filters, n the side of a layer's field, m = n // 2, H x W pixels, R resnets of a
block, k a scale: 0 for full resolution, sides halved from each to the next.

The vertical stream ``u`` knows the rows above a pixel; the horizontal one ``ul`` those and what lies to the left. Both
go down through strided convolutions and up again through transposed ones; short-cuts bring what a block on the way
down found to the block of the same resolution on the way up. There are no masks: both streams *start* shifted by a
pixel, and every layer after that may read its own place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from condgen.cores.activations import Activations
from condgen.cores.cache import Cache
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

    def vertical(
        self, x: Tensor, terms: Terms, dropout: Dropout | None = None, cache: Cache | None = None
    ) -> list[Any]:
        """See ``TwoStreams``: u after each of its resnets, in order; None for those of a scale that is not due."""
        if cache is None:
            return self._vertical(x, terms, dropout, None)
        kind = "vertical", cache.kind_of_row(len(self.down))
        found: list[Any] = cache.along_row(kind, lambda: self._vertical(x, terms, None, cache), x)
        return found

    def _vertical(self, x: Tensor, terms: Terms, dropout: Dropout | None, cache: Cache | None) -> list[Any]:
        u, found = self.start(x, cache)
        us: list[Feature | None] = [None] * sum(len(block.u) for half in (self.down, self.up) for block in half)

        def step(number: int, resnet: nn.Module, u: Feature, *short_cut: Feature, cache: Cache | None) -> Feature:
            us[number] = u = resnet(u, terms, dropout, *short_cut, cache=cache)
            return u

        self._down_and_up("u", u, step, cache)
        return [*found, *us]

    def horizontal(
        self,
        x: Tensor,
        vertical: list[Any],
        terms: Terms,
        dropout: Dropout | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """See ``TwoStreams``."""
        if cache is not None:
            kind = "horizontal", cache.kind_of_place(len(self.down))
            pixel: Tensor = cache.at_pixel(kind, lambda: self._horizontal(x, vertical, terms, None, cache), x)
            return pixel
        return self._horizontal(x, vertical, terms, dropout, None)

    def _horizontal(
        self, x: Tensor, vertical: list[Any], terms: Terms, dropout: Dropout | None, cache: Cache | None
    ) -> Tensor:
        above, *us = vertical

        def step(number: int, resnet: nn.Module, ul: Feature, *short_cut: Feature, cache: Cache | None) -> Feature:
            ul = resnet(ul, terms, dropout, us[number], *short_cut, cache=cache)
            return ul

        features = self._down_and_up("ul", self.start_horizontal(x, above, cache), step, cache).x
        return features if cache is None else features.image()

    def _down_and_up(self, stream: str, feature: Feature, step: Callable[..., Feature], cache: Cache | None) -> Feature:
        """Takes a stream through all blocks; ``step(number, resnet, feature, *short_cut, cache=...)`` is one resnet.

        With a cache a coarse scale takes part only where it is due; elsewhere the finer ones hear its last word.
        """
        left = [feature]  # what the way down leaves for the way up, last in, first out
        number, bottom = 0, True
        for scale, block in enumerate(self.down):
            here = None if cache is None else cache.at(scale)
            for resnet in getattr(block, stream):
                feature = step(number, resnet, feature, cache=here)
                left.append(feature)
                number += 1
            if block.resizes:
                x = getattr(block, f"{stream}_resize")(feature.x, cache=here)
                if x is None:
                    bottom = False
                    break
                feature = self._feature(x)
                left.append(feature)
        number = sum(len(block.u) for block in self.down)
        coarse: Feature | None = left.pop() if bottom else None
        for scale, block in zip(reversed(range(len(self.up))), self.up, strict=True):
            if coarse is not None:
                here = None if cache is None else cache.at(scale)
                for k, resnet in enumerate(getattr(block, stream)):
                    short_cut = [left.pop()] if self.short_cuts else []
                    coarse = step(number + k, resnet, coarse, *short_cut, cache=here)
            number += len(block.u)
            if block.resizes and (cache is None or self._due(stream, cache, scale - 1)):
                finer = None if cache is None else cache.at(scale - 1)
                x = getattr(block, f"{stream}_resize")(None if coarse is None else coarse.x, cache=finer)
                coarse = self._feature(x)
        if coarse is None:
            raise AssertionError("full resolution is always due")
        return coarse

    @staticmethod
    def _due(stream: str, cache: Cache, scale: int) -> bool:
        return cache.row_is_due(scale) if stream == "u" else cache.pixel_is_due(scale)

    def sees(self, row: int, column: int, height: int, width: int) -> Tensor:
        """Which pixels the parameters at (row, column) depend on, the own one aside: bool (H, W).

        Not every earlier one: odd rows of coarse cells are known to full resolution alone. See ``pyramid_sees``.
        """
        if self.recall is not None:
            return everything_before(row, column, height, width)
        counts = [len(block.u) for block in self.down], [len(block.u) for block in self.up]
        return pyramid_sees(row, column, height, width, *counts, self.field, self.short_cuts)
