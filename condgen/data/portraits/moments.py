"""How a view finds a person: pose, expression, light, hat, clothes and background, a point of a second cube.

Legend: as in people.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from condgen.data.portraits.points import Columns, Planes, between, chance, coordinates, hue_colour, path

CHANCES = 43
"""Coordinates of a moment."""


@dataclass(frozen=True, slots=True)
class Moment(Columns):
    """What changes from view to view."""

    turn: Planes  # sine of the head's angle to the right
    nod: Planes  # sine, downwards
    tilt: Planes  # sine of the angle to a side
    shift_x: Planes
    shift_y: Planes
    scale: Planes
    smile: Planes  # -0.15 (corners hang) to 1
    opening: Planes  # of the mouth, 0 to 1
    raised: Planes  # brows
    eyes: Planes  # opening of the lids, 0 to 1
    gaze: Planes
    light_x: Planes
    light_y: Planes
    exposure: Planes
    warmth: Planes
    hat: Planes  # 0 or 1
    brim: Planes
    crown: Planes
    hat_low: Planes
    neckline: Planes
    slope_x: Planes  # of the background's gradient
    slope_y: Planes
    spot_x: Planes
    spot_y: Planes
    spot_size: Planes
    disc_x: Planes
    disc_y: Planes
    disc_size: Planes
    hat_colour: Planes
    clothes: Planes
    near: Planes  # the two colours of the background
    far: Planes
    spot: Planes


def moments_at(points: np.ndarray) -> Moment:
    """The moments at ``points`` (n, CHANCES) of the unit cube."""
    u = coordinates(points)
    hue = next(u)
    light = next(u)
    smile = next(u)
    opening = next(u)
    return Moment(
        turn=path(next(u), (0.0, 0.29, 0.31, 0.69, 0.71, 1.0), (-0.5, -0.3, -0.12, 0.12, 0.3, 0.5)),
        nod=between(next(u), -0.10, 0.12),
        tilt=between(next(u), -0.13, 0.13),
        shift_x=between(next(u), -0.07, 0.07),
        shift_y=between(next(u), 0.05, 0.16),
        scale=between(next(u), 0.95, 1.08),
        smile=path(smile, (0.0, 0.51, 0.53, 1.0), (-0.15, 0.1, 0.65, 1.0)),
        opening=path(opening, (0.0, 0.72, 0.74, 1.0), (0.0, 0.0, 0.55, 1.0)),
        raised=between(next(u), -0.03, 0.06),
        eyes=path(next(u), (0.0, 0.05, 0.08, 0.2, 1.0), (0.0, 0.0, 0.6, 0.8, 1.0)),
        gaze=between(next(u), -0.3, 0.3),
        light_x=between(light, -1.0, 1.0),
        light_y=between(next(u), -1.0, 0.1),
        exposure=between(next(u), 0.86, 1.06),
        warmth=between(next(u), -0.06, 0.07),
        hat=chance(next(u), 0.22),
        brim=path(next(u), (0.0, 0.35, 0.45, 1.0), (0.0, 0.0, 0.22, 0.42)),
        crown=between(next(u), 0.0, 1.0),
        hat_low=between(next(u), 0.32, 0.40),
        neckline=between(next(u), 0.0, 1.0),
        slope_x=between(next(u), -0.6, 0.6),
        slope_y=between(next(u), -0.6, 0.6),
        spot_x=between(next(u), -1.1, 1.1),
        spot_y=between(next(u), -1.1, 0.6),
        spot_size=between(next(u), 0.3, 0.8),
        disc_x=between(next(u), -1.1, 1.1),
        disc_y=between(next(u), -1.1, 0.6),
        disc_size=between(next(u), 0.2, 0.6),
        hat_colour=hue_colour(next(u), between(next(u), 0.3, 0.85), between(next(u), 0.3, 0.9)),
        clothes=hue_colour(next(u), between(next(u), 0.15, 0.8), between(next(u), 0.2, 0.9)),
        near=hue_colour(hue, between(next(u), 0.12, 0.40), between(next(u), 0.55, 0.93)),
        far=hue_colour(hue + between(next(u), -0.12, 0.12), between(next(u), 0.1, 0.4), between(next(u), 0.5, 0.92)),
        spot=hue_colour(hue + between(next(u), -0.2, 0.2), between(next(u), 0.1, 0.4), between(next(u), 0.55, 0.92)),
    )
