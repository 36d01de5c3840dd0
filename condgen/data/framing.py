"""A picture brought to the channels and the size that were asked for.

Legend: C channels (1 luma, 3 RGB, 4 RGBA), H x W the size asked for, w x h the picture's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from condgen.data.limits import Unreadable


@dataclass(frozen=True)
class Framing:
    """What every picture of a set is brought to."""

    channels: int
    height: int
    width: int
    fit: str = "crop"
    """``crop``: resized to cover, centre cut out; ``pad``: shrunk to fit if too large, and bordered; ``exact``."""
    background: tuple[int, int, int] = (255, 255, 255)
    """What shows through transparency and in the border, RGB 0..255."""

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width


def framed(image: Image.Image, framing: Framing) -> tuple[np.ndarray, bool]:
    """``image`` (mode L, RGB or RGBA) as uint8 (C, H, W), and whether its size was another.

    Raises:
        Unreadable: its size is another and ``fit`` is ``exact``.
    """
    target = (framing.width, framing.height)
    resized = image.size != target
    if resized and framing.fit == "exact":
        raise Unreadable(
            f"it is {image.width}x{image.height} where {framing.width}x{framing.height} is wanted; set data.fit to "
            "crop or pad"
        )
    image = with_channels(image, framing)
    if resized:
        image = _cropped(image, target) if framing.fit == "crop" else _padded(image, target, framing.background)
    pixels = np.asarray(image)  # (H, W) or (H, W, C)
    return (pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), resized


_Levels = TypeVar("_Levels", int, np.ndarray)


def luma(red: _Levels, green: _Levels, blue: _Levels) -> _Levels:
    """ITU-R BT.601 luma of values 0..255 (arrays: of at least 32 bits), in the integers that Pillow uses."""
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


def with_channels(image: Image.Image, framing: Framing) -> Image.Image:
    """``image`` (mode L, RGB or RGBA) in the framing's channels; what is transparent shows the background."""
    if framing.channels == 4:
        mode = "RGBA"
    else:
        mode = "RGB" if framing.channels == 3 else "L"
        if image.mode == "RGBA":  # composited: a plain conversion would bring hidden colours to light
            canvas = Image.new("RGB", image.size, framing.background)
            canvas.paste(image, mask=image)
            image = canvas
    return image if image.mode == mode else image.convert(mode)


def _cropped(image: Image.Image, target: tuple[int, int]) -> Image.Image:
    """The largest centred box of the target's shape, resized to it."""
    (width, height), (W, H) = image.size, target
    across = min(width, max(1, round(height * W / H)))
    down = min(height, max(1, round(width * H / W)))
    left, top = (width - across) // 2, (height - down) // 2
    return _resized(image, target, (left, top, left + across, top + down))


def _padded(image: Image.Image, target: tuple[int, int], background: tuple[int, int, int]) -> Image.Image:
    """Shrunk to fit where it is too large, never enlarged, in the middle of a border."""
    (width, height), (W, H) = image.size, target
    scale = min(W / width, H / height, 1.0)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = _resized(image, inner, (0, 0, width, height))
    # a border of a picture with alpha is transparent: composited later, it shows the background
    colours: dict[str, tuple[int, ...]] = {"L": (luma(*background),), "RGB": background, "RGBA": (*background, 0)}
    canvas = Image.new(image.mode, target, colours[image.mode])
    canvas.paste(image, ((W - inner[0]) // 2, (H - inner[1]) // 2))
    return canvas


def _resized(image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """``box`` of ``image`` at ``size``: area means when shrinking (exact for whole factors), bicubic when enlarging."""
    across, down = box[2] - box[0], box[3] - box[1]
    if (across, down) == size:
        return image.crop(box)
    if across % size[0] == 0 and down % size[1] == 0:
        return image.reduce((across // size[0], down // size[1]), box)
    shrinking = across >= size[0] and down >= size[1]
    return image.resize(size, Image.Resampling.BOX if shrinking else Image.Resampling.BICUBIC, box)
