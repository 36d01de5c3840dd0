"""What the geometry of PixelCNN++ promises to see: worked out backwards from a pixel, by the layers' reach alone.

It is written from the reach of each kind of layer, without the layers: a network with a wrong crop or shift does not
agree with it.

Legend: H x W pixels, n the side of a layer's field, m = n // 2. ``need`` is a bool map of the places of a tensor that
the pixel's parameters depend on.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _moved(need: Tensor, rows: int, columns: int) -> Tensor:
    """``need`` moved up and to the right by so many places; what leaves the map is gone."""
    H, W = need.shape
    out = torch.zeros_like(need)
    from_left, to_left = max(0, -columns), max(0, columns)
    if rows < H and abs(columns) < W:
        out[: H - rows, to_left : W - from_left] = need[rows:, from_left : W - to_left]
    return out


def _any_of(maps: list[Tensor]) -> Tensor:
    return torch.stack(maps).any(0)


def _conv(need: Tensor, m: int, stream: str) -> Tensor:
    """Places of the input that a convolution reads: m rows above and, of u, m columns to either side, of ul m left."""
    columns = range(-m, m + 1) if stream == "u" else range(-m, 1)
    return _any_of([_moved(need, a, b) for a in range(m + 1) for b in columns])


def _strided(need: Tensor, m: int, stream: str) -> Tensor:
    """The same of a convolution of stride 2: coarse place (i, j) reads around fine place (2i, 2j)."""
    fine = torch.zeros(2 * need.shape[0], 2 * need.shape[1], dtype=torch.bool)
    fine[::2, ::2] = need
    return _conv(fine, m, stream)


def _transposed(need: Tensor, m: int, stream: str) -> Tensor:
    """Coarse places (i, j) that write to a needed fine place (2i + a, 2j + b): a from 0, b from -m (u) or 0, to m."""
    columns = range(-m, m + 1) if stream == "u" else range(m + 1)
    H, W = need.shape
    coarse = torch.zeros(H // 2, W // 2, dtype=torch.bool)
    for a in range(m + 1):
        for b in columns:
            for i in range(H // 2):
                if 2 * i + a < H:
                    j = torch.arange(W // 2)
                    inside = (2 * j + b >= 0) & (2 * j + b < W)
                    coarse[i, inside] |= need[2 * i + a, (2 * j + b)[inside]]
    return coarse


def pyramid_sees(
    row: int, column: int, height: int, width: int, down: list[int], up: list[int], field: int, short_cuts: bool
) -> Tensor:
    """Pixels that the parameters at (row, column) depend on: bool (H, W).

    Args:
        down, up: resnets of each block, from full resolution to the coarsest and back.
    """
    m = field // 2
    need = {stream: torch.zeros(height, width, dtype=torch.bool) for stream in ("u", "ul")}
    need["ul"][row, column] = True
    asked: dict[str, list[Tensor]] = {"u": [], "ul": []}  # what the short-cuts ask of the way down, first use last

    def back_through_resnet(with_short_cut: bool) -> None:
        hidden = _conv(need["ul"], m, "ul")  # between the two convolutions, where the auxiliary input enters
        need["ul"] = need["ul"] | _conv(hidden, m, "ul")
        need["u"] = need["u"] | hidden
        hidden_u = _conv(need["u"], m, "u")
        need["u"] = need["u"] | _conv(hidden_u, m, "u")
        if with_short_cut:
            asked["ul"].append(hidden)
            asked["u"].append(hidden_u)

    def answer(*, bottom: bool = False) -> None:
        """A feature of the way down is also what the short-cut brought from it; the bottom goes up without one."""
        if short_cuts and not bottom:
            for stream in need:
                need[stream] = need[stream] | asked[stream].pop()

    for k, resnets in enumerate(reversed(up)):
        if k:
            need = {stream: _transposed(need[stream], m, stream) for stream in need}
        for _ in range(resnets):
            back_through_resnet(short_cuts)
    for k, resnets in enumerate(reversed(down)):
        if k:
            answer()
            need = {stream: _strided(need[stream], m, stream) for stream in need}
        for r in range(resnets):
            answer(bottom=k == 0 and r == 0)
            back_through_resnet(False)
    answer()
    return _start(need, m)


def _start(need: dict[str, Tensor], m: int) -> Tensor:
    """Pixels read by the three first convolutions, of which two are shifted down and one to the right."""
    u, ul = _moved(need["u"], 1, 0), _moved(need["ul"], 1, 0)
    rows_above = _conv(u, m, "u")
    row_above = _any_of([_moved(ul, 0, b) for b in range(-m, m + 1)])
    to_the_left = _any_of([_moved(_moved(need["ul"], 0, -1), a, 0) for a in range(m + 1)])
    return rows_above | row_above | to_the_left


def everything_before(row: int, column: int, height: int, width: int) -> Tensor:
    """All earlier pixels in raster order: bool (H, W)."""
    return torch.arange(height * width).view(height, width) < row * width + column


def rectangle_sees(
    row: int, column: int, height: int, width: int, *, rows_above: int, to_either_side: int, to_the_left: int
) -> Tensor:
    """A rectangle above (row, column) and a strip to its left, without holes: bool (H, W)."""
    r, c = torch.arange(height)[:, None], torch.arange(width)
    above = (r < row) & (r >= row - rows_above) & ((c - column).abs() <= to_either_side)
    return above | (r == row) & (c < column) & (c >= column - to_the_left)
