"""Photographs with faces: made from that of Eileen Collins which scikit-image brings (NASA, public domain)."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
import pytest
from PIL import Image

BOX = (181.05, 62.16, 267.75, 172.05)
"""Of the face, as facenet-pytorch 2.5.3 finds it."""


@lru_cache(maxsize=1)
def _pixels() -> np.ndarray:
    return pytest.importorskip("skimage.data", reason="scikit-image has the photograph").astronaut()


def astronaut() -> Image.Image:
    """The photograph, RGB, 512x512."""
    return Image.fromarray(_pixels())


def head() -> Image.Image:
    """Its head with some background, 240x240; the detector's box is at (81, 42, 168, 152)."""
    return astronaut().crop((100, 20, 340, 260))


def group() -> Image.Image:
    """Three faces in one picture: the largest on the right, the smallest on the left."""
    canvas = Image.new("RGB", (620, 300), (120, 130, 140))
    for left, side in ((10, 100), (130, 180), (330, 280)):
        canvas.paste(head().resize((side, side), Image.Resampling.BICUBIC), (left, 10))
    return canvas


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
