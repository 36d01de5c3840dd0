"""PixelCNN++ of a small field (Salimans et al. 2017, section 3.3 and Table 2): one block at full resolution.

Legend: B images, F filters, n the side of a layer's field, m = n // 2, R resnets that look around, H x W pixels.

What it sees follows from R: 4R + 3 columns of 2R + 2 rows above a pixel and 2R + 1 pixels to its left (n = 3): R = 3 is
the paper's 15x8. Its 11x5 is R = 2, with 6 rows: no R sees 5 rows of 11 columns.

The paper says little more than that. We read it so:

- The two streams, the starts, the resnets and the way out are PixelCNN++'s; there is no other scale.
- In PixelCNN++ u enters ul between two convolutions, the second of which moves what u knows by a row and a column:
  ``plain`` would see 16x9 pixels. Here each resnet that looks around takes what u was *before* the same resnet, and in
  the end a 1x1 resnet takes the last u, so that the field is u's own and the paper's.
- ``nin`` ("3 NIN blocks between every other layer"): a resnet has two layers, so three 1x1 resnets follow each, in
  both streams.
- ``channels`` ("skip connections between sets of channels via 1x1 convolution gated ResNet block"): after each resnet
  the channels are split into four sets; every set but the first is the input of a 1x1 resnet that has all earlier
  sets, as they have become, for auxiliary input; in ul also the same set of u.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from condgen.cores.activations import Activations
from condgen.cores.cache import Cache
from condgen.cores.conditioning import Conditioning, Terms
from condgen.cores.layers import Dropout
from condgen.cores.promise import everything_before, rectangle_sees
from condgen.cores.steps import Here, joined
from condgen.cores.two_streams import Feature, GatedResnet, TwoStreams

POINTWISE_RESNETS = 3
"""That ``nin`` has after each resnet."""
SETS = 4
"""Of channels."""


class ChannelSets(nn.Module):
    """Connections from set to set of a stream's channels, each through a 1x1 resnet: (B, F, H, W) -> the same.

    Args:
        auxiliary: number of other features, of whose channels each resnet gets the set that is its own.

    Raises:
        ValueError: F does not divide by the number of sets.
    """

    def __init__(
        self, stream: str, filters: int, field: int, activation: Activations, conditioning: Conditioning, *,
        auxiliary: int,
    ) -> None:  # fmt: skip
        super().__init__()
        if filters % SETS:
            raise ValueError(f"filters must divide by {SETS}, not be {filters}")
        self.activation = activation
        self.resnets: Any = nn.ModuleList(
            GatedResnet(
                stream, filters // SETS, field, activation, conditioning,
                auxiliary=k + auxiliary, scale=0, pointwise=True,
            )
            for k in range(1, SETS)
        )  # fmt: skip

    def forward(
        self, feature: Feature, terms: Terms, dropout: Dropout | None, *auxiliary: Feature, cache: Cache | None = None
    ) -> Feature:
        sets, *others = (self._split(x, i, cache) for i, x in enumerate((feature, *auxiliary)))
        for k, resnet in enumerate(self.resnets, start=1):
            sets[k] = resnet(sets[k], terms, dropout, *sets[:k], *(other[k] for other in others), cache=cache)
        parts = [part.x for part in sets]
        return Feature(torch.cat(parts, dim=1) if cache is None else joined(self, parts, cache), self.activation)

    def _split(self, feature: Feature, number: int, cache: Cache | None) -> list[Feature]:
        if cache is None:
            parts = feature.x.chunk(SETS, dim=1)
        else:
            signed = feature.x.signed
            parts = cache.of(self, lambda: [Here(part) for part in signed.chunk(SETS, dim=-1)], f"sets {number}")
        return [Feature(x, self.activation) for x in parts]


class SmallFieldPixelCNN(TwoStreams):
    """The core: see the head of this file.

    Args:
        resnets: R, those of a stream that look around.
        variant: ``plain``, ``nin`` or ``channels``: what follows each of them.

    The others as in ``TwoStreams``.

    Raises:
        ValueError: an even field or one of 1; filters that do not divide into the sets of ``channels``.
    """

    def __init__(
        self, channels: int, outputs: int, conditioning: Conditioning, *, filters: int, resnets: int, variant: str,
        field: int, nonlinearity: str, dropout: float, full_sight: bool,
    ) -> None:  # fmt: skip
        super().__init__(
            channels, outputs, conditioning, filters=filters, field=field, nonlinearity=nonlinearity, dropout=dropout,
            full_sight=full_sight,
        )  # fmt: skip
        self.resnets = resnets

        def resnet(stream: str, auxiliary: int, pointwise: bool) -> GatedResnet:
            return GatedResnet(
                stream, filters, field, self.activation, conditioning,
                auxiliary=auxiliary, scale=0, pointwise=pointwise,
            )  # fmt: skip

        def following(stream: str, auxiliary: int) -> list[nn.Module]:
            if variant == "nin":
                return [resnet(stream, auxiliary, True) for _ in range(POINTWISE_RESNETS)]
            if variant == "channels":
                return [ChannelSets(stream, filters, field, self.activation, conditioning, auxiliary=auxiliary)]
            return []

        self.u: Any = nn.ModuleList()
        self.ul: Any = nn.ModuleList()
        for r in range(resnets):
            self.u.extend([resnet("u", 0, False), *following("u", 0)])
            self.ul.extend([resnet("ul", int(r > 0), False), *following("ul", 1)])
        self.close = resnet("ul", 1, True)

    def vertical(
        self, x: Tensor, terms: Terms, dropout: Dropout | None = None, cache: Cache | None = None
    ) -> list[Any]:
        """See ``TwoStreams``: u after each of its steps, in order."""
        if cache is None:
            return self._vertical(x, terms, dropout, None)
        found: list[Any] = cache.along_row("vertical", lambda: self._vertical(x, terms, None, cache), x)
        return found

    def _vertical(self, x: Tensor, terms: Terms, dropout: Dropout | None, cache: Cache | None) -> list[Any]:
        u, found = self.start(x, cache)
        for step in self.u:
            u = step(u, terms, dropout, cache=cache)
            found.append(u)
        return found

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
            pixel: Tensor = cache.at_pixel("horizontal", lambda: self._horizontal(x, vertical, terms, None, cache), x)
            return pixel
        return self._horizontal(x, vertical, terms, dropout, None)

    def _horizontal(
        self, x: Tensor, vertical: list[Any], terms: Terms, dropout: Dropout | None, cache: Cache | None
    ) -> Tensor:
        above, *us = vertical
        ul = self.start_horizontal(x, above, cache)
        for i, step in enumerate(self.ul):
            looks_around = i % (len(self.ul) // self.resnets) == 0
            told = us[max(0, i - 1) : i] if looks_around else [us[i]]
            ul = step(ul, terms, dropout, *told, cache=cache)
        features = self.close(ul, terms, dropout, us[-1], cache=cache).x
        return features if cache is None else features.image()

    def sees(self, row: int, column: int, height: int, width: int) -> Tensor:
        """Which pixels the parameters at (row, column) depend on, the own one aside: bool (H, W)."""
        if self.recall is not None:
            return everything_before(row, column, height, width)
        m = self.field // 2
        side = (2 * self.resnets + 1) * m  # the start, and two convolutions of each resnet
        return rectangle_sees(
            row, column, height, width, rows_above=side + 1, to_either_side=side, to_the_left=2 * self.resnets * m + 1
        )

    def extra_repr(self) -> str:
        m = self.field // 2
        side = (2 * self.resnets + 1) * m
        return f"sees {side + 1} rows of {2 * side + 1} columns above, {2 * self.resnets * m + 1} pixels to the left"
