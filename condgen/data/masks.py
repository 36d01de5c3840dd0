"""Which pixels of an image are known: a black-and-white picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from condgen.data.images import decode, pillow_quiet
from condgen.data.limits import MAX_BYTES, Unreadable
from condgen.errors import InputError, shown
from condgen.files import read_regular

_COLOURLESS = 48
"""A JPEG's black and white differ between the colours by less."""


def open_mask(path: str | Path, height: int, width: int) -> Tensor:
    """bool (H, W): where ``path`` is black, the image is known; from middle grey on it is not.

    Raises:
        InputError: no readable picture, of another size, or with colours or transparency, which could mean anything.
    """
    path = Path(path)
    try:
        with pillow_quiet():
            picture = decode(read_regular(path, MAX_BYTES))
    except Unreadable as reason:
        raise InputError(f"{shown(path)} is no usable picture: {reason.message}.", file=path) from reason
    if picture.size != (width, height):
        raise InputError(
            f"{shown(path)} is {picture.width}x{picture.height} and the model's images are {width}x{height}; give a "
            "mask of their size.",
            file=path,
        )
    pixels = np.atleast_3d(np.asarray(picture)).astype(np.int64)  # (H, W, 1, 3 or 4)
    colours, alpha = pixels[..., :3], pixels[..., 3:]
    what = "transparent places" if alpha.size and alpha.min() < 255 else ""
    if int((colours.max(-1) - colours.min(-1)).max()) > _COLOURLESS:
        what = "colours"
    if what:
        raise InputError(
            f"{shown(path)} has {what}; save the mask as plain black (known) and white (to be drawn).", file=path
        )
    return torch.from_numpy(colours.mean(-1) < 128)
