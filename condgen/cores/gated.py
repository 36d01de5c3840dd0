"""Gated PixelCNN (van den Oord et al. 2016, section 2 and Figure 2): two stacks, no blind spot, any condition.

Legend: B images, C colour channels, p feature maps after the gate, n x n a layer's field, m = n // 2, H x W pixels.

The vertical stack describes the rows above a pixel, over all columns within reach; the horizontal stack what lies to
its left, plus, in every layer, what the vertical stack knows about the rows above. Each convolution yields 2p
pre-activations, p for the tanh and p for the sigmoid of the gate (eq. 2).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condgen.condition import Condition
from condgen.cores.cache import Cache
from condgen.cores.conditioning import Conditioning, Terms
from condgen.cores.gated_steps import gated_head_pixel, gated_pixel, gated_row, image_pixel, image_row, linear_pixel
from condgen.cores.layers import (
    Dropout,
    Link,
    MaskedConv,
    VerticalConv,
    colour_groups,
    gate,
    shift_down,
    start_weights,
)
from condgen.cores.promise import rectangle_sees
from condgen.cores.steps import Here


class GatedLayer(nn.Module):
    """One layer of Figure 2: both stacks, the link between them, the condition's terms.

    Args:
        groups_in: colour group of each input map of the horizontal stack; the raw image's channels in the first layer.
        colours: number of colour groups; 1 for whole pixels.
        first: mask A and no residual, which would show the current pixel to itself.
        skip: adds a 1x1 skip to the head (not in the paper; common since).
        last: the head takes the skip alone, so nobody would read this layer's horizontal output.
    """

    def __init__(
        self, groups_in: Tensor, filters: int, field: int, colours: int, conditioning: Conditioning,
        *, first: bool, skip: bool, last: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.first = first
        m = field // 2
        groups = colour_groups(filters, colours)
        halves = torch.cat([groups, groups])  # the tanh and the sigmoid half are grouped alike, each by itself
        self.vertical_conv = VerticalConv(len(groups_in), 2 * filters, field)  # the vertical stack has no colours
        self.link = Link(2 * filters)
        self.horizontal_conv = MaskedConv(groups_in, halves, reach=m, kind="A" if first else "B", bias=False)
        self.vertical_bias = conditioning.bias(2 * filters)
        self.horizontal_bias = conditioning.bias(2 * filters)
        self.out = None if skip and last else MaskedConv(groups, groups)
        self.skip = MaskedConv(groups, groups) if skip else None
        # Pre-activations start with a standard deviation of about 1 in every layer; a gate turns that into a third.
        start_weights(self.vertical_conv, 2.0 if first else 3.0)
        start_weights(self.link, 0.7)
        start_weights(self.horizontal_conv, 1.4 if first else 0.7)
        for after_gate in (self.out, self.skip):
            if after_gate is not None:
                start_weights(after_gate, 2.0)

    def vertical(self, v: Any, terms: Terms, dropout: Dropout | None, cache: Cache | None = None) -> tuple[Any, Any]:
        """(B, inputs, H, W) -> the next layer's v (B, p, H, W) and the link (B, 2p, H, W), which knows rows < r.

        With a cache: of the row above that and the link of this one.
        """
        if cache is not None:
            return gated_row(self, v, terms, cache)
        # the vertical term goes in before the link is tapped: then the last layer's has a reader too
        a = terms.added(self.vertical_conv(v), self.vertical_bias)  # (B, 2p, H, W), row r knows rows <= r
        v = gate(a)  # no residual: the paper found no gain
        return v if dropout is None else dropout(v), self.link(a)

    def horizontal(
        self, z: Any, link: Any, terms: Terms, features: Any, dropout: Dropout | None, cache: Cache | None = None
    ) -> tuple[Any, Any]:
        """(B, inputs, H, W) and the link -> the next layer's z (B, p, H, W) and ``features`` with this layer's skip."""
        if cache is not None:
            return gated_pixel(self, z, link, terms, features, cache)
        y = gate(terms.added(self.horizontal_conv(z) + link, self.horizontal_bias))
        if dropout is not None:
            y = dropout(y)
        if self.out is not None:
            z = self.out(y) if self.first else self.out(y) + z
        if self.skip is not None:
            features = self.skip(y) if features is None else features + self.skip(y)
        return z, features


class LinearPath(nn.Module):
    """A pixel's parameters straight from the image, linearly: one causal convolution without a gate. Not in the paper.

    The mean of a smooth picture is a linear function of its neighbours to within a few levels of 255, which gates and
    ReLUs have to be trained long for.
    """

    def __init__(self, groups_in: Tensor, groups_out: Tensor, field: int) -> None:
        super().__init__()
        self.above = VerticalConv(len(groups_in), len(groups_out), field)
        self.left = MaskedConv(groups_in, groups_out, reach=field // 2, kind="A", bias=False)
        for conv in (self.above, self.left):
            start_weights(conv, 0.0)  # the network starts as it would without the path

    def vertical(self, x: Any, cache: Cache | None = None) -> Any:
        above = self.above(x, cache=cache)
        return shift_down(above) if cache is None else above  # one row down, as a link's


class GatedPixelCNN(nn.Module):
    """The core: an image on [-1, 1] and a condition in, parameters of every pixel out, never looking ahead.

    Args:
        channels: C of the image.
        starting_bias: the parameters of a pixel, (outputs,), as they are before training.
        colour_of_outputs: the colour of each output (outputs,), for likelihoods that order the colours: then colour
            g's outputs see the colours before g of their own pixel (section 2.1's R, G, B order). None: whole pixels,
            no output sees any colour of its own pixel.
        filters: p.
        layers: number of gated layers.
        field: n, odd.
        first_field: n of the first layer.
        head: maps of the head's two 1x1 layers.
        dropout: probability of dropping a gated activation in training.
        skips: feed the head with every layer's 1x1 skip, summed, instead of the last layer's output.
        linear_path: add what follows linearly from the neighbours in the first layer's field to the outputs.
    """

    def __init__(
        self, channels: int, starting_bias: Tensor, colour_of_outputs: Tensor | None, conditioning: Conditioning, *,
        filters: int, layers: int, field: int, first_field: int, head: int, dropout: float, skips: bool,
        linear_path: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.dropout = dropout
        self.skips = skips
        self.conditioning = conditioning
        self.reach = first_field // 2 + (layers - 1) * (field // 2)  # M, the sum of m over the layers
        colours = 1 if colour_of_outputs is None else channels
        groups_in = colour_groups(channels, colours)
        groups = colour_groups(filters, colours)
        self.layers: Any = nn.ModuleList(
            GatedLayer(
                groups_in if k == 0 else groups,
                filters,
                first_field if k == 0 else field,
                colours,
                conditioning,
                first=k == 0,
                skip=skips,
                last=k == layers - 1,
            )
            for k in range(layers)
        )
        head_groups = colour_groups(head, colours)
        groups_out = (
            torch.zeros_like(starting_bias, dtype=torch.long) if colour_of_outputs is None else colour_of_outputs
        )
        self.linear = LinearPath(groups_in, groups_out, first_field) if linear_path else None
        self.head_in = MaskedConv(groups, head_groups)
        self.head_out = MaskedConv(head_groups, groups_out)
        start_weights(self.head_in, 1.4 / layers**0.5 if skips else 1.4)
        start_weights(self.head_out, 0.1)
        self.head_out.bias = nn.Parameter(starting_bias.clone())

    def terms(self, condition: Condition, keep: bool = False) -> Terms:
        """The condition, in this core's precision, as its layers take it; ``keep``: for use over and over."""
        weight = self.head_out.weight
        return self.conditioning(condition.to(weight.device, weight.dtype), keep)

    def vertical(
        self, x: Tensor, terms: Terms, dropout: Dropout | None = None, cache: Cache | None = None
    ) -> list[Any]:
        """Every layer's link, (B, 2p, H, W) each: what is known about rows above. Never asks the horizontal stack.

        With a linear path, its share of the outputs comes last, (B, outputs, H, W). With a cache, as ``Here``, (B, W,
        2p): of row ``cache.row``; every row has to be asked for, in order, when the rows above it are complete in
        ``x``.
        """
        if cache is None:
            return self._down(x, terms, dropout, None) + ([] if self.linear is None else [self.linear.vertical(x)])
        found: list[Here] = cache.along_row("vertical", lambda: self._vertical_row(terms, cache.above()), x)
        return found

    def _vertical_row(self, terms: Terms, cache: Cache) -> list[Any]:
        """Of the row above."""
        linear = [] if self.linear is None else [self.linear.vertical(image_row(self.linear.above, cache), cache=cache)]
        return self._down(image_row(self.layers[0].vertical_conv, cache), terms, None, cache) + linear

    def _down(self, v: Any, terms: Terms, dropout: Dropout | None, cache: Cache | None) -> list[Any]:
        links = []
        for layer in self.layers:
            v, link = layer.vertical(v, terms, dropout, cache=cache)
            links.append(link)
        return links

    def horizontal(
        self,
        x: Tensor,
        links: list[Any],
        terms: Terms,
        dropout: Dropout | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """The features of the head, (B, p, H, W): the links and what lies to the left in the row.

        With a linear path, its outputs follow them, (B, p + outputs, H, W). With a cache, (B, p, 1, 1): of its place,
        every one of which has to be asked for, in order, and may be asked for again as the pixel's colours get known.
        """
        if cache is not None:
            pixel: Tensor = cache.at_pixel("horizontal", lambda: self._horizontal_pixel(links, terms, cache), x)
            return pixel
        features = self._through_layers(x, links, terms, dropout, None)
        if self.linear is not None:
            features = torch.cat([features, links[-1] + self.linear.left(x)], dim=1)
        return features

    def _horizontal_pixel(self, links: list[Here], terms: Terms, cache: Cache) -> Tensor:
        image = image_pixel(self.layers[0].horizontal_conv, cache)
        features: Here = self._through_layers(image, links, terms, None, cache)
        if self.linear is None:
            return features.image()
        return linear_pixel(self.linear.left, image, links[-1], features, cache)

    def _through_layers(
        self, z: Any, links: list[Any], terms: Terms, dropout: Dropout | None, cache: Cache | None
    ) -> Any:
        features = None
        for layer, link in zip(self.layers, links, strict=self.linear is None):
            z, features = layer.horizontal(z, link, terms, features, dropout, cache=cache)
        return features if self.skips else z

    def head(self, features: Tensor, cache: Cache | None = None) -> Tensor:
        """(B, p, H, W) -> parameters (B, outputs, H, W): ReLU, 1x1, ReLU, 1x1, under mask B. At any places alone.

        With a cache of one pixel.
        """
        if cache is not None:
            of_pixel: Tensor = cache.at_pixel(
                "head", lambda: gated_head_pixel(self.head_in, self.head_out, features, cache)
            )
            return of_pixel
        p = self.head_in.in_channels
        parameters: Tensor = self.head_out(F.relu(self.head_in(F.relu(features[:, :p]))))
        return parameters if self.linear is None else parameters + features[:, p:]

    def forward(self, x: Tensor, terms: Terms, dropout_keys: Tensor | None = None) -> Tensor:
        """Parameters of every pixel, (B, outputs, H, W).

        Args:
            x: image on [-1, 1], (B, C, H, W), in the core's dtype.
            terms: of ``self.terms(condition)``.
            dropout_keys: int64 (B,), the examples' streams; None: no dropout.
        """
        dropout = Dropout(dropout_keys, self.dropout) if self.dropout and dropout_keys is not None else None
        x = x.contiguous(memory_format=torch.channels_last)  # convolutions run several times faster so on a CPU
        return self.head(self.horizontal(x, self.vertical(x, terms, dropout), terms, dropout))

    def sees(self, row: int, column: int, height: int, width: int) -> Tensor:
        """Which pixels the parameters at (row, column) depend on, the own one aside: bool (H, W).

        The full rectangle of M + 1 rows above and M columns to either side, and M pixels to the left.
        """
        M = self.reach
        return rectangle_sees(row, column, height, width, rows_above=M + 1, to_either_side=M, to_the_left=M)

    def extra_repr(self) -> str:
        side = self.reach
        return f"sees {side + 1} rows above, {side} columns to either side, {side} pixels to the left"
