"""Who is drawn: a point of a continuous space of shapes and colours. Whoever lies near by looks alike.

Legend: as in points.py. Lengths are in half sides of the picture, measured on an upright head; y points down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from condgen.data.portraits.points import Columns, Planes, between, chance, coordinates, hue_colour, path, rgb

TRAITS = 44
"""Coordinates of a person."""

DARK_SKIN = 0.68
_SKIN = (
    (0.96, 0.84, 0.75),
    (0.95, 0.76, 0.62),
    (0.87, 0.66, 0.49),
    (0.64, 0.43, 0.30),
    (0.49, 0.31, 0.21),
    (0.35, 0.22, 0.16),
)
_SKIN_STOPS = (0.0, 0.35, 0.66, 0.70, 0.86, 1.0)

# One path from black through brown, red and blond to grey: whoever stands near on it has hair of a like colour.
DARK, RED, BLOND, GREY = 0.38, 0.50, 0.66, 0.86
_HAIR = (
    (0.09, 0.08, 0.10),
    (0.22, 0.14, 0.10),
    (0.40, 0.25, 0.15),
    (0.46, 0.29, 0.17),
    (0.66, 0.24, 0.09),
    (0.85, 0.42, 0.14),
    (0.86, 0.68, 0.34),
    (0.95, 0.86, 0.58),
    (0.62, 0.63, 0.66),
    (0.86, 0.87, 0.90),
)
_HAIR_STOPS = (0.0, 0.36, 0.40, 0.485, 0.515, 0.645, 0.675, 0.845, 0.875, 1.0)

_IRIS = ((0.16, 0.09, 0.06), (0.36, 0.21, 0.10), (0.20, 0.42, 0.26), (0.20, 0.45, 0.72), (0.42, 0.52, 0.60))


@dataclass(frozen=True, slots=True)
class Person(Columns):
    """What stays the same in every view of an identity."""

    face_width: Planes  # half the width
    face_height: Planes
    chin: Planes  # how much the face narrows downwards
    squareness: Planes  # of the jaw
    blush: Planes
    ear: Planes
    neck: Planes
    eye_distance: Planes  # from the middle to an eye, in half face widths
    eye_height: Planes  # above the middle
    eye_width: Planes
    eye_shape: Planes  # height over width
    brow_thickness: Planes
    brow_tilt: Planes  # positive: the outer ends hang
    brow_height: Planes  # above the eye
    nose_length: Planes
    nose_width: Planes
    mouth_height: Planes  # below the middle
    mouth_width: Planes
    lips: Planes  # fullness
    volume: Planes  # of the hair, beyond the skull
    length: Planes  # of the hair, below the middle
    hairline: Planes  # above the middle
    sweep: Planes  # how far the hairline falls away from the parting
    parting: Planes
    curl: Planes
    flare: Planes  # of long hair
    bald: Planes  # 0 or 1, like beard, long_hair, fringe and glasses
    long_hair: Planes
    fringe: Planes
    beard: Planes
    beard_length: Planes
    beard_cheeks: Planes  # how far up the cheeks it grows
    glasses: Planes
    lens: Planes  # radius over the distance from the middle to an eye
    lens_squareness: Planes
    lens_tint: Planes
    skin: Planes
    hair: Planes
    iris: Planes
    lip: Planes
    frame: Planes
    tone: Planes  # of the skin, 0 light to 1 dark
    shade_of_hair: Planes  # place on the path through the colours of hair


def people_at(points: np.ndarray) -> Person:
    """The persons at ``points`` (n, TRAITS) of the unit cube."""
    u = coordinates(points)
    bald = chance(next(u), 0.14)
    long_hair = chance(next(u), 0.46) * (1 - bald)
    fringe = chance(next(u), 0.34) * (1 - bald)
    beard = chance(next(u), 0.34 - 0.18 * long_hair)
    glasses = chance(next(u), 0.32)
    tone, undertone, shade, lightness = next(u), next(u), next(u), next(u)
    skin = path(tone, _SKIN_STOPS, _SKIN) + (undertone - 0.5) * rgb(0.01, 0.05, -0.06)
    hair = path(shade, _HAIR_STOPS, _HAIR) * between(lightness, 0.88, 1.12)
    frame_hue, frame_value = next(u), next(u)
    return Person(
        face_width=between(next(u), 0.49, 0.63),
        face_height=between(next(u), 0.66, 0.78),
        chin=between(next(u), 0.04, 0.36),
        squareness=between(next(u), 0.0, 0.75),
        blush=between(next(u), 0.0, 0.5),
        ear=between(next(u), 0.09, 0.16),
        neck=between(next(u), 0.26, 0.38),
        eye_distance=between(next(u), 0.40, 0.50),
        eye_height=between(next(u), 0.02, 0.14),
        eye_width=between(next(u), 0.115, 0.16),
        eye_shape=between(next(u), 0.55, 1.0),
        brow_thickness=between(next(u), 0.016, 0.05),
        brow_tilt=between(next(u), -0.045, 0.05),
        brow_height=between(next(u), 0.15, 0.23),
        nose_length=between(next(u), 0.16, 0.27),
        nose_width=between(next(u), 0.06, 0.12),
        mouth_height=between(next(u), 0.36, 0.45),
        mouth_width=between(next(u), 0.19, 0.30),
        lips=between(next(u), 0.025, 0.075),
        volume=between(next(u), 0.05, 0.20),
        length=np.where(long_hair > 0, between(next(u), 0.85, 1.5), between(next(u), 0.18, 0.45)),
        hairline=np.where(fringe > 0, np.float32(0.27), between(next(u), 0.45, 0.57)),
        sweep=np.where(fringe > 0, np.float32(0.04), between(next(u), -0.02, 0.40)),
        parting=between(next(u), -0.7, 0.7),
        curl=path(next(u), (0.0, 0.55, 0.75, 1.0), (0.0, 0.0, 0.06, 0.13)),
        flare=between(next(u), 0.0, 0.6),
        bald=bald,
        long_hair=long_hair,
        fringe=fringe,
        beard=beard,
        beard_length=between(next(u), 0.0, 0.16),
        beard_cheeks=between(next(u), 0.0, 1.0),
        glasses=glasses,
        lens=between(next(u), 0.62, 0.86),
        lens_squareness=between(next(u), 0.0, 0.9),
        lens_tint=path(next(u), (0.0, 0.6, 1.0), (0.0, 0.05, 0.55)),
        skin=np.clip(skin, 0.05, 0.95),
        hair=np.clip(hair, 0.05, 0.94),
        iris=path(next(u), (0.0, 0.45, 0.62, 0.82, 1.0), _IRIS),
        lip=skin * rgb(0.72, 0.50, 0.50) + rgb(0.16, 0.04, 0.06),
        frame=hue_colour(frame_hue, 0.2 + 0.6 * frame_value, 0.08 + 0.4 * frame_value * frame_value),
        tone=tone,
        shade_of_hair=shade,
    )
