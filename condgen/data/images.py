"""One picture: from the bytes of a file to uint8 (C, H, W), upright, in sRGB, at the size that was asked for.

Files are strangers. What a file is, its content decides, not its name; only the decoders of ``_DECODERS`` ever run,
and none of them before the size that the header claims has been held against the limits below.

Legend: C channels (1 luma, 3 RGB, 4 RGBA), H x W the size asked for, w x h the picture's own.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageCms, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile
from torch import Tensor

from condgen.errors import InputError, shown
from condgen.files import read_regular

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
)
"""How names of pictures end, in lower case. Where one is named on the command line, its content alone decides."""
MAX_BYTES = 64 << 20
MAX_PIXELS = 1 << 26
MAX_SIDE = 16384
_LARGE_PIXELS = 1 << 24
"""From here on one picture at a time: a decoded one takes up to 12 bytes a pixel while its colours are converted."""
_MAX_SCANS = 500
_MAX_SCANNED_PIXELS = 1 << 30
"""A progressive JPEG repaints the picture with every scan, a few bytes each; usual ones have ten."""
_MAX_CHUNKS = 100_000
_MAX_PROFILE = 4 << 20

_PNG = b"\x89PNG\r\n\x1a\n"
_DECODERS: tuple[tuple[bytes, type[ImageFile.ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImageFile),  # not Pillow's factory, which turns some into MPO: the first picture is wanted
    (_PNG, PngImageFile),
    (b"RIFF....WEBP", WebPImageFile),
    (b"GIF87a", GifImageFile),
    (b"GIF89a", GifImageFile),
    (b"BM", BmpImageFile),
    (b"II*\x00", TiffImageFile),
    (b"MM\x00*", TiffImageFile),
    (b"II+\x00", TiffImageFile),
    (b"MM\x00+", TiffImageFile),
    *((b"P%d" % kind, PpmImageFile) for kind in range(1, 7)),
)
_OTHERS = (
    (b"version https://git-lfs", "it is a git-LFS pointer, not the picture; run git lfs pull"),
    (b"<!doctype html", "it is an HTML page, perhaps the error page of a download; fetch it again"),
    (b"<html", "it is an HTML page, perhaps the error page of a download; fetch it again"),
    (b"<svg", "SVG is not accepted; save it as PNG"),
    (b"<?xml", "XML and SVG are not accepted; save it as PNG"),
    (b"%PDF", "PDF is not accepted; save its pictures as PNG or JPEG"),
    (b"%!PS", "PostScript is not accepted; save it as PNG"),
    (b"\x1f\x8b", "it is compressed with gzip; unpack it"),
    (b"PK\x03\x04", "it is a ZIP archive; unpack it"),
    (b"\x93NUMPY", "it is a NumPy array; use data.source: npz"),
    (b"....ftypavi", "AVIF is not accepted; save it as PNG or JPEG"),
    (b"....ftyp", "HEIF and video are not accepted; save it as JPEG or PNG"),
    (b"\x00\x00\x01\x00", "ICO is not accepted; save it as PNG"),
    (b"8BPS", "PSD is not accepted; save it as PNG"),
    (b"SIMPLE  =", "FITS is not accepted; save it as PNG"),
    (b"\xff\x4f\xff\x51", "JPEG 2000 is not accepted; save it as PNG or JPEG"),
    (b"....jP  ", "JPEG 2000 is not accepted; save it as PNG or JPEG"),
    (b"\xff\x0a", "JPEG XL is not accepted; save it as PNG or JPEG"),
    (b"....JXL ", "JPEG XL is not accepted; save it as PNG or JPEG"),
)
_large = threading.Lock()


class Unreadable(InputError):
    """These bytes are no usable picture. ``message`` is the reason and the cure, without the file's name."""


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


def open_image(
    path: str | Path,
    channels: int,
    height: int,
    width: int,
    fit: str = "crop",
    background: tuple[int, int, int] = (255, 255, 255),
    bit_depth: int = 8,
) -> tuple[Tensor, bool]:
    """The picture in ``path``, and whether its size had to be changed.

    Returns:
        uint8 (C, H, W) on 0 .. 2^bit_depth - 1, and True where the file's own size is another than ``width`` x
        ``height``.

    Raises:
        InputError: the file is missing, damaged, too large, or of a format that is not accepted.
    """
    path = Path(path)
    data = read_regular(path, MAX_BYTES)
    try:
        with pillow_quiet():
            pixels, resized = framed(decode(data), Framing(channels, height, width, fit, background))
    except Unreadable as reason:
        raise InputError(f"{shown(path)} is no usable picture: {reason.message}.", file=path) from reason
    return torch.from_numpy(np.array(pixels, order="C")) >> (8 - bit_depth), resized


@contextmanager
def pillow_quiet() -> Iterator[None]:
    """Pillow's warnings about odd metadata are no news; the one about a decompression bomb is an error.

    Enter it in the main thread, around the threads that decode: filters of warnings belong to the process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(data: bytes) -> Image.Image:
    """The first (or only) picture in ``data``, upright and in sRGB; its mode is L, RGB or RGBA.

    Raises:
        Unreadable: damaged, beyond the limits, of a format that is not accepted, or holding values that 8 bits
            cannot stand for.
    """
    decoder = _decoder(data)
    try:
        if decoder is PngImageFile:
            _check_png(data)
        image = decoder(io.BytesIO(data))
        _check_size(image)
        scans = data.count(b"\xff\xda") if decoder is JpegImageFile else 0
        pixels = image.width * image.height
        if scans > _MAX_SCANS or (scans > 1 and scans * pixels > _MAX_SCANNED_PIXELS):
            raise Unreadable(f"it has {scans:,} scans, which take too long to decode; save it again as a usual JPEG")
        if image.mode == "P" and decoder is PngImageFile and image.palette is None:
            raise Unreadable("it uses a palette but has none; save it again")
        with _large if pixels > _LARGE_PIXELS else nullcontext():
            image.load()
            if (image.width, image.height) != image.im.size:
                raise Unreadable("its header and its contents differ in size; save it again")
            return _srgb(_upright(image))
    except Unreadable:
        raise
    except MemoryError as error:
        raise Unreadable("it needs more memory than there is; save it smaller") from error
    except Exception as error:  # decoders of foreign bytes raise anything, struct.error and KeyError included
        detail = " ".join(shown(error).split())[:120] or type(error).__name__
        raise Unreadable(f"it is damaged or cut off ({detail}); copy or download it again") from error


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
    image = _with_channels(image, framing)
    if resized:
        image = _cropped(image, target) if framing.fit == "crop" else _padded(image, target, framing.background)
    pixels = np.asarray(image)  # (H, W) or (H, W, C)
    return (pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), resized


_Levels = TypeVar("_Levels", int, np.ndarray)


def luma(red: _Levels, green: _Levels, blue: _Levels) -> _Levels:
    """ITU-R BT.601 luma of values 0..255 (arrays: of at least 32 bits), in the integers that Pillow uses."""
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


def _decoder(data: bytes) -> type[ImageFile.ImageFile]:
    if not data:
        raise Unreadable("it is empty; copy or download it again")
    for magic, decoder in _DECODERS:
        if _starts(data, magic):
            return decoder
    text = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for magic, reason in _OTHERS:
        if _starts(data, magic) or _starts(text, magic):
            raise Unreadable(reason)
    raise Unreadable("its format is not accepted (JPEG, PNG, WebP, BMP, GIF, TIFF and PPM are)")


def _starts(data: bytes, magic: bytes) -> bool:
    """Whether ``data`` starts with ``magic``, in which a dot stands for any byte."""
    return len(data) >= len(magic) and all(m in (b, 0x2E) for b, m in zip(data, magic, strict=False))


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise Unreadable(f"its header says {width}x{height} pixels; save it again")
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise Unreadable(
            f"it has {width}x{height} pixels, more than {MAX_PIXELS:,} or {MAX_SIDE:,} a side; save it smaller"
        )


def _check_png(data: bytes) -> None:
    """What Pillow lets pass: pixel data whose checksum is wrong, a second header, chunks without end."""
    place, headers = len(_PNG), 0
    for _ in range(_MAX_CHUNKS):
        if place + 12 > len(data):
            return  # cut off; whether pixels are missing shows in decoding
        (length,) = struct.unpack_from(">I", data, place)
        kind = data[place + 4 : place + 8]
        body = memoryview(data)[place + 4 : place + 8 + length]
        if kind == b"IHDR":
            headers += 1
        if headers > 1:
            raise Unreadable("it has two headers; save it again")
        place += 12 + length
        # a critical chunk (capital first letter) that is whole must have its checksum
        if (
            place <= len(data)
            and 65 <= kind[0] <= 90
            and zlib.crc32(body) != struct.unpack_from(">I", data, place - 4)[0]
        ):
            raise Unreadable("a checksum in it is wrong; copy or download it again")
        if kind == b"IEND":
            return
    raise Unreadable("it is made of too many pieces; save it again")


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image) -> Image.Image:
    """Turned as EXIF says; TIFF was turned by its decoder. A word on it in XMP alone is not followed."""
    raw = image.info.get("exif")
    if not raw or image.format == "TIFF":
        return image
    exif = Image.Exif()
    try:
        exif.load(raw)
        orientation = exif.get(0x0112)
    except Exception:  # whatever is wrong with the metadata, the picture is whole
        return image
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _srgb(image: Image.Image) -> Image.Image:
    """The same picture in mode L, RGB or RGBA, its embedded colour profile applied where it can be read."""
    profile = image.info.get("icc_profile")
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format == "PPM"):  # 16 bits: the upper eight
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if mode in ("I", "F"):
        kind = "floating-point" if mode == "F" else "32-bit"
        raise Unreadable(f"it is a {kind} image, whose black and white are anybody's guess; save it with 8 or 16 bits")
    if mode == "LAB":
        return _transformed(image, _from_lab())
    if mode not in ("CMYK", "L", "RGB", "RGBA") or image.has_transparency_data:
        image = image.convert(_plain_mode(image))
    transform = _to_srgb(profile, image.mode) if profile and len(profile) <= _MAX_PROFILE else None
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
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from ``profile`` to sRGB; None where it is sRGB already or cannot be used."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return None
        output = "RGBA" if mode == "RGBA" else "RGB"
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, output)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _with_channels(image: Image.Image, framing: Framing) -> Image.Image:
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
