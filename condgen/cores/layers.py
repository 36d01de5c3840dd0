"""What causal cores are made of: shifts, colour masks, causal convolutions, the gate and dropout.

Legend: B images, p feature maps after the gate, n x n a layer's field, m = n // 2, H x W pixels.

Convolutions are given symmetric padding and cropped afterwards: the convolution pads for free, a separate pad copies.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condgen import streams
from condgen.cores.cache import Cache
from condgen.cores.layers_steps import corner_pixel, up_pixel, up_row, vertical_row
from condgen.cores.steps import matrix


def colour_groups(maps: int, colours: int) -> Tensor:
    """The colour group of each of ``maps`` feature maps, interleaved: 0, 1, 2, 0, 1, 2, ... (maps,)."""
    return torch.arange(maps) % colours


def colour_mask(outputs: Tensor, inputs: Tensor, kind: str) -> Tensor:
    """What a map of group j may read on the *current* pixel, as 0 and 1 (outputs, inputs).

    Mask A (first layer, on the raw image): groups before its own. Mask B (everywhere else): its own as well.
    With a single group A reads nothing and B everything, which is the mask of whole pixels.
    """
    if kind == "A":
        return (inputs[None, :] < outputs[:, None]).float()
    return (inputs[None, :] <= outputs[:, None]).float()


@torch.no_grad()
def start_weights(conv: nn.Conv2d, gain: float = 1.0) -> None:
    """N(0, gain^2 / inputs), counting the inputs that the mask leaves to each output; biases of zero.

    Torch's default gives a third of that variance, and the signal dies over ten gated layers.
    """
    mask = getattr(conv, "mask", torch.ones_like(conv.weight))
    inputs = mask.sum((1, 2, 3), keepdim=True).clamp(min=1)
    conv.weight.normal_().mul_(gain / inputs.sqrt())
    if conv.bias is not None:
        conv.bias.zero_()


class VerticalConv(nn.Conv2d):
    """Convolution over this row and the m rows above it, m columns to either side; no mask.

    ``(B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))``; row r reads rows ``stride r - m .. stride
    r``: its own as well, so that something behind it has to shift.

    Args:
        rows: rows of the kernel; default m + 1.
    """

    def __init__(self, inputs: int, outputs: int, field: int, stride: int = 1, rows: int | None = None) -> None:
        m = field // 2
        rows = rows or m + 1
        super().__init__(inputs, outputs, (rows, field), stride, padding=(rows - 1, m))

    def forward(self, x: Any, cache: Cache | None = None, crop: bool = True) -> Any:
        """``crop``: without the rows that come from the padding below."""
        if cache is not None:
            return vertical_row(self, x, cache)
        y = super().forward(x)
        return y[:, :, : -(-x.shape[2] // self.stride[0])] if crop else y

    def uncropped(self, x: Tensor) -> tuple[Tensor, int]:
        """The output, and at how many positions it is."""
        y = self.forward(x)
        return y, y.numel() // y.shape[1]


class CornerConv(nn.Conv2d):
    """Convolution over this pixel and what lies ``rows - 1`` above and ``columns - 1`` to the left of it.

    ``(B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))``.
    """

    def __init__(self, inputs: int, outputs: int, rows: int, columns: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, (rows, columns), stride, padding=(rows - 1, columns - 1))

    def forward(self, x: Any, cache: Cache | None = None, crop: bool = True) -> Any:
        """``crop``: without the rows and columns that come from the padding below and at the right."""
        if cache is not None:
            return corner_pixel(self, x, cache)
        y = super().forward(x)
        rows, columns = (-(-side // self.stride[0]) for side in x.shape[2:])
        return y[:, :, :rows, :columns] if crop else y

    def uncropped(self, x: Tensor) -> tuple[Tensor, int]:
        """The output, and at how many positions it is."""
        y = self.forward(x)
        return y, y.numel() // y.shape[1]


class UpConv(nn.ConvTranspose2d):
    """Transposed convolution of stride 2 that turns coarse row i into fine rows 2i, 2i + 1, ..., never above.

    ``(B, inputs, H, W) -> (B, outputs, 2 H, 2 W)``. Coarse column j goes to fine columns ``2j - offset ..``.

    Args:
        offset: columns to the left of 2j that are reached: m for a vertical stack, which a cache asks for by rows, 0
            where the left alone is known, which it asks for by pixels.
    """

    def __init__(self, inputs: int, outputs: int, rows: int, columns: int, offset: int) -> None:
        super().__init__(inputs, outputs, (rows, columns), 2)
        self.offset = offset
        self.by_rows = offset > 0

    def forward(self, x: Any, cache: Cache | None = None) -> Any:  # type: ignore[override]
        """With a cache ``x`` is None where the coarse input has not moved."""
        if cache is not None:
            return up_row(self, x, cache) if self.by_rows else up_pixel(self, x, cache)
        if x is None:
            raise ValueError("a whole image needs its input")
        H, W = x.shape[2:]
        return super().forward(x)[:, :, : 2 * H, self.offset : self.offset + 2 * W]

    def uncropped(self, x: Tensor) -> tuple[Tensor, int]:
        """The output before cropping and the positions of the original's, which has rows and columns of bias alone."""
        B, _, H, W = x.shape
        rows, columns = self.kernel_size
        return super().forward(x), B * (2 * H + rows - 1) * (2 * W + columns - 1)


class Pointwise(nn.Conv2d):
    """1x1 convolution of several tensors side by side, ``(B, n_k, H, W)`` each, without putting them together.

    Args:
        inputs: n_k of each; the weight's inputs are theirs in this order.
    """

    def __init__(self, inputs: tuple[int, ...], outputs: int) -> None:
        super().__init__(sum(inputs), outputs, 1)
        self.inputs = inputs

    def forward(self, *tensors: Tensor) -> Tensor:
        B, _, H, W = tensors[0].shape
        # every row as an image of its own: for few images and one thread torch has a slower kernel
        rows = [x.permute(0, 2, 3, 1).reshape(B * H, 1, W, -1).permute(0, 3, 1, 2) for x in tensors]
        parts = self.weight.split(self.inputs, dim=1)
        y = F.conv2d(rows[0], parts[0], self.bias)
        for x, part in zip(rows[1:], parts[1:], strict=True):
            y = y + F.conv2d(x, part)
        return y.permute(0, 2, 3, 1).reshape(B, H, W, -1).permute(0, 3, 1, 2)

    def uncropped(self, *tensors: Tensor) -> tuple[Tensor, int]:
        """The output, and at how many positions it is."""
        y = self.forward(*tensors)
        return y, y.numel() // y.shape[1]


def _bias(layer: nn.Conv2d) -> Tensor:
    if layer.bias is None:
        raise AssertionError(f"{layer} has no bias")
    return layer.bias


def shift_down(x: Tensor) -> Tensor:
    """Row r of the result is row r - 1; row 0 is exactly zero."""
    return F.pad(x, (0, 0, 1, -1))


def shift_right(x: Tensor) -> Tensor:
    """Column c of the result is column c - 1; column 0 is exactly zero."""
    return F.pad(x, (1, -1))


class Link(nn.Conv2d):
    """The vertical stack's word to the horizontal one: a 1x1 convolution of the row *above*.

    Row r of the result is made of row r-1; row 0 of zeros, so it is the bias. This shift is what makes the whole
    network causal: the vertical row r includes image row r.
    """

    def __init__(self, maps: int) -> None:
        super().__init__(maps, maps, 1, padding=(1, 0))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :, : x.shape[2]]  # padded above and below; the first H rows are the shifted ones


class MaskedConv(nn.Conv2d):
    """Convolution over the current pixel (under a colour mask) and the ``reach`` pixels to its left (unmasked).

    The mask is applied to the weight in every call, so no optimiser or loader can break it.

    Args:
        kind: "A" or "B", see ``colour_mask``.
        groups_in, groups_out: the colour group of every map, (inputs,) and (outputs,).
    """

    mask: Tensor

    def __init__(
        self, groups_in: Tensor, groups_out: Tensor, reach: int = 0, kind: str = "B", bias: bool = True
    ) -> None:
        super().__init__(len(groups_in), len(groups_out), (1, reach + 1), padding=(0, reach), bias=bias)
        mask = torch.ones_like(self.weight)  # (outputs, inputs, 1, reach + 1); the last tap is the current pixel
        mask[:, :, 0, reach] = colour_mask(groups_out, groups_in, kind)
        self.register_buffer("mask", mask, persistent=False)

    def matrix(self, bias: bool = False) -> Tensor:
        """The masked weight for a pixel and those to its left, side by side: ((reach + 1) inputs, outputs).

        Args:
            bias: as one more row, for an input of 1 behind the others.
        """
        taps = matrix(self.weight * self.mask)
        return torch.cat([taps, _bias(self).detach()[None]]) if bias else taps

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)
        return y[..., : x.shape[3]]  # the columns at the right come from the padding there


def gate(x: Tensor) -> Tensor:
    """tanh(first half) * sigmoid(second half): eq. 2 of van den Oord et al. 2016; (B, 2p, H, W) -> (B, p, H, W)."""
    signal, opening = x.chunk(2, dim=1)
    return torch.tanh(signal) * torch.sigmoid(opening)


class Mask:
    """Which elements of one tensor are dropped; drawn when somebody asks.

    Attributes:
        keys, use: the examples' streams, int64 (B,), and which of them: every call of a dropout has one of its own.
        threshold: elements are dropped with a probability of so many 256ths.
        shape: (B, C, H, W).

    Raises:
        ValueError: not as many keys as images.
    """

    def __init__(self, keys: Tensor, use: int, threshold: int, shape: tuple[int, ...]) -> None:
        if len(keys) != shape[0]:
            raise ValueError(f"{len(keys)} keys for {shape[0]} images")
        self.keys, self.use, self.threshold, self.shape = keys, use, threshold, shape

    @property
    def factor(self) -> float:
        """What elements that stay are multiplied by."""
        return 256 / (256 - self.threshold)

    @functools.cached_property
    def kept(self) -> Tensor:
        """Which elements stay: uint8 0 or 1, (B, C, H, W), channels-last."""
        B, C, H, W = self.shape
        count = H * W * C
        if self.threshold == 128:  # a bit each is enough
            drawn = streams.example_bytes(self.keys, self.use, -(-count // 8))
            eight = _eight_bits().to(drawn.device).index_select(0, drawn.flatten().int())  # a word of eight 0s and 1s
            kept = eight.view(B, -1).view(torch.uint8)[:, :count]
        else:
            kept = (streams.example_bytes(self.keys, self.use, count) >= self.threshold).view(torch.uint8)
        return kept.reshape(B, H, W, C).permute(0, 3, 1, 2)  # maps innermost, as the activations lie in memory

    def forget(self) -> Tensor | None:
        """What was drawn, if anything was; the next who asks draws again."""
        drawn: Tensor | None = self.__dict__.pop("kept", None)
        return drawn


@functools.cache
def _eight_bits() -> Tensor:
    """The eight bits of every byte, a byte each: int64 (256,)."""
    bits = (torch.arange(256)[:, None] >> torch.arange(8)) & 1
    return bits.to(torch.uint8).view(torch.int64)[:, 0]


class Dropout:
    """Drops single activations by bits that belong to the example, whatever batch, rank or order it comes in.

    Args:
        keys: int64 (B,), the examples' streams (``streams.example_keys``).
        rate: probability of dropping, rounded to a 256th.
    """

    def __init__(self, keys: Tensor, rate: float) -> None:
        self.keys = keys
        self.threshold = round(rate * 256)
        self.uses = 0

    def mask(self, shape: tuple[int, ...]) -> Mask:
        """The mask of the next tensor, (B, C, H, W)."""
        self.uses += 1
        return Mask(self.keys, self.uses, self.threshold, shape)

    def __call__(self, x: Tensor) -> Tensor:
        mask = self.mask(tuple(x.shape))
        return x * mask.kept.to(x.dtype).mul_(mask.factor)
