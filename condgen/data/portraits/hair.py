"""Hair behind and before the face, beards and hats. Legend: as in canvas.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from condgen.data.portraits.canvas import Canvas, band, beyond, ellipse, inside, square
from condgen.data.portraits.points import Planes
from condgen.data.portraits.scene import Face


def _waves(x: Planes) -> Planes:
    """A parabola in every unit interval, 0 to 0.25, in place: a wave without a sine, which machines differ about."""
    x -= np.floor(x + 0.5)
    return square(x)


@dataclass(frozen=True, slots=True)
class Hair:
    """The outline of the hair and its texture."""

    wide: Planes  # half its width, (b, 1, 1)
    top: Planes  # its height above the middle, (b, 1, 1)
    outline: Planes  # below 1 inside, without the part that hangs below the middle
    hang: Planes  # squared distance below the middle over the length of the hair
    edge: Planes  # for `inside`, (b, 1, 1)
    curls: Planes  # -0.7 to 1.3 of the person's curl
    strands: Planes

    @classmethod
    def on(cls, c: Canvas) -> Self:
        p, m = c.person, c.moment
        curls = _waves(c.x * 4.2)
        curls += _waves(c.y * 4.2 + 0.3)
        curls *= 4
        curls -= 0.66
        curls *= p.curl
        strands: Planes = c.x * (0.8 * np.abs(c.y) + 2.6)
        strands += c.y * p.parting
        strands = _waves(strands)
        strands -= 0.083
        strands *= np.maximum(0.6 - 6 * p.curl, 0.0)
        wide, top = p.face_width + 0.75 * p.volume, p.face_height + p.volume - 0.03
        below = np.maximum(c.y, 0.0)
        flare = np.minimum(below, 1.0)
        flare *= p.flare * p.long_hair
        flare += 1
        outline = square((c.x + 0.05 * m.turn) * (1 / wide))
        outline /= flare
        outline += square(np.minimum(c.y, 0.0) * (1 / top))
        hang = square(below * (1 / p.length))
        edge = 0.5 * np.minimum(wide, top) / c.pixel
        return cls(wide, top, outline, hang, edge, curls, strands)


def hair_behind(c: Canvas, hair: Hair, face: Face) -> None:
    p = c.person
    f = hair.hang * hair.hang
    f -= hair.hang
    f *= p.long_hair  # long hair falls straight before it ends
    f += hair.hang
    f += hair.outline
    f += hair.curls
    cover = inside(f, hair.edge)
    cover *= 1 - p.bald
    light = face.shade * 0.8
    light -= hair.curls
    light -= hair.strands
    light += 0.72
    c.lay(cover, p.hair * light)


def hair_in_front(c: Canvas, hair: Hair, face: Face) -> None:
    """What lies before the face: above a hairline that falls away from the parting and along the temples."""
    p = c.person
    across = (c.x - c.across(0.0, 0.45)) * (1 / p.face_width)
    line = np.abs(across - p.parting)
    line *= p.sweep
    square(across)
    temple = across * across
    temple *= across
    temple *= 0.38 * p.long_hair + 0.22
    line += temple
    line -= c.y
    line += c.height(-p.hairline, 0.5)
    line -= 0.4 * hair.curls
    cover = beyond(line, c.pixel)
    f = hair.outline + hair.hang
    f += hair.curls
    cover *= inside(f, hair.edge)
    cover *= 1 - p.bald
    light = square(hair.outline - 0.45)  # a band of gloss round the head
    light *= -1.2
    light += 0.10
    np.maximum(light, 0.0, out=light)
    light += face.shade * 1.5
    light -= 1.6 * hair.curls
    light -= hair.strands
    light += 1
    c.lay(cover, p.hair * light)


def beard(c: Canvas, hair: Hair, face: Face) -> None:
    """The lower face below a line that leaves the nose, falls over the cheeks and rises to the ears."""
    p = c.person
    across = np.minimum(square((c.x - c.across(0.0, 0.85)) * (1 / p.face_width)), 1.1)
    line = across - (0.80 - 0.40 * p.beard_cheeks)
    line *= across
    line += c.y
    line -= c.height(p.nose_length + 0.085, 1.1)
    outline = np.maximum(face.v, 0.0)
    outline *= -1.6 * p.beard_length - 0.05
    outline += face.outline
    outline += 0.5 * hair.curls
    cover = inside(outline, face.edge)
    cover *= beyond(line, c.pixel)
    cover *= p.beard
    light = face.shade * 1.2
    light -= hair.curls
    light += 0.9
    c.lay(cover, p.hair * light)


def hat(c: Canvas, hair: Hair) -> None:
    """A crown wider than any hair, a darker band, and a brim that may be missing (then it is a cap)."""
    m = c.moment
    c = c.rows(-3.0, -0.1)
    x = (c.x - 0.03 * m.turn) * (1 / (hair.wide + 0.045))
    bend = x * x
    y = c.y - c.height(-m.hat_low, 0.2)
    y -= 0.06 * bend
    top = hair.top + 0.08 + 0.12 * m.crown - m.hat_low
    up = square(np.minimum(y, 0.0) * (1 / top))
    f = up * -0.25
    f += 1
    f *= bend
    f += up
    crown = inside(f, 0.5 * np.minimum(hair.wide, top) / c.pixel)
    crown *= beyond(-y, c.pixel)
    crown *= m.hat
    light = x * (0.2 * m.light_x)
    light += 0.12 * up
    light += 0.95
    c.lay(crown, m.hat_colour * light)
    crown *= band(y + 0.075, 0.075, c.pixel)
    c.lay(crown, m.hat_colour * 0.62)
    rise = c.y - c.height(0.03 - m.hat_low, 0.2)
    brim = ellipse(c.x - 0.08 * m.turn, rise, hair.wide + m.brim, 0.05 + 0.1 * m.brim, c.pixel)
    brim *= m.hat * np.minimum(10 * m.brim, 1.0)
    c.lay(brim, m.hat_colour * 0.82)
