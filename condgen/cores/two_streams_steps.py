"""The blocks of ``two_streams.py`` at one row or one pixel: the start, a gated resnet, the way out (see ``steps.py``).

Where a row as a whole is known (the rows above, the vertical stream, the condition), what it brings to its pixels is
computed at once, before the first of them.

Legend: B images, F filters, W pixels of a row at the block's resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from condgen import native
from condgen.cores.cache import Cache, Step
from condgen.cores.packed import Packed, packed
from condgen.cores.steps import Here, PixelStrip, RowStrip, activate, flat, matrix, put, way

if TYPE_CHECKING:
    from condgen.cores.conditioning import Terms


def start_rows(above: Any, row: Any, cache: Cache) -> tuple[Here, Here]:
    """Two ``VerticalConv`` of the image and of ones, shifted down: row 0 has nothing at all."""

    def make() -> tuple[Step, Here, Here]:
        B, width, like = cache.batch, cache.width, above.bias.detach()
        convolutions = [cache.of_weights(conv, "row", partial(packed, conv)) for conv in (above, row)]
        strips = [RowStrip(B, above.in_channels, conv.kernel_size, width, like) for conv in (above, row)]
        u, ul = (Here.of((B, width), above.out_channels, like) for _ in strips)

        def step(c: int) -> None:
            if cache.row == 0:
                return
            pixels = flat(cache.image[:, :, cache.row - 1 : cache.row])
            for strip, convolution, y in zip(strips, convolutions, (u, ul), strict=True):
                strip.begin_row()
                (place,) = strip.places
                place[..., :-1].copy_(pixels)
                place[..., -1] = 1
                y.values.copy_(flat(convolution(strip.whole)))

        return step, u, ul

    step, u, ul = cache.of(above, make)
    cache.step(step)
    return u, ul


def start_pixel(layer: Any, above: Here, cache: Cache) -> Here:
    """The first ``CornerConv`` of the image and of ones, shifted right, and ``above``: column 0 has nothing else."""

    def make() -> tuple[Step, Here]:
        kh, like = layer.kernel_size[0], layer.bias.detach()
        convolution = cache.of_weights(layer, "above", lambda: Packed(layer.weight[:, :, :-1], layer.bias))
        B, outputs, channels = cache.batch, layer.out_channels, layer.in_channels - 1
        of_row, before = like.new_zeros(cache.width, B, outputs), like.new_ones(B, channels + 1)
        y = Here.of((B,), outputs, like)

        def begin() -> None:
            r = cache.row
            rows = F.pad(cache.image[:, :, max(0, r - kh + 1) : r, :-1], (0, 0, max(0, kh - 1 - r), 0))
            ones = torch.ones_like(rows[:, :1])
            ones[:, :, : max(0, kh - 1 - r)] = 0
            of_row.copy_(above.values.transpose(0, 1))
            beside = convolution(torch.cat([rows, ones], 1))
            of_row[1:] += beside[:, :, 0].permute(2, 0, 1)

        cache.row_step(begin)
        taps = cache.of_weights(layer, "taps", partial(_taps, layer))
        columns, colours, out = of_row.unbind(0), before[:, :channels], y.values

        def step(c: int) -> None:
            if c == 0:
                out.copy_(columns[0])
            else:
                colours.copy_(cache.image[:, :, cache.row, c - 1])
                torch.addmm(columns[c], before, taps, out=out)

        return step, y

    step, y = cache.of(layer, make)
    cache.step(step)
    return y


def recall_pixel(recall: Any, x: Here, cache: Cache) -> None:
    """Adds to ``x`` what the mean over the pixels before this one tells: a running sum."""

    def make() -> Step:
        into, told = (cache.of_weights(layer, "taps", partial(_taps, layer)) for layer in (recall.what, recall.told))
        into_bias, told_bias = recall.what.bias.detach(), recall.told.bias.detach()
        B, width = cache.batch, cache.width
        before, hidden = into.new_ones(B, len(into)), Here.of((B,), into.shape[1], into)
        active, total, mean = (into.new_zeros(B, len(told)) for _ in range(3))
        colours, out, pixels = before[:, :-1], x.values, 0
        nonlinearity = activate(recall.activation.nonlinearity, hidden, [active])

        def step(c: int) -> None:
            nonlocal pixels
            number = cache.row * width + c
            while pixels < number:
                colours.copy_(cache.image[:, :, pixels // width, pixels % width])
                torch.addmm(into_bias, before, into, out=hidden.values)
                nonlinearity(0)
                total.add_(active)
                pixels += 1
            torch.mul(total, 1 / max(1, number), out=mean)
            torch.addmm(out, mean, told, out=out).add_(told_bias)

        return step

    cache.step(cache.of(recall, make))


def resnet(block: Any, feature: Any, terms: Terms, auxiliary: tuple[Any, ...], cache: Cache) -> Here:
    """A ``GatedResnet``, along a row or at a pixel; there auxiliary features are of the pixel, or of the whole row."""
    x: Here = feature.x
    feature.strip(cache, block.conv_in.kernel_size)
    for other in auxiliary:
        other.strip(cache, before_pixels=other.x.by_rows and not x.by_rows)
    lay_out = _row_resnet if x.by_rows else _pixel_resnet
    step, y = cache.of(block, lambda: lay_out(block, x, terms, [other.x for other in auxiliary], cache))
    cache.step(step)
    return y


def _part(block: Any, number: int) -> Tensor:
    """The weights of the 1x1 layer for one of the auxiliary features."""
    part: Tensor = block.nin.weight.detach().split(block.nin.inputs, dim=1)[number]
    return part


def _packed_part(block: Any, number: int) -> Packed:
    return Packed(_part(block, number))


def _part_taps(block: Any, number: int) -> Tensor:
    return matrix(_part(block, number))


def _taps(layer: Any) -> Tensor:
    return matrix(layer.weight)


def _packed_parts(block: Any, auxiliary: list[Here], cache: Cache) -> list[tuple[Tensor, Packed]]:
    """Of the auxiliary features that are there as rows: the row, (B, C, 1, W), and the 1x1 convolution over it."""
    found = [(number, _rows(other).row) for number, other in enumerate(auxiliary) if other.by_rows]
    return [
        (row, cache.of_weights(block, f"packed part {number}", partial(_packed_part, block, number)))
        for number, row in found
    ]


def _row_resnet(block: Any, x: Here, terms: Terms, auxiliary: list[Here], cache: Cache) -> tuple[Step, Here]:
    like = _opening_bias(block)
    first = cache.of_weights(block, "first row", lambda: Packed(block.conv_in.weight, _opening_bias(block)))
    second = cache.of_weights(block, "second row", lambda: packed(block.conv_out))
    B, width, filters = cache.batch, cache.width, len(like)
    hidden, y = (Here.of((B, width), filters, like) for _ in range(2))
    inner = RowStrip(B, block.conv_out.in_channels, block.conv_out.kernel_size, width, like)
    outer = _rows(x)
    others = _packed_parts(block, auxiliary, cache)
    nonlinearity = activate(block.activation.nonlinearity, hidden, inner.places)
    opening, values, hidden_values, out = hidden.values.new_empty(B, width, filters), x.values, hidden.values, y.values

    def step(c: int) -> None:
        into = first(outer.whole)
        for row, part in others:
            into = part.add_to(into, row)
        hidden_values.copy_(flat(into))
        inner.begin_row()
        nonlinearity(0)
        gates = flat(terms.added(second(inner.whole), block.condition, cache))
        torch.sigmoid(gates[..., filters:], out=opening)
        torch.addcmul(values, gates[..., :filters], opening, out=out)

    return step, y


def _pixel_resnet(block: Any, x: Here, terms: Terms, auxiliary: list[Here], cache: Cache) -> tuple[Step, Here]:
    like = _opening_bias(block)
    B, width, filters = cache.batch, cache.width, len(like)
    outer, inner = _pixels(x), PixelStrip(B, block.conv_out.in_channels, block.conv_out.kernel_size, width, like)
    hidden, y = (Here.of((B,), filters, like) for _ in range(2))
    # what the row brings to each of the two convolutions
    in_row, gates_row = like.new_zeros(width, B, filters), like.new_zeros(width, B, 2 * filters)
    gates = like.new_empty(B, 2 * filters)
    cache.row_step(_row_share(block, (outer, inner), (in_row, gates_row), auxiliary, terms, cache))

    of_pixels = [(number, other) for number, other in enumerate(auxiliary) if not other.by_rows]
    others = [
        (_pixels(other).places, cache.of_weights(block, f"part {k}", partial(_part_taps, block, k)))
        for k, other in of_pixels
    ]
    first = cache.of_weights(block, "first", partial(_taps, block.conv_in))
    second = cache.of_weights(block, "second", partial(_taps, block.conv_out))
    if cache.native and block.activation.nonlinearity == "concat_elu" and len(others) < 2:
        places, taps = others[0] if others else (None, None)
        ways = [way([x.values]), way([y.values]), way(in_row.unbind(0)), way(gates_row.unbind(0))]
        ways += [way(outer.windows), way(places), way(inner.windows), way(inner.places)]
        inputs = [len(first), 0 if taps is None else len(taps), len(second)]
        flat_ways = [field for way in ways for field in way]
        buffers = hidden.values.new_empty(B, filters), gates
        return native.step("resnet_pixel", B, filters, *flat_ways, *inputs, first, taps, second, *buffers), y
    nonlinearity = activate(block.activation.nonlinearity, hidden, inner.places)
    in_columns, windows = in_row.unbind(0), outer.windows
    gate_columns, inner_windows = gates_row.unbind(0), inner.windows
    a, b = gates.chunk(2, dim=1)
    values, hidden_values, out = x.values, hidden.values, y.values
    addmm, addcmul, add_product, open_gates = torch.addmm, torch.addcmul, hidden_values.addmm_, b.sigmoid_

    def step(c: int) -> None:
        addmm(in_columns[c], windows[c], first, out=hidden_values)
        for places, taps in others:
            add_product(places[c], taps)
        nonlinearity(c)
        addmm(gate_columns[c], inner_windows[c], second, out=gates)
        open_gates()
        addcmul(values, a, b, out=out)

    return step, y


def _opening_bias(block: Any) -> Tensor:
    """Of the first convolution and of the 1x1 layer beside it, (F,)."""
    bias: Tensor = block.conv_in.bias.detach()
    return bias if block.nin is None else bias + block.nin.bias.detach()


def _row_share(
    block: Any, strips: tuple[PixelStrip, PixelStrip], shares: tuple[Tensor, Tensor], auxiliary: list[Here],
    terms: Terms, cache: Cache,
) -> Callable[[], None]:  # fmt: skip
    """The row step of a resnet at pixels: what rows above, the vertical stream and the condition bring to its two
    convolutions, whose inputs and ``shares`` are given."""
    rows, (outer, inner) = _packed_parts(block, auxiliary, cache), strips
    convolutions, biases = (block.conv_in, block.conv_out), (_opening_bias(block), block.conv_out.bias.detach())
    looks_up = block.conv_in.kernel_size[0] > 1
    constant = [bias.view(1, -1, 1, 1).expand(cache.batch, -1, 1, cache.width) for bias in biases]

    def above(number: int) -> Packed:
        return Packed(convolutions[number].weight[:, :, :-1], biases[number])

    if looks_up:
        first, second = (cache.of_weights(block, f"above {number}", partial(above, number)) for number in (0, 1))

    def begin() -> None:
        into = first(outer.above()) if looks_up else constant[0].clone()
        for row, part in rows:
            into = part.add_to(into, row)
        put(into, shares[0])
        gates = second(inner.above()) if looks_up else constant[1]
        put(terms.added(gates, block.condition, cache), shares[1])
        outer.begin_row()
        inner.begin_row()

    return begin


def _rows(x: Here) -> RowStrip:
    if not isinstance(x.strip, RowStrip):
        raise AssertionError("nobody has asked for the rows of this feature")
    return x.strip


def _pixels(x: Here) -> PixelStrip:
    if not isinstance(x.strip, PixelStrip):
        raise AssertionError("nobody has asked for the pixels of this feature")
    return x.strip


def head_pixel(layer: Any, features: Tensor, cache: Cache) -> Tensor:
    """elu and a ``Pointwise``: (B, F, 1, 1) -> (B, outputs, 1, 1)."""
    taps, bias = cache.of_weights(layer, "taps", partial(_taps, layer)), layer.bias.detach()
    x = Here(features[None, :, :, 0, 0])
    active, parameters = torch.empty_like(x.values), taps.new_empty(cache.batch, len(bias))
    nonlinearity = activate("elu", x, [active])

    def step(c: int) -> None:
        nonlinearity(0)
        torch.addmm(bias, active, taps, out=parameters)

    cache.step(step)
    return parameters[:, :, None, None]
