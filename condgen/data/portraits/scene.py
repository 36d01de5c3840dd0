"""Everything but hair and features: background, clothes, neck, ears, the rounded face, and the light on it all.

Legend: as in canvas.py. ``u, v`` are places in half face widths and heights on the head as it is turned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from condgen.data.portraits.canvas import Canvas, band, beyond, ellipse, inside, square
from condgen.data.portraits.points import Planes, rgb


@dataclass(frozen=True, slots=True)
class Face:
    """The outline of a face and the light on it, planes (b, H, W)."""

    v: Planes
    outline: Planes  # below 1 inside the face
    edge: Planes  # for `inside`, (b, 1, 1)
    shade: Planes  # brightness against the skin's own, about -0.2 to 0.2
    cover: Planes


def background(c: Canvas) -> None:
    m = c.moment
    part = c.frame_x * m.slope_x
    part += c.frame_y * m.slope_y
    part += 0.5
    np.minimum(part, 1.0, out=part)
    np.maximum(part, 0.0, out=part)
    np.multiply(part, m.far - m.near, out=c.image)
    c.image += m.near
    soft = 6 * c.pixel  # out of focus
    c.lay(ellipse(c.frame_x - m.spot_x, c.frame_y - m.spot_y, m.spot_size, m.spot_size, soft), m.spot)
    c.lay(0.5 * ellipse(c.frame_x - m.disc_x, c.frame_y - m.disc_y, m.disc_size, m.disc_size, soft), m.spot)


def clothes(c: Canvas) -> None:
    m = c.moment
    c = c.rows(0.5, 4.0)
    f = square(c.body_x * (1 / 0.98))
    f += square(np.minimum(c.body_y - 1.30, 0.0) * (1 / 0.56))
    light = c.body_x * (m.light_x * 0.25)
    light += 1
    c.lay(inside(f, 0.28 / c.pixel), m.clothes * light)


def face(c: Canvas) -> Face:
    """The face's shape; `skin` paints it."""
    p, m = c.person, c.moment
    v = c.y * (1 / p.face_height)
    narrow = square(np.maximum(v, 0.0))
    narrow *= -p.chin
    narrow += 1
    narrow *= p.face_width
    lean = v * (m.turn * 0.12)  # the chin leads, the skull lags
    lean += m.turn * 0.02
    u = (c.x - lean) / narrow
    uu, vv = u * u, v * v
    outline = np.minimum(uu, 1.0)
    outline *= np.minimum(vv, 1.0)
    outline *= np.where(v > 0, -p.squareness, np.float32(-0.15))
    outline += uu
    outline += vv
    shade = np.minimum(outline, 1.6)
    shade *= -0.10
    shade += u * (m.light_x * 0.13)
    shade += v * (m.light_y * 0.13)
    shade += 0.06
    edge = 0.5 * np.minimum(p.face_width, p.face_height) / c.pixel
    return Face(v, outline, edge, shade, inside(outline, edge))


def neck_and_ears(c: Canvas) -> None:
    p, m = c.person, c.moment
    low = c.rows(0.25, 1.2)
    x = low.body_x - m.turn * 0.04
    end = square(x * (1 / p.neck))
    end *= -0.16
    end += m.neckline * 0.12 + 0.80
    cover = band(x, p.neck, c.pixel)
    cover *= beyond(end - low.body_y, c.pixel)
    cover *= beyond(low.body_y - 0.3, c.pixel)
    low.lay(cover, p.skin * rgb(0.80, 0.74, 0.72))
    middle = c.rows(-0.25, 0.35)
    seen = 1 - 0.85 * p.long_hair
    for side in (-1, 1):
        dx = middle.x - c.across(p.face_width * (0.97 * side), -0.25)
        dy = middle.y - c.height(0.03 - 0.5 * p.eye_height, 0)
        middle.lay(
            ellipse(dx, dy, p.ear * 0.75, p.ear * 1.15, c.pixel) * seen, p.skin * (0.92 + 0.1 * side * m.light_x)
        )


def skin(c: Canvas, face: Face) -> None:
    p = c.person
    colour = face.shade * rgb(1.0, 1.12, 1.2)  # shadows on skin are warm
    colour += 1
    colour *= p.skin
    c.lay(face.cover, colour)
    c = c.rows(0.05, 0.55)
    for side in (-1, 1):
        blush = square((c.x - c.across(p.face_width * (0.56 * side), 0.75)) * (1 / 0.17))
        blush += square((c.y - c.height(p.nose_length + 0.04, 0.7)) * (1 / 0.13))
        blush *= -p.blush
        blush += p.blush
        c.lay(np.maximum(blush, 0.0, out=blush), p.skin * rgb(1.0, 0.66, 0.62) + rgb(0.05, 0.0, 0.02))


def light(c: Canvas) -> None:
    """The light that falls on the whole picture: its side, its strength, its warmth."""
    m = c.moment
    gain = c.frame_x * (m.light_x * 0.07)
    gain += c.frame_y * (m.light_y * 0.07)
    gain += m.exposure
    c.image *= gain
    c.image *= rgb(1.0, 0.0, -1.0) * m.warmth + 1
