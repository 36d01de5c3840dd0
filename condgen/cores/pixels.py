"""Whole blocks at one pixel: PixelCNN++'s start and gated resnet, Gated PixelCNN's layer (see ``steps.py``).

Legend: B images, F filters, p feature maps of the gated core, W pixels of a row at the block's resolution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from condgen.cores.cache import Cache
from condgen.cores.steps import Here, Row, Strip, activate, by_column, matrix, put

if TYPE_CHECKING:
    from condgen.cores.conditioning import Terms


def start_pixel(layer: Any, above: Row, cache: Cache) -> Here:
    """The first ``CornerConv`` of the image and of ones, shifted right, and ``above``: column 0 has nothing else."""
    kh = layer.kernel_size[0]
    weight = layer.weight.detach()
    outputs, channels, B = len(weight), weight.shape[1] - 1, cache.batch

    def make() -> tuple[Tensor, Tensor, Here]:
        of_row = by_column(cache.width, B, outputs, weight)

        def begin() -> None:
            r = cache.row
            rows = F.pad(cache.image[:, :, max(0, r - kh + 1) : r, :-1], (0, 0, max(0, kh - 1 - r), 0))
            ones = F.pad(torch.ones_like(rows[:, :1, : min(r, kh - 1)]), (0, 0, max(0, kh - 1 - r), 0))
            shared = above.x.clone()
            shared[..., 1:] += F.conv2d(torch.cat([rows, ones], 1), weight[:, :, :-1], layer.bias)
            put(shared, of_row)

        cache.row_step(begin)
        return of_row, weight.new_ones(B, channels + 1), Here.of(B, outputs, weight)

    of_row, before, y = cache.of(layer, make)
    columns, colours, taps, out = of_row.unbind(0), before[:, :channels], matrix(weight), y.values

    def step(c: int) -> None:
        if c == 0:
            out.copy_(columns[0])
        else:
            colours.copy_(cache.image[:, :, cache.row, c - 1])
            torch.addmm(columns[c], before, taps, out=out)

    cache.step(step)
    return y


def recall_pixel(recall: Any, x: Here, cache: Cache) -> None:
    """Adds to ``x`` what the mean over the pixels before this one tells: a running sum."""
    what, told = recall.what.weight.detach(), recall.told.weight.detach()
    B, channels = cache.batch, what.shape[1] - 1
    before, hidden = what.new_ones(B, channels + 1), Here.of(B, len(what), what)
    active, total = what.new_empty(B, told.shape[1]), what.new_zeros(B, told.shape[1])
    state = cache.of(recall, lambda: {"sum": total, "pixels": 0})
    total = state["sum"]
    colours, mean, out = before[:, :channels], torch.empty_like(total), x.values
    into, from_mean = matrix(what), matrix(told)
    what_bias, told_bias = recall.what.bias.detach(), recall.told.bias.detach()
    nonlinearity = activate(recall.activation.nonlinearity, hidden, [active])

    def step(c: int) -> None:
        number = cache.row * cache.width + c
        for k in range(state["pixels"], number):
            colours.copy_(cache.image[:, :, k // cache.width, k % cache.width])
            torch.addmm(what_bias, before, into, out=hidden.values)
            nonlinearity(0)
            total.add_(active)
        state["pixels"] = number
        torch.mul(total, 1 / max(1, number), out=mean)
        out.add_(told_bias)
        torch.addmm(out, mean, from_mean, out=out)

    cache.step(step)


class _Resnet:
    """The buffers of a ``GatedResnet``: what the row brings to each of its two convolutions, what is between them, the
    gates, the output."""

    def __init__(self, resnet: Any, cache: Cache, rows: list[tuple[Any, Tensor]], strip: Strip, terms: Terms) -> None:
        first, second = resnet.conv_in.weight.detach(), resnet.conv_out.weight.detach()
        B, width, filters = cache.batch, cache.width, len(first)
        kh, kw = resnet.conv_out.kernel_size
        self.in_above = by_column(width, B, filters, first)
        self.out_above = by_column(width, B, 2 * filters, first)
        self.hidden = Here.of(B, filters, first)
        self.hidden_strip = Strip(B, second.shape[1], (kh, kw), width, first)
        self.gates = first.new_zeros(B, 2 * filters)
        self.opening = first.new_zeros(B, filters)
        self.out = Here.of(B, filters, first)

        def of_rows(layer: Any, weight: Tensor, read: Strip) -> Tensor:
            if kh == 1:
                row: Tensor = layer.bias.view(1, -1, 1, 1).expand(B, -1, 1, width)
                return row
            return F.conv2d(read.above(), weight[:, :, :-1], layer.bias)

        def begin() -> None:
            into = of_rows(resnet.conv_in, first, strip)
            if resnet.nin is not None:
                into = into + resnet.nin.bias.view(1, -1, 1, 1)
            for feature, weight in rows:
                into = into + F.conv2d(feature.active, weight)
            put(into, self.in_above)
            gates = of_rows(resnet.conv_out, second, self.hidden_strip)
            put(terms.added(gates, resnet.condition, cache), self.out_above)
            strip.begin_row()
            self.hidden_strip.begin_row()

        cache.row_step(begin)


def resnet_pixel(resnet: Any, feature: Any, terms: Terms, auxiliary: tuple[Any, ...], cache: Cache) -> Here:
    """A ``GatedResnet`` of the horizontal stream; auxiliary features are of this pixel, or of the whole row."""
    x: Here = feature.x
    strip: Strip = feature.along_row(cache, resnet.conv_in.kernel_size)
    parts = [] if resnet.nin is None else resnet.nin.weight.detach().split(resnet.nin.inputs, dim=1)
    rows, others = [], []
    for other, part in zip(auxiliary, parts, strict=True):
        if isinstance(other.x, Here):
            others.append((other.along_row(cache).pixels, matrix(part)))
        else:
            rows.append((other, part))
    state = cache.of(resnet, lambda: _Resnet(resnet, cache, rows, strip, terms))
    nonlinearity = activate(resnet.activation.nonlinearity, state.hidden, state.hidden_strip.pixels)
    in_above, windows, first = state.in_above.unbind(0), strip.windows, matrix(resnet.conv_in.weight)
    out_above, hidden_windows = state.out_above.unbind(0), state.hidden_strip.windows
    second = matrix(resnet.conv_out.weight)
    hidden, gates, opening, values, out = state.hidden.values, state.gates, state.opening, x.values, state.out.values
    a, b = gates.chunk(2, dim=1)
    addmm, addcmul, sigmoid = torch.addmm, torch.addcmul, torch.sigmoid

    def step(c: int) -> None:
        addmm(in_above[c], windows[c], first, out=hidden)
        for pixels, taps in others:
            addmm(hidden, pixels[c], taps, out=hidden)
        nonlinearity(c)
        addmm(out_above[c], hidden_windows[c], second, out=gates)
        sigmoid(b, out=opening)
        addcmul(values, a, opening, out=out)

    cache.step(step)
    return state.out


def head_pixel(layer: Any, features: Tensor, cache: Cache) -> Tensor:
    """elu and a ``Pointwise``: (B, F, 1, 1) -> (B, outputs, 1, 1)."""
    weight, bias = layer.weight.detach(), layer.bias.detach()
    x = Here(features[:, None, :, 0, 0])
    active, parameters = torch.empty_like(x.values), weight.new_empty(cache.batch, len(weight))
    nonlinearity, taps = activate("elu", x, [active]), matrix(weight)

    def step(c: int) -> None:
        nonlinearity(0)
        torch.addmm(bias, active, taps, out=parameters)

    cache.step(step)
    return parameters[:, :, None, None]


def image_pixel(cache: Cache, like: Tensor, layer: Any) -> Here:
    """The image itself, along the row in hand, as far as its pixels and their colours are known, for ``layer``."""

    def make() -> tuple[Here, Strip]:
        B, channels = cache.batch, layer.in_channels
        here = Here.of(B, channels, like)
        here.strip = Strip(B, channels, layer.kernel_size, cache.width, like)
        return here, here.strip

    here, strip = cache.of(layer, make, "image")
    pixels = strip.pixels

    def step(c: int) -> None:
        row = cache.image[:, :, cache.row]
        if c > 0:  # its last colour was not known when this was its place
            pixels[c - 1].copy_(row[:, :, c - 1])
        pixels[c].copy_(row[:, :, c])

    cache.step(step)
    return here


def gated_pixel(
    layer: Any, z: Here, link: Row, terms: Terms, features: Here | None, cache: Cache
) -> tuple[Here, Here | None]:
    """The horizontal half of a ``GatedLayer``; its skip is added to ``features``, which the first layer makes."""
    conv = layer.horizontal_conv
    taps = conv.matrix()
    p, B, reach = conv.out_channels // 2, cache.batch, conv.kernel_size[1] - 1

    def make() -> tuple[Strip, Tensor, Here]:
        of_row = by_column(cache.width, B, 2 * p, taps)
        strip = z.strip or Strip(B, conv.in_channels, (1, reach + 1), cache.width, taps)
        cache.row_step(lambda: put(terms.added(link.x, layer.horizontal_bias, cache), of_row))
        return strip, of_row, Here.of(B, p, taps)

    strip, of_row, z_out = cache.of(layer, make)
    here = None if strip is z.strip else strip.pixels
    windows, columns, values = strip.windows, of_row.unbind(0), z.values
    a = taps.new_empty(B, 2 * p)
    with_one = taps.new_ones(B, p + 1)  # a row of each matrix is the bias
    signal, opening, y = a[:, :p], a[:, p:], with_one[:, :p]
    of_signal, of_opening = torch.empty_like(signal), torch.empty_like(signal)
    addmm, mm = torch.addmm, torch.mm
    out, first = None if layer.out is None else layer.out.matrix(bias=True), layer.first
    skip = None if layer.skip is None else layer.skip.matrix(bias=True)
    begins = features is None
    if features is None and skip is not None:
        features = cache.of(layer, lambda: Here.of(B, p, taps), "features")
    told = None if features is None else features.values
    z_values = z_out.values

    def step(c: int) -> None:
        if here is not None:
            here[c].copy_(values)
        addmm(columns[c], windows[c], taps, out=a)
        torch.tanh(signal, out=of_signal)
        torch.sigmoid(opening, out=of_opening)
        torch.mul(of_signal, of_opening, out=y)
        if out is not None:
            if first:
                mm(with_one, out, out=z_values)
            else:
                addmm(values, with_one, out, out=z_values)
        if skip is not None and told is not None:
            if begins:
                mm(with_one, skip, out=told)
            else:
                addmm(told, with_one, skip, out=told)

    cache.step(step)
    return (z if layer.out is None else z_out), features


def linear_pixel(conv: Any, image: Here, above: Row, features: Here, cache: Cache) -> Tensor:
    """``features`` and behind them the outputs of a linear path: (B, p + outputs, 1, 1)."""
    taps = conv.matrix()
    B, p = cache.batch, features.values.shape[1]
    if image.strip is None:
        raise AssertionError("the image is a strip")

    def make() -> tuple[Tensor, Tensor]:
        of_row = by_column(cache.width, B, conv.out_channels, taps)
        cache.row_step(lambda: put(above.x, of_row))
        return of_row, taps.new_empty(B, p + conv.out_channels)

    of_row, both = cache.of(conv, make)
    windows, columns = image.strip.windows, of_row.unbind(0)
    told, first, last = features.values, both[:, :p], both[:, p:]

    def step(c: int) -> None:
        first.copy_(told)
        torch.addmm(columns[c], windows[c], taps, out=last)

    cache.step(step)
    return both[:, :, None, None]


def gated_head_pixel(first: Any, second: Any, features: Tensor, cache: Cache) -> Tensor:
    """ReLU, 1x1, ReLU, 1x1, and the linear path's outputs, which stand behind the features if there are any."""
    p = first.in_channels
    x, linear = features[:, :p, 0, 0], features[:, p:, 0, 0]
    into, out = first.matrix(), second.matrix()
    into_bias, out_bias = first.bias.detach(), second.bias.detach()
    active, hidden = into.new_empty(cache.batch, p), into.new_empty(cache.batch, into.shape[1])
    parameters = into.new_empty(cache.batch, out.shape[1])

    def step(c: int) -> None:
        torch.clamp(x, 0, out=active)
        torch.addmm(into_bias, active, into, out=hidden)
        hidden.clamp_(0)
        torch.addmm(out_bias, hidden, out, out=parameters)
        if linear.shape[1]:
            parameters.add_(linear)

    cache.step(step)
    return parameters[:, :, None, None]
