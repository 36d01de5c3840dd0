"""Where faces are in a picture: MTCNN (Zhang et al. 2016) as facenet-pytorch brings it, its weights included.

The one module that knows that package's detector. It runs on the CPU, so that a crop is the same everywhere.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from condgen.errors import lacks_memory

_LONGEST = 1024
"""Pixels of the longer side that are searched. A face of a fiftieth of it is still found."""
_SHORTEST = 128
"""Smaller pictures are enlarged to this before the search."""
_TOO_SMALL = 16
"""Pixels of the shorter side in which no face can be told; the networks fail on less."""
_SMALLEST_FACE = 20
_THRESHOLDS = (0.6, 0.7, 0.9)
"""Probabilities that the three networks ask for: the authors' but for the last (0.7), as the largest face is taken and
what is only somewhat like one, in clothes or leaves, is often large."""


@dataclass(frozen=True)
class Face:
    """A face in a picture, in its pixels; places may lie beyond the edge."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom."""
    points: np.ndarray | None = None
    """float64 (5, 2), x and y: the eye on the left of the picture, the other, tip of the nose, corners of the mouth;
    None where somebody drew the box."""
    probability: float = 1.0

    @property
    def area(self) -> float:
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


def find_faces(picture: Image.Image) -> list[Face]:
    """The faces of an RGB picture, the largest first."""
    width, height = picture.size
    if min(width, height) < _TOO_SMALL:
        return []
    scale = min(_LONGEST / max(width, height), max(1.0, _SHORTEST / min(width, height)))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if min(size) < _TOO_SMALL:  # of a very long strip
        return []
    searched = picture
    if size != picture.size:
        searched = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    found = [
        Face(
            (box[0] / scale, box[1] / scale, box[2] / scale, box[3] / scale),
            np.asarray(points, dtype=np.float64) / scale,
            float(probability),
        )
        for box, probability, points in _detected(searched)
        if box[2] > box[0] and box[3] > box[1]
    ]
    return sorted(found, key=lambda face: (-face.area, face.box))


def _detected(picture: Image.Image) -> list[tuple[list[float], float, Any]]:
    """(box, probability, points) of each face that the networks see."""
    try:
        boxes, probabilities, points = _detector().detect(picture, landmarks=True)
    except (RuntimeError, ValueError, IndexError) as error:
        # between two of its networks every candidate may turn out empty, which it does not expect
        if lacks_memory(error):
            raise
        return []
    if boxes is None:
        return []
    return [
        ([float(side) for side in box], float(probability), place)
        for box, probability, place in zip(boxes, probabilities, points, strict=True)
    ]


_making = threading.Lock()


def _detector() -> Any:
    with _making:  # of several threads one makes it
        return _made_detector()


@lru_cache(maxsize=1)
def _made_detector() -> Any:
    from facenet_pytorch import MTCNN

    return MTCNN(keep_all=True, min_face_size=_SMALLEST_FACE, thresholds=list(_THRESHOLDS), device="cpu").eval()
