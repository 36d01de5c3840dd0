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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condgen.condition import Condition
from condgen.cores.activations import Activations, elu
from condgen.cores.conditioning import Conditioning, Terms
from condgen.cores.layers import CornerConv, Dropout, Pointwise, UpConv, VerticalConv, shift_down, shift_right
from condgen.cores.promise import pyramid_sees
from condgen.cores.weight_norm import SPREAD, data_dependent_init, weight_normalised


class Feature:
    """A stream's features (B, F, H, W), and what the nonlinearity makes of them: once, for all who read it."""

    def __init__(self, x: Tensor, activation: Activations) -> None:
        self.x = x
        self._activation = activation
        self._active: Tensor | None = None

    @property
    def active(self) -> Tensor:
        """(B, F, H, W), twice as many channels after concat_elu."""
        if self._active is None:
            self._active = self._activation(self.x)
        return self._active


class GatedResnet(nn.Module):
    """x + a * sigmoid(b), where a and b come of two convolutions of x, of auxiliary inputs, and of the condition.

    Args:
        stream: "u" or "ul": which neighbours the convolutions read.
        auxiliary: number of other features, at the same places, that enter between the two convolutions.
        scale: k, for the condition's map.
        pointwise: 1x1 convolutions, which see no neighbours at all.
    """

    def __init__(
        self, stream: str, filters: int, field: int, activation: Activations, conditioning: Conditioning, *,
        auxiliary: int, scale: int, pointwise: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.activation = activation
        wide = activation.widening * filters
        self.conv_in = weight_normalised(_conv(stream, wide, filters, 1 if pointwise else field))
        # the inputs of several features stand one after the other: all of the first, x and -x, then of the second
        self.nin = weight_normalised(Pointwise((wide,) * auxiliary, filters)) if auxiliary else None
        self.conv_out = weight_normalised(_conv(stream, wide, 2 * filters, 1 if pointwise else field), init_scale=0.1)
        self.condition = conditioning.bias(2 * filters, scale)
        for weight in self.condition.parameters():
            nn.init.normal_(weight, 0, SPREAD)

    def forward(self, feature: Feature, terms: Terms, dropout: Dropout | None, *auxiliary: Feature) -> Feature:
        # what follows a convolution here crops it as well: its gradient need not be copied into zeros then
        if self.nin is None:
            hidden = self.activation(self.conv_in(feature.active), dropout=dropout)
        else:
            auxiliary_in = self.nin(*(other.active for other in auxiliary))  # (B, F, H, W)
            hidden = self.activation(self.conv_in(feature.active, crop=False), auxiliary_in, dropout)
        gates = terms.added(self.conv_out(hidden, crop=False), self.condition)  # (B, 2F, H, W) and what is cropped
        return Feature(self.activation.gated_residual(feature.x, gates), self.activation)


def _conv(stream: str, inputs: int, outputs: int, field: int) -> VerticalConv | CornerConv:
    if stream == "u":
        return VerticalConv(inputs, outputs, field)
    return CornerConv(inputs, outputs, field // 2 + 1, field // 2 + 1)


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


class PixelCNNpp(nn.Module):
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
        super().__init__()
        if field % 2 == 0 or field < 3:
            raise ValueError(f"field must be odd and at least 3, not {field}")
        m = field // 2
        self.dropout, self.field, self.short_cuts = dropout, field, short_cuts
        self.conditioning = conditioning
        self.activation = Activations(nonlinearity)
        C = channels + 1  # and a channel of ones, by which zero padding differs from a grey pixel
        self.start_above = weight_normalised(VerticalConv(C, filters, field))
        self.start_row = weight_normalised(VerticalConv(C, filters, field, rows=1))
        self.start_left = weight_normalised(CornerConv(C, filters, m + 1, 1))
        self.recall = Recall(C, filters, self.activation) if full_sight else None

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
        self.out = weight_normalised(Pointwise((filters,), outputs))

    def terms(self, condition: Condition, keep: bool = False) -> Terms:
        """The condition, in this core's precision, as its layers take it; ``keep``: for use over and over."""
        weight = self.out.weight
        return self.conditioning(condition.to(weight.device, weight.dtype), keep)

    def vertical(self, x: Tensor, terms: Terms, dropout: Dropout | None = None) -> list[Any]:
        """What is known of the rows above: the image with its channel of ones and ul's first word, made of the row
        above, then u after each of its resnets, in order, as ``Feature``. Never asks the horizontal stream.
        """
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)  # (B, C + 1, H, W)
        u = self._feature(shift_down(self.start_above(x)))
        found = [x, shift_down(self.start_row(x))]
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
        image, above, *us = vertical
        next_u: Iterator[Feature] = iter(us)
        start = above + shift_right(self.start_left(image))
        if self.recall is not None:
            start = start + self.recall(image)
        ul = self._feature(start)
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

    def head(self, features: Tensor) -> Tensor:
        """(B, F, H, W) -> parameters (B, outputs, H, W): elu, 1x1."""
        parameters: Tensor = self.out(elu(features))
        return parameters

    def forward(self, x: Tensor, terms: Terms, dropout_keys: Tensor | None = None) -> Tensor:
        """Parameters of every pixel, (B, outputs, H, W).

        Args:
            x: image on [-1, 1], (B, C, H, W), in the core's dtype; sides divide by 2^(scales - 1).
            terms: of ``self.terms(condition)``.
            dropout_keys: int64 (B,), the examples' streams; None: no dropout.
        """
        dropout = Dropout(dropout_keys, self.dropout) if self.dropout and dropout_keys is not None else None
        x = x.contiguous(memory_format=torch.channels_last)
        return self.head(self.horizontal(x, self.vertical(x, terms, dropout), terms, dropout))

    def initialise(self, x: Tensor, terms: Terms) -> None:
        """Data-dependent initialisation from a batch of images: every layer starts with outputs of mean 0 and standard
        deviation 1, the second convolution of a resnet with 0.1."""
        data_dependent_init(self, x, terms)

    def compile(self) -> None:
        """Compiles what lies between the convolutions, which a compiler does not make faster: seconds, not minutes."""
        self.activation.compile()

    def sees(self, row: int, column: int, height: int, width: int) -> Tensor:
        """Which pixels the parameters at (row, column) depend on, the own one aside: bool (H, W).

        Not every earlier one: odd rows of coarse cells are known to full resolution alone. See ``pyramid_sees``.
        """
        if self.recall is not None:
            return torch.arange(height * width).view(height, width) < row * width + column
        counts = [len(block.u) for block in self.down], [len(block.u) for block in self.up]
        return pyramid_sees(row, column, height, width, *counts, self.field, self.short_cuts)

    def _feature(self, x: Tensor) -> Feature:
        # under autocast the sum over all resnets stays in fp32
        return Feature(x.float() if x.dtype in (torch.bfloat16, torch.float16) else x, self.activation)


class Recall(nn.Module):
    """What every pixel is told of *all* earlier ones: the mean of their features. Not in the paper.

    (B, C + 1, H, W) -> (B, F, H, W): a 1x1 convolution and the nonlinearity at each pixel, the mean over the pixels
    before it in raster order, and a 1x1 convolution of that. Two small convolutions and a running sum.
    """

    def __init__(self, channels: int, filters: int, activation: Activations) -> None:
        super().__init__()
        self.activation = activation
        self.what = weight_normalised(Pointwise((channels,), filters))
        self.told = weight_normalised(Pointwise((activation.widening * filters,), filters))

    def forward(self, image: Tensor) -> Tensor:
        H, W = image.shape[2:]
        seen = self.activation(self.what(image)).flatten(2)  # (B, 2F, H W)
        before = F.pad(seen, (1, -1)).cumsum(2)
        number = torch.arange(H * W, device=image.device, dtype=image.dtype).clamp(min=1)
        told: Tensor = self.told((before / number).unflatten(2, (H, W)).contiguous(memory_format=torch.channels_last))
        return told
