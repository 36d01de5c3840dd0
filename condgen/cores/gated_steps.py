"""The layers and the head of ``gated.py`` at one row or one pixel (see ``steps.py``).

Legend: B images, C colour channels, p feature maps after the gate, W pixels of a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from condgen.cores.cache import Cache, Step
from condgen.cores.packed import Packed
from condgen.cores.steps import Here, PixelStrip, RowStrip, flat, put

if TYPE_CHECKING:
    from condgen.cores.conditioning import Terms


def image_row(conv: Any, cache: Cache) -> Here:
    """The image's row at the cache's place, whole, for ``conv``."""

    def make() -> tuple[Step, Here]:
        here = Here.of((cache.batch, cache.width), conv.in_channels, conv.weight.detach())

        def step(c: int) -> None:
            if cache.row >= 0:
                here.values.copy_(flat(cache.image[:, :, cache.row : cache.row + 1]))

        return step, here

    step, here = cache.of(conv, make, "image")
    cache.step(step)
    return here


def image_pixel(conv: Any, cache: Cache) -> Here:
    """The image along the row in hand, as far as its pixels and their colours are known, for ``conv``."""

    def make() -> tuple[Step, Here]:
        here = Here.of((cache.batch,), conv.in_channels, conv.weight.detach())
        here.strip = PixelStrip(cache.batch, conv.in_channels, conv.kernel_size, cache.width, here.values)
        places = here.strip.places

        def step(c: int) -> None:
            row = cache.image[:, :, cache.row]
            if c > 0:  # its last colour was not known when this was its place
                places[c - 1].copy_(row[:, :, c - 1])
            places[c].copy_(row[:, :, c])

        return step, here

    step, here = cache.of(conv, make, "image")
    cache.step(step)
    return here


def gated_row(layer: Any, v: Here, terms: Terms, cache: Cache) -> tuple[Here, Here]:
    """The vertical half of a ``GatedLayer``, of the row above, and the link to the row in hand.

    Above the image, at row -1, is nothing: the link is its bias.
    """
    conv, B, p = layer.vertical_conv, cache.batch, layer.vertical_conv.out_channels // 2

    def make() -> tuple[Step, Here, Here]:
        weight, link_bias = conv.weight.detach(), layer.link.bias.detach()
        convolution, to_link = Packed(weight, conv.bias), Packed(layer.link.weight, link_bias)
        strip = RowStrip(B, conv.in_channels, conv.kernel_size, cache.width, weight)
        y, link = Here.of((B, cache.width), p, weight), Here.of((B, cache.width), 2 * p, weight)
        signal, opening = (weight.new_empty(B, cache.width, p) for _ in range(2))

        def step(c: int) -> None:
            if cache.row < 0:
                link.values.copy_(link_bias)
                return
            strip.begin_row()
            strip.places[0].copy_(v.values)
            a = terms.added(convolution(strip.whole), layer.vertical_bias, cache)
            link.values.copy_(flat(to_link(a)))
            gates = flat(a)
            torch.tanh(gates[..., :p], out=signal)
            torch.sigmoid(gates[..., p:], out=opening)
            torch.mul(signal, opening, out=y.values)

        return step, y, link

    step, y, link = cache.of(layer, make, "row")
    cache.step(step)
    return y, link


def gated_pixel(
    layer: Any, z: Here, link: Here, terms: Terms, features: Here | None, cache: Cache
) -> tuple[Here, Here | None]:
    """The horizontal half of a ``GatedLayer``; its skip is added to ``features``, which the first layer makes."""
    conv, B, p = layer.horizontal_conv, cache.batch, layer.horizontal_conv.out_channels // 2

    def make() -> tuple[Step, Here, Here | None]:
        taps = conv.matrix()
        of_row = taps.new_zeros(cache.width, B, 2 * p)
        cache.row_step(lambda: put(terms.added(_image(link), layer.horizontal_bias, cache), of_row))
        strip = z.strip
        reads_image = isinstance(strip, PixelStrip)
        if not isinstance(strip, PixelStrip):
            strip = PixelStrip(B, conv.in_channels, conv.kernel_size, cache.width, taps)
        places, windows, columns, values = strip.places, strip.windows, of_row.unbind(0), z.values
        a, with_one = taps.new_empty(B, 2 * p), taps.new_ones(B, p + 1)  # a row of each matrix below is the bias
        signal, opening, y = a[:, :p], a[:, p:], with_one[:, :p]
        of_signal, of_opening = taps.new_empty(B, p), taps.new_empty(B, p)
        z_next, told = Here.of((B,), p, taps), features
        out = None if layer.out is None else layer.out.matrix(bias=True)
        skip = None if layer.skip is None else layer.skip.matrix(bias=True)
        if told is None and skip is not None:
            told = Here.of((B,), p, taps)
        addmm, mm, z_out, sums = torch.addmm, torch.mm, z_next.values, None if told is None else told.values
        first, begins = layer.first, features is None

        def step(c: int) -> None:
            if not reads_image:
                places[c].copy_(values)
            addmm(columns[c], windows[c], taps, out=a)
            torch.tanh(signal, out=of_signal)
            torch.sigmoid(opening, out=of_opening)
            torch.mul(of_signal, of_opening, out=y)
            if out is not None and first:
                mm(with_one, out, out=z_out)
            elif out is not None:
                addmm(values, with_one, out, out=z_out)
            if skip is not None and sums is not None:
                if begins:
                    mm(with_one, skip, out=sums)
                else:
                    addmm(sums, with_one, skip, out=sums)

        return step, z_next if out is not None else z, told

    step, z_next, told = cache.of(layer, make, "pixel")
    cache.step(step)
    return z_next, told


def _image(row: Here) -> Tensor:
    """(B, C, 1, W)."""
    return row.values.transpose(1, 2)[:, :, None]


def linear_pixel(conv: Any, image: Here, above: Here, features: Here, cache: Cache) -> Tensor:
    """``features`` and behind them the outputs of a linear path: (B, p + outputs, 1, 1)."""
    taps, B, p = conv.matrix(), cache.batch, features.values.shape[1]
    of_row, both = taps.new_zeros(cache.width, B, conv.out_channels), taps.new_empty(B, p + conv.out_channels)
    cache.row_step(lambda: put(_image(above), of_row))
    if not isinstance(image.strip, PixelStrip):
        raise AssertionError("the image is a strip")
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
