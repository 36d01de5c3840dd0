"""A block of pictures being painted: soft-edged shapes, and where a head that turns in depth shows its features.

Every operation on a pixel is one float32 + - * / sqrt, floor, min or max, so that a picture owes nothing to its
neighbours in the block, to the number of threads or to the machine.

Legend: b pictures, planes (b, H, W), numbers of a picture (b, 1, 1), colours (3, b, 1, 1) in 0..1. Lengths are half
sides of the picture (of its shorter side), measured on an upright head of scale 1; x points right, y down.
"""

from __future__ import annotations

import copy
from typing import Self

import numpy as np

from condgen.data.portraits.moments import Moment
from condgen.data.portraits.people import Person
from condgen.data.portraits.points import Planes


def clip(x: Planes) -> Planes:
    """``x`` brought into 0..1, in place."""
    np.minimum(x, 1.0, out=x)
    return np.maximum(x, 0.0, out=x)


def square(x: Planes) -> Planes:
    """``x`` times itself, in place."""
    x *= x
    return x


def inside(f: Planes, edge: Planes) -> Planes:
    """Coverage of where ``f`` < 1, with an edge one pixel wide if ``edge`` is 1 / (slope of f there * pixel)."""
    cover = f * -edge
    cover += edge + 0.5
    return clip(cover)


def beyond(distance: Planes, pixel: Planes) -> Planes:
    """Coverage of where ``distance`` is positive."""
    cover = distance * (1 / pixel)
    cover += 0.5
    return clip(cover)


def band(distance: Planes, half: Planes | float, pixel: Planes) -> Planes:
    """Coverage of |distance| < half: the share of a pixel's width, so that a thin line fades and never breaks up."""
    cover = beyond(distance + half, pixel)
    cover -= beyond(distance - half, pixel)
    return np.maximum(cover, 0.0, out=cover)


def ellipse(dx: Planes, dy: Planes, half_x: Planes | float, half_y: Planes | float, pixel: Planes) -> Planes:
    """Coverage of an upright ellipse, (dx, dy) from its centre. Below a pixel it grows fainter, not smaller."""
    wide, high = np.maximum(half_x, 0.55 * pixel), np.maximum(half_y, 0.55 * pixel)
    f = square(dx * (1 / wide))
    f += square(dy * (1 / high))
    cover = inside(f, np.minimum(wide, high) * (0.5 / pixel))  # along y, f rises by 2 / high per length at the edge
    cover *= half_x * half_y / (wide * high)
    return cover


class Canvas:
    """The pictures of one block and the coordinates of their pixels."""

    def __init__(self, person: Person, moment: Moment, height: int, width: int) -> None:
        self.person, self.moment = person, moment
        self.unit = unit = min(height, width) / 2
        self.seen = slice(0, height)
        across = ((np.arange(width) + 0.5 - width / 2) / unit).astype(np.float32)
        down = ((np.arange(height) + 0.5 - height / 2) / unit).astype(np.float32)[:, None]
        pictures = len(person.face_width)
        self.image = np.empty((3, pictures, height, width), np.float32)
        self.frame_x = np.ascontiguousarray(np.broadcast_to(across, (pictures, height, width)))
        self.frame_y = np.ascontiguousarray(np.broadcast_to(down, (pictures, height, width)))
        self.pixel = np.float32(1 / unit) / moment.scale
        # the body moves and grows with the head but stays upright
        self.body_x = (self.frame_x - moment.shift_x) / moment.scale
        self.body_y = (self.frame_y - moment.shift_y) / moment.scale
        # the head tilts about a point in the neck
        level, pivot = np.sqrt(1 - moment.tilt * moment.tilt), 0.7
        below_pivot = self.body_y - pivot
        self.x = self.body_x * level + below_pivot * moment.tilt
        self.y = below_pivot * level - self.body_x * moment.tilt + pivot
        self.cosine = np.sqrt(1 - moment.turn * moment.turn)

    def rows(self, top: float, bottom: float) -> Self:
        """The rows that may show the head between the heights ``top`` and ``bottom``: a view, faster to paint.

        Nothing may be laid outside: what covers nothing changes nothing, so leaving rows out does not either.
        """
        slack = 0.14  # tilt moves a point of the head by at most 0.13 up or down; float32 by far less than the rest
        scale, shift = self.moment.scale, self.moment.shift_y
        height = self.image.shape[2]
        first = float(np.min(shift + scale * (top - slack))) * self.unit + height / 2
        last = float(np.max(shift + scale * (bottom + slack))) * self.unit + height / 2
        part = copy.copy(self)
        part.seen = rows = slice(max(0, int(first) - 1), min(height, int(last) + 2))
        part.image = self.image[:, :, rows]
        part.x, part.y = self.x[:, rows], self.y[:, rows]
        part.body_x, part.body_y = self.body_x[:, rows], self.body_y[:, rows]
        return part

    def across(self, x: Planes | float, depth: float) -> Planes:
        """Where the turned head shows a point ``x`` beside its middle, ``depth`` half face widths before its axis."""
        return x * self.cosine + self.moment.turn * self.person.face_width * depth

    def height(self, y: Planes | float, depth: float) -> Planes:
        """The same for a nodding head and a point at height ``y``."""
        return y + self.moment.nod * depth

    def lay(self, cover: Planes, colour: Planes) -> None:
        """Put ``colour``, (3, b, 1, 1) or (3, b, H, W), over the pictures where ``cover`` (b, H, W) says."""
        change = colour - self.image
        change *= cover
        self.image += change
