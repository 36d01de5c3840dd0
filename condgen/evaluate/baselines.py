"""What lossless image files need for the same images: PNG and WebP over one mosaic, in bits per sub-pixel.

A file of one small image is mostly header, and a compressor that adapts has hardly begun. So all images lie in one
mosaic, as square as possible, in the order in which the model is evaluated.

Legend: N images, C channels, H x W pixels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, features
from torch import Tensor

FORMATS = ("png", "webp")
WEBP_SIDE = 16383
"""The largest side of a WebP file; a set that needs more is spread over several mosaics."""
CHANNELS = (1, 3, 4)
"""Grey, RGB, RGBA: what both formats can hold."""


def mosaics(images: np.ndarray) -> list[np.ndarray]:
    """The images (N, C, H, W) as tiles of one picture (rows H, columns W, C), filled up with zeros; more pictures
    only where one would be too large for WebP."""
    N, C, H, W = images.shape
    most = (WEBP_SIDE // H) * (WEBP_SIDE // W)
    pictures = []
    for part in np.array_split(images, -(-N // most)):
        n = len(part)
        columns = min(n, WEBP_SIDE // W, max(1, math.ceil(math.sqrt(n * H / W))))
        rows = -(-n // columns)
        if rows > WEBP_SIDE // H:
            rows = WEBP_SIDE // H
            columns = -(-n // rows)
        tiles = np.zeros((rows * columns, C, H, W), dtype=np.uint8)
        tiles[:n] = part
        tiles = tiles.reshape(rows, columns, C, H, W).transpose(0, 3, 1, 4, 2)  # (rows, H, columns, W, C)
        pictures.append(tiles.reshape(rows * H, columns * W, C))
    return pictures


def encoded(mosaic: np.ndarray, kind: str, bit_depth: int) -> bytes:
    """A mosaic (height, width, C) as a file of ``kind``, at the greatest effort.

    The file holds the values as they are, 0 .. 2^bit_depth - 1, in samples of 8 bits: no compressor minds that the
    upper bits are zero. Binary grey is what PNG has a format of its own for, 1 bit a pixel; it gets that.
    """
    C = mosaic.shape[2]
    picture = Image.fromarray(mosaic[..., 0] if C == 1 else mosaic)
    file = io.BytesIO()
    if kind == "png":
        if bit_depth == 1 and C == 1:
            picture = Image.fromarray(mosaic[..., 0].astype(bool))  # mode 1
        picture.save(file, "PNG", optimize=True)
    else:
        # exact: WebP otherwise replaces the colours of pixels whose alpha is 0
        picture.save(file, "WEBP", lossless=True, quality=100, method=6, exact=True)
    return file.getvalue()


def baselines(
    images: Tensor | np.ndarray, bit_depth: int = 8, done: Callable[[str], None] = lambda kind: None
) -> dict[str, float | None]:
    """Bits per sub-pixel of real files over the images: ``{"png": 5.63, "webp": 4.32}``.

    The blank rest of the mosaic counts in the file, not in the sub-pixels.

    Args:
        images: uint8 (N, C, H, W) on 0 .. 2^bit_depth - 1.
        done: called with the format's name when its file is finished (WebP takes seconds per thousand images).

    Returns:
        null for a format that cannot hold such images (2 channels, or more than 4) or that Pillow was built without.
    """
    values = images.cpu().numpy() if isinstance(images, Tensor) else images
    bits: dict[str, float | None] = {}
    for kind in FORMATS:
        if values.shape[1] not in CHANNELS or (kind == "webp" and not features.check("webp")):
            bits[kind] = None
        else:
            size = sum(len(encoded(mosaic, kind, bit_depth)) for mosaic in mosaics(values))
            bits[kind] = 8 * size / values.size
        done(kind)
    return bits
