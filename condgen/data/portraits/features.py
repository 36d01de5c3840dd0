"""Eyes, brows, nose, mouth and glasses, each at its place and depth on the head. Legend: as in canvas.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from condgen.data.portraits.canvas import Canvas, band, beyond, ellipse, inside, square
from condgen.data.portraits.points import Planes, rgb
from condgen.data.portraits.scene import Face

WHITE = rgb(0.96, 0.96, 0.95)
DARK = rgb(0.10, 0.07, 0.08)
THROAT = rgb(0.36, 0.07, 0.10)
TONGUE = rgb(0.80, 0.36, 0.38)
SHADOW = rgb(0.80, 0.68, 0.66)


@dataclass(frozen=True, slots=True)
class Eyes:
    """Both eyes on one pair of planes: places in half eye widths from the centre of the nearer eye."""

    canvas: Canvas
    x: Planes
    y: Planes
    outwards: Planes  # x counted away from the nose
    pixel: Planes
    left: Planes  # where the eyes are, and their half widths as seen
    right: Planes
    wide_left: Planes
    wide_right: Planes

    @classmethod
    def on(cls, canvas: Canvas) -> Self:
        c, p = canvas.rows(-0.62, 0.32), canvas.person
        apart = p.eye_distance * p.face_width
        left, right = c.across(-apart, 0.82), c.across(apart, 0.82)
        turned = 0.55 * c.moment.turn  # what turns away narrows: d/dx of the place on a round head
        wide_left, wide_right = p.eye_width * (c.cosine + turned), p.eye_width * (c.cosine - turned)
        side = c.x < c.across(0.0, 0.9)
        x = (c.x - np.where(side, left, right)) / np.where(side, wide_left, wide_right)
        y = (c.y - c.height(-p.eye_height, 0.85)) * (1 / p.eye_width)
        outwards = np.where(side, -x, x)
        return cls(c, x, y, outwards, c.pixel / p.eye_width, left, right, wide_left, wide_right)


def eyes(on: Eyes, face: Face) -> None:
    c, p, m = on.canvas, on.canvas.person, on.canvas.moment
    on_face = face.cover[:, c.seen]
    lids = p.eye_shape * m.eyes * (1 - 0.22 * np.maximum(m.smile, 0.0))
    c.lay(ellipse(on.x, on.y + 0.13, 1.12, lids + 0.12, on.pixel) * on_face, p.hair * 0.18 + DARK * 0.7)
    white = ellipse(on.x, on.y, 1.0, lids, on.pixel)
    white *= on_face
    white *= np.minimum(4 * m.eyes, 1.0)
    c.lay(white, WHITE)
    x = on.x - (0.7 * m.gaze + 0.5 * m.turn)
    c.lay(ellipse(x, on.y, 0.66, 0.66, on.pixel) * white, p.iris)
    c.lay(ellipse(x, on.y, 0.34, 0.34, on.pixel) * white, DARK)
    c.lay(ellipse(x - 0.22 * m.light_x, on.y + 0.28, 0.2, 0.2, on.pixel) * white, WHITE)


def brows(on: Eyes, face: Face) -> None:
    c, p, m = on.canvas, on.canvas.person, on.canvas.moment
    distance = on.outwards * on.outwards
    distance *= 0.035
    distance += on.outwards * p.brow_tilt
    distance += on.y * p.eye_width
    distance += p.brow_height + m.raised + 0.45 * p.eye_width * p.eye_shape
    half = square(on.outwards - 0.1)
    half *= -0.45
    half += 1
    np.maximum(half, 0.0, out=half)
    half *= p.brow_thickness
    c.lay(band(distance, half, c.pixel) * face.cover[:, c.seen], p.hair * 0.72)


def nose(c: Canvas) -> None:
    p, m = c.person, c.moment
    c = c.rows(-0.12, 0.50)
    x = c.x - c.across(0.0, 1.28)
    y = c.y - c.height(p.nose_length, 1.2)
    c.lay(0.75 * ellipse(x, y - 0.012, p.nose_width * 1.12, 0.062, c.pixel), p.skin * SHADOW)
    aside = x + (0.5 * m.light_x + m.turn) * p.nose_width * 0.6
    bridge = ellipse(aside, y + p.nose_length * 0.5, p.nose_width * 0.55, p.nose_length * 0.6, c.pixel)
    c.lay(0.30 * bridge, p.skin * SHADOW)
    c.lay(ellipse(x, y + 0.03, p.nose_width * 0.9, 0.07, c.pixel), p.skin * rgb(1.06, 1.03, 1.02))


def mouth(c: Canvas, face: Face) -> None:
    """Lips along a parabola; parted they show teeth (a grin), the throat and the tongue."""
    p, m = c.person, c.moment
    c = c.rows(0.10, 0.85)
    on_face = face.cover[:, c.seen]
    wide = p.mouth_width * (c.cosine - 0.25 * np.abs(m.turn))
    wide = wide * (1 + 0.25 * np.maximum(m.smile, 0.0) - 0.3 * m.opening)
    across = np.minimum(square((c.x - c.across(0.0, 0.85)) * (1 / wide)), 4.0)
    y = across - 0.4
    y *= m.smile * 0.125
    y += c.y - c.height(p.mouth_height, 1.0)
    taper = np.maximum(1 - across, 0.0)  # everything ends at the corners
    grin = np.maximum(m.smile - 0.3, 0.0)
    up = 0.06 * m.opening * (1 - grin)
    down = 0.19 * m.opening + 0.125 * grin
    gap = up + down
    middle = y - taper * (0.5 * (down - up))
    lips = band(middle, taper * (0.5 * gap + p.lips), c.pixel)
    lips *= on_face
    c.lay(lips, p.lip)
    hole = band(middle, taper * (0.5 * gap), c.pixel)
    hole *= on_face
    c.lay(hole, THROAT)
    depth = np.minimum(0.62 * gap, 0.085)
    teeth = band(y + taper * (up - 0.5 * depth), taper * (0.5 * depth), c.pixel)
    teeth *= hole
    teeth *= np.minimum(1.5 * grin + 0.35 * m.opening, 1.0)
    c.lay(teeth, WHITE)
    tongue = beyond(y - taper * (down - 0.055), c.pixel)
    tongue *= hole
    tongue *= m.opening
    c.lay(tongue, TONGUE)
    line = band(y, taper * 0.018, c.pixel)
    line *= on_face
    line *= 1 - np.minimum(20 * gap, 1.0)
    c.lay(line, p.lip * 0.5)


def glasses(on: Eyes, face: Face) -> None:
    c, p = on.canvas, on.canvas.person
    half = np.maximum(0.026, 0.36 * c.pixel)  # never so thin that the frame is lost
    lens = p.lens * p.eye_distance * p.face_width / p.eye_width
    y = on.y - 0.12
    round_ = np.sqrt(on.x * on.x + y * y)
    square_ = np.maximum(np.abs(on.x), 1.12 * np.abs(y))
    square_ -= round_
    square_ *= p.lens_squareness
    round_ += square_
    c.lay(inside(round_ * (1 / lens), lens / on.pixel) * (p.lens_tint * p.glasses), p.frame * 0.6)
    frame = band(round_ - lens, half / p.eye_width, on.pixel)
    bars = beyond(on.left - on.wide_left * lens - c.x, c.pixel)
    bars += beyond(c.x - (on.right + on.wide_right * lens), c.pixel)
    bars *= face.cover[:, c.seen]
    bridge = beyond(c.x - (on.left + on.wide_left * lens), c.pixel)
    bridge *= beyond(on.right - on.wide_right * lens - c.x, c.pixel)
    bars += bridge
    bars *= band(on.y * p.eye_width + 0.01, half, c.pixel)
    np.maximum(frame, bars, out=frame)
    frame *= p.glasses
    c.lay(frame, p.frame)
