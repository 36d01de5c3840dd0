"""What the cores of PixelCNN++ are made of: two streams, how they start, a gated resnet, the way out.

Legend: B images, C colour channels, F filters, n the side of a layer's field, m = n // 2, H x W pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condgen.condition import Condition
from condgen.cores.activations import Activations, elu
from condgen.cores.cache import Cache
from condgen.cores.conditioning import Conditioning, Terms
from condgen.cores.layers import CornerConv, Dropout, Pointwise, VerticalConv, shift_down, shift_right
from condgen.cores.steps import Here, PixelStrip, RowStrip, activate
from condgen.cores.two_streams_steps import head_pixel, recall_pixel, resnet, start_pixel, start_rows
from condgen.cores.weight_norm import SPREAD, compile_weights, data_dependent_init, weight_normalised


class Feature:
    """A stream's features (B, F, H, W), and what the nonlinearity makes of them: once, for all who read it.

    With a cache ``x`` is ``Here``, the row or the pixel in hand.
    """

    def __init__(self, x: Any, activation: Activations) -> None:
        self.x = x
        self._activation = activation
        self._active: Tensor | None = None
        self._activates = False

    @property
    def active(self) -> Tensor:
        """(B, F, H, W), twice as many channels after concat_elu."""
        if self._active is None:
            self._active = self._activation(self.x)
        return self._active

    def strip(self, cache: Cache, kernel: tuple[int, ...] = (1, 1), before_pixels: bool = False) -> None:
        """Leaves the step that computes ``active`` into the strip of ``x``, for a reader with this ``kernel``.

        Whoever reads most has to ask first.

        Args:
            before_pixels: unless somebody has asked already, as a row step.
        """
        here: Here = self.x
        if self._activates or (before_pixels and here.strip is not None):
            return
        self._activates = True
        if here.strip is None or here.to_strip is None:
            kind = RowStrip if here.by_rows else PixelStrip
            channels = self._activation.widening * here.values.shape[-1]
            here.strip = kind(cache.batch, channels, kernel, cache.width, here.values)
            here.to_strip = activate(self._activation.nonlinearity, here, here.strip.places, cache.native)
        begin, step = here.strip.begin_row, here.to_strip
        if before_pixels:
            cache.row_step(lambda: step(0))
        else:
            if here.by_rows:
                cache.step(lambda c: begin())
            cache.step(step)


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

    def forward(
        self, feature: Feature, terms: Terms, dropout: Dropout | None, *auxiliary: Feature, cache: Cache | None = None
    ) -> Feature:
        if cache is not None:
            return Feature(resnet(self, feature, terms, auxiliary, cache), self.activation)
        # what follows a convolution here crops it as well: its gradient need not be copied into zeros then
        if self.nin is None:
            hidden = self.activation(self.conv_in(feature.active), dropout=dropout)
        else:
            active = [other.active for other in auxiliary]
            auxiliary_in = self.nin(*active)  # (B, F, H, W)
            hidden = self.activation(self.conv_in(feature.active, crop=False), auxiliary_in, dropout)
        gates = self.conv_out(hidden, crop=False)  # (B, 2F, H, W) and what is cropped
        gates = terms.added(gates, self.condition)
        return Feature(self.activation.gated_residual(feature.x, gates), self.activation)


def _conv(stream: str, inputs: int, outputs: int, field: int) -> VerticalConv | CornerConv:
    if stream == "u":
        return VerticalConv(inputs, outputs, field)
    return CornerConv(inputs, outputs, field // 2 + 1, field // 2 + 1)


class TwoStreams(nn.Module):
    """An image on [-1, 1] and a condition in, parameters of every pixel out, never looking ahead.

    A core says what lies between the start of its streams and the way out: ``vertical``, ``horizontal``, ``sees``.

    Args:
        channels: C of the image.
        outputs: parameters of a pixel.
        filters: F.
        field: n, odd, at least 3. The vertical stream's kernels are (m+1) x n, the horizontal one's (m+1) x (m+1).
        nonlinearity: ``concat_elu``, ``elu`` or ``relu``.
        dropout: probability of dropping an element between the two convolutions of a resnet in training.
        full_sight: a path from all earlier pixels to each (``Recall``).

    Raises:
        ValueError: an even field or one of 1.
    """

    def __init__(
        self, channels: int, outputs: int, conditioning: Conditioning, *, filters: int, field: int, nonlinearity: str,
        dropout: float, full_sight: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        if field % 2 == 0 or field < 3:
            raise ValueError(f"field must be odd and at least 3, not {field}")
        m = field // 2
        self.dropout, self.field = dropout, field
        self.conditioning = conditioning
        self.activation = Activations(nonlinearity)
        C = channels + 1  # and a channel of ones, by which zero padding differs from a grey pixel
        self.start_above = weight_normalised(VerticalConv(C, filters, field))
        self.start_row = weight_normalised(VerticalConv(C, filters, field, rows=1))
        self.start_left = weight_normalised(CornerConv(C, filters, m + 1, 1))
        self.recall = Recall(C, filters, self.activation) if full_sight else None
        self.out = weight_normalised(Pointwise((filters,), outputs))

    def terms(self, condition: Condition, keep: bool = False) -> Terms:
        """The condition, in this core's precision, as its layers take it; ``keep``: for use over and over."""
        like: Any = self.out.bias  # its weight would be folded
        return self.conditioning(condition.to(like.device, like.dtype), keep)

    @abstractmethod
    def vertical(
        self, x: Tensor, terms: Terms, dropout: Dropout | None = None, cache: Cache | None = None
    ) -> list[Any]:
        """What is known of the rows above: ul's share of the row above and, as ``Feature``, what u says to ul. Never
        asks the horizontal stream.

        With a cache: of row ``cache.row``, (B, F, 1, W), and of coarser scales where a coarse row begins. Every row has
        to be asked for, in order, when the rows above it are complete in ``x``.
        """

    @abstractmethod
    def horizontal(
        self,
        x: Tensor,
        vertical: list[Any],
        terms: Terms,
        dropout: Dropout | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """The features of the head, (B, F, H, W): the rows above and what lies to the left in the row.

        With a cache, (B, F, 1, 1): of its place, every one of which has to be asked for, in order.
        """

    @abstractmethod
    def sees(self, row: int, column: int, height: int, width: int) -> Tensor:
        """Which pixels the parameters at (row, column) depend on, the own one aside: bool (H, W)."""

    def start(self, x: Tensor, cache: Cache | None) -> tuple[Feature, list[Any]]:
        """u before its first resnet, made of the rows above; then the first word of ``vertical``: ul's share of the row
        above."""
        if cache is None:
            x = with_ones(x)  # (B, C + 1, H, W)
            return self._feature(shift_down(self.start_above(x))), [shift_down(self.start_row(x))]
        u, row_above = start_rows(self.start_above, self.start_row, cache)
        return Feature(u, self.activation), [row_above]

    def start_horizontal(self, x: Tensor, above: Any, cache: Cache | None) -> Feature:
        """ul before its first resnet."""
        if cache is not None:
            here = start_pixel(self.start_left, above, cache)
            if self.recall is not None:
                recall_pixel(self.recall, here, cache)
            return Feature(here, self.activation)
        x = with_ones(x)
        start = above + shift_right(self.start_left(x))
        if self.recall is not None:
            start = start + self.recall(x)
        return self._feature(start)

    def head(self, features: Tensor, cache: Cache | None = None) -> Tensor:
        """(B, F, H, W) -> parameters (B, outputs, H, W): elu, 1x1; with a cache of one pixel."""
        if cache is not None:
            of_pixel: Tensor = cache.at_pixel("head", lambda: head_pixel(self.out, features, cache))
            return of_pixel
        parameters: Tensor = self.out(elu(features))
        return parameters

    def forward(self, x: Tensor, terms: Terms, dropout_keys: Tensor | None = None) -> Tensor:
        """Parameters of every pixel, (B, outputs, H, W).

        Args:
            x: image on [-1, 1], (B, C, H, W), in the core's dtype.
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
        """Compiles what lies between the convolutions, which a compiler does not make faster: a second on a CPU, about
        a minute on a GPU."""
        device = self.out.weight.device
        self.activation.compile(device)
        if device.type == "cpu":
            compile_weights(self)

    def _feature(self, x: Any) -> Feature:
        if isinstance(x, Here):
            return Feature(x, self.activation)
        # under autocast the sum over all resnets stays in fp32
        return Feature(x.float() if x.dtype in (torch.bfloat16, torch.float16) else x, self.activation)


def with_ones(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C + 1, H, W)."""
    return torch.cat([x, torch.ones_like(x[:, :1])], dim=1)


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
