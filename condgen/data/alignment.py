"""A face brought to its place: a similarity transform takes its five points to fixed mean positions.

The frame is a portrait's: the whole head with its hair. The mean positions have the proportions of an adult face
(in distances between the pupils: tip of the nose 0.57 below the eyes, mouth 1.15 below and 0.83 wide), placed and
scaled as the drawn portraits (``condgen.data.portraits``) have theirs on average, so that photographs and drawings
share one frame.

Legend: H x W the crop, S its shorter side; in positions x points right and y down.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from condgen.data.faces import Face

MEAN_POINTS = np.array([[0.385, 0.505], [0.615, 0.505], [0.5, 0.636], [0.4045, 0.77], [0.5955, 0.77]])
"""Eyes, tip of the nose, corners of the mouth in an aligned square, as shares of its side; ``Face.points`` in order."""
MEAN_BOX = (0.24, 0.24, 0.76, 0.93)
"""Where the detector's box lies in it: left, top, right, bottom."""
_FINER = 4
"""Source pixels a side that make up one of the crop, at most: a picture with more is reduced before it is turned."""


def aligned(picture: Image.Image, face: Face, height: int, width: int) -> tuple[Image.Image, float]:
    """The crop of ``face`` out of an RGB picture at the size that is asked for, upright.

    What lies beyond the picture's edge repeats the edge.

    Returns:
        The crop (H, W), and the share of it that repeats the edge.
    """
    turn, shift = _placement(face, height, width)
    # pixels of the picture for one of the crop; the rest of a reduction is made by averaging after the turn
    per_pixel = abs(turn)
    factor = max(1, math.ceil(per_pixel / _FINER - 1e-6))
    if factor > 1:
        picture = picture.reduce(factor)
        turn, shift = turn / factor, shift / factor
    finer = max(1, math.ceil(abs(turn) - 1e-6))  # not for the last bit of a least square
    corners = np.array([0, width, 1j * height, width + 1j * height]) * turn + shift
    left, top = (math.floor(part.min()) - 2 for part in (corners.real, corners.imag))
    right, bottom = (math.ceil(part.max()) + 2 for part in (corners.real, corners.imag))
    region = _with_edges(picture, left, top, right, bottom)
    step, start = turn / finer, shift - complex(left, top)
    # PIL's matrix takes the middle of a crop's pixel to a place in the region
    matrix = (step.real, -step.imag, start.real, step.imag, step.real, start.imag)
    crop = region.transform(
        (width * finer, height * finer), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR
    )
    return (crop.reduce(finer) if finer > 1 else crop), _share_beyond(picture, turn, shift, height, width)


def _placement(face: Face, height: int, width: int) -> tuple[complex, complex]:
    """Turn and shift of the similarity from the crop to the picture, p = turn * q + shift on x + iy.

    With points, the least squares over all five (Umeyama 1991, without reflections); of a box alone, no turn.
    """
    side = min(height, width)
    middle = complex(width, height) / 2
    if face.points is None:
        left, top, right, bottom = face.box
        area = (MEAN_BOX[2] - MEAN_BOX[0]) * (MEAN_BOX[3] - MEAN_BOX[1])
        turn = complex(math.sqrt(face.area / area) / side)
        mean = complex(MEAN_BOX[0] + MEAN_BOX[2], MEAN_BOX[1] + MEAN_BOX[3]) / 2
        place = complex(left + right, top + bottom) / 2
        return turn, place - turn * ((mean - (0.5 + 0.5j)) * side + middle)
    q = (MEAN_POINTS - 0.5) @ np.array([1, 1j]) * side + middle  # (5,)
    p = face.points @ np.array([1, 1j])
    q_spread, p_spread = q - q.mean(), p - p.mean()
    turn = complex((q_spread.conj() * p_spread).sum() / (abs(q_spread) ** 2).sum())
    return turn, complex(p.mean()) - turn * complex(q.mean())


def _with_edges(picture: Image.Image, left: int, top: int, right: int, bottom: int) -> Image.Image:
    """This box of the picture; beyond its edge the nearest pixel."""
    columns = np.clip(np.arange(left, right), 0, picture.width - 1)
    rows = np.clip(np.arange(top, bottom), 0, picture.height - 1)
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    inner = np.asarray(picture.crop(box))
    return Image.fromarray(inner[rows - box[1]][:, columns - box[0]])


def _share_beyond(picture: Image.Image, turn: complex, shift: complex, height: int, width: int) -> float:
    """The share of a crop's pixels whose middle lies outside the picture."""
    places = (np.arange(width) + 0.5 + 1j * (np.arange(height) + 0.5)[:, None]) * turn + shift  # (H, W)
    within = (places.real >= 0) & (places.real <= picture.width) & (places.imag >= 0) & (places.imag <= picture.height)
    return float(1 - within.mean())
