"""One picture: from the bytes of a file to uint8 (C, H, W), upright, in sRGB, at the size that was asked for.

Files are strangers. What a file is, its content decides, not its name; only the decoders of ``_DECODERS`` ever run,
and none of them before the size that the header claims has been held against the limits (``limits``).

Legend: C channels (1 luma, 3 RGB, 4 RGBA), H x W the size asked for.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile
from torch import Tensor

from condgen.data.colours import srgb
from condgen.data.framing import Framing, framed
from condgen.data.limits import MAX_BYTES, MAX_PIXELS, MAX_SIDE, Unreadable
from condgen.data.png import SIGNATURE, check_png
from condgen.errors import InputError, shown
from condgen.files import read_regular

_LARGE_PIXELS = 1 << 24
"""From here on one picture at a time: a decoded one takes up to 12 bytes a pixel while its colours are converted."""
_MAX_SCANS = 500
_MAX_SCANNED_PIXELS = 1 << 30
"""A progressive JPEG repaints the picture with every scan, a few bytes each; usual ones have ten."""

_DECODERS: tuple[tuple[bytes, type[ImageFile.ImageFile]], ...] = (
    (b"\xff\xd8\xff", JpegImageFile),  # not Pillow's factory, which turns some into MPO: the first picture is wanted
    (SIGNATURE, PngImageFile),
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
            check_png(data)
        opened = decoder(io.BytesIO(data))
        _check_size(opened)
        scans = data.count(b"\xff\xda") if decoder is JpegImageFile else 0
        pixels = opened.width * opened.height
        if scans > _MAX_SCANS or (scans > 1 and scans * pixels > _MAX_SCANNED_PIXELS):
            raise Unreadable(f"it has {scans:,} scans, which take too long to decode; save it again as a usual JPEG")
        if opened.mode == "P" and decoder is PngImageFile and opened.palette is None:
            raise Unreadable("it uses a palette but has none; save it again")
        with _large if pixels > _LARGE_PIXELS else nullcontext():
            opened.load()
            if opened.size != opened.im.size:
                raise Unreadable("its header and its contents differ in size; save it again")
            turn = _turn(opened)
            image = srgb(opened)
            return image if turn is None else image.transpose(turn)
    except Unreadable:
        raise
    except MemoryError as error:
        raise Unreadable("it needs more memory than there is; save it smaller") from error
    except Exception as error:  # decoders of foreign bytes raise anything, struct.error and KeyError included
        detail = " ".join(shown(error).split())[:120] or type(error).__name__
        raise Unreadable(f"it is damaged or cut off ({detail}); copy or download it again") from error


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


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What EXIF asks for to stand upright; TIFF was turned by its decoder. XMP is not asked."""
    raw = image.info.get("exif")
    if not raw or image.format == "TIFF":
        return None
    exif = Image.Exif()
    try:
        exif.load(raw)
        orientation = exif.get(0x0112)
    except Exception:  # whatever is wrong with the metadata, the picture is whole
        return None
    return _TURNS.get(orientation) if isinstance(orientation, int) else None
