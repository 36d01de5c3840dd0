"""A decoded picture in plain colours: mode L, RGB or RGBA, 8 bits, sRGB."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageCms

from condgen.data.limits import Unreadable

_MAX_PROFILE = 4 << 20


def srgb(image: Image.Image) -> Image.Image:
    """The same picture in mode L, RGB or RGBA, its embedded colour profile applied where it can be read."""
    profile = image.info.get("icc_profile")
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format == "PPM"):  # 16 bits: the upper eight
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if mode in ("I", "F"):
        kind = "floating-point" if mode == "F" else "32-bit"
        raise Unreadable(f"it is a {kind} image, whose black and white are anybody's guess; save it with 8 or 16 bits")
    if mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes every one for Adobe's, whose inks are stored inverted
    if mode == "LAB":
        return _transformed(image, _from_lab())
    if mode not in ("CMYK", "L", "RGB", "RGBA") or image.has_transparency_data:
        image = image.convert(_plain_mode(image))
    transform = _transform(profile, image.mode) if profile and len(profile) <= _MAX_PROFILE else None
    if transform is not None:
        image = _transformed(image, transform)
    return image.convert("RGB") if image.mode == "CMYK" else image


def _plain_mode(image: Image.Image) -> str:
    if image.has_transparency_data:
        return "RGBA"
    return "L" if image.mode in ("1", "L") else "RGB"


def _transformed(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    result = ImageCms.applyTransform(image, transform)
    return image if result is None else result  # None only where it was asked to work in place


@lru_cache(maxsize=1)
def _from_lab() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from ``profile`` to sRGB; None where it is sRGB already or cannot be used."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return None
        output = "RGBA" if mode == "RGBA" else "RGB"
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, output)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
