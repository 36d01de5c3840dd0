"""One picture: from the bytes of a file to pixels, upright and in sRGB. No torch here: bad files are refused at once.

Files are strangers. What a file is, its content decides, not its name; only the decoders of ``_DECODERS`` (and that of
HEIF, where its package is installed) ever run, and none of them before the size that the header claims has been held
against the limits (``limits``).
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from condgen.data.colours import srgb
from condgen.data.limits import MAX_PIXELS, MAX_SIDE, LacksPackage, Unreadable
from condgen.data.png import SIGNATURE, check_png
from condgen.errors import CondgenError, InputError, MachineError, shown
from condgen.files import open_regular

_LARGE_PIXELS = 1 << 24
"""From here on one picture at a time: a decoded one takes up to 12 bytes a pixel while its colours are converted."""
_STRIP_PIXELS = 1 << 20
"""A picture that is reduced has its colours converted so many pixels at a time."""
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
    (b"....ftyp", "HEIF of this kind and video are not accepted; save it as JPEG or PNG"),
    (b"\x00\x00\x01\x00", "ICO is not accepted; save it as PNG"),
    (b"8BPS", "PSD is not accepted; save it as PNG"),
    (b"SIMPLE  =", "FITS is not accepted; save it as PNG"),
    (b"\xff\x4f\xff\x51", "JPEG 2000 is not accepted; save it as PNG or JPEG"),
    (b"....jP  ", "JPEG 2000 is not accepted; save it as PNG or JPEG"),
    (b"\xff\x0a", "JPEG XL is not accepted; save it as PNG or JPEG"),
    (b"....JXL ", "JPEG XL is not accepted; save it as PNG or JPEG"),
)
_large = threading.Lock()


_HEIF = tuple(b"....ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))


def unusable(path: Path, reason: Unreadable) -> CondgenError:
    """The sentence for a picture that a person has named."""
    sentence = f"{shown(path)} is no usable picture: {reason.message}."
    return (MachineError if isinstance(reason, LacksPackage) else InputError)(sentence, file=path)


def check_picture(path: str | Path) -> None:
    """Looks at the first bytes of a picture: its kind and the size that its header claims. Nothing is decoded.

    Raises:
        InputError: it is missing, of a format that is not accepted, or too large.
        MachineError: it needs a package that is not installed.
    """
    path = Path(path)
    with os.fdopen(open_regular(path), "rb") as file, pillow_quiet():
        try:
            decoder = _decoder(file.read(512))
            file.seek(0)
            try:
                opened = decoder(file)
            except Exception as error:
                raise _damaged(error) from error
            _check_size(opened)
        except Unreadable as reason:
            raise unusable(path, reason) from reason


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
    return decode_reduced(data, None)[0]


def decode_reduced(data: bytes, longest: int | None) -> tuple[Image.Image, tuple[int, int]]:
    """``decode``, of a picture that need not be as large as it is: then it takes little more memory than its file.

    Args:
        longest: a picture with twice as many pixels on its longer side, or more, is reduced by a whole factor, to no
            fewer than these.

    Returns:
        The picture, and the (width, height) that it has in full, upright.

    Raises:
        Unreadable: as ``decode``.
    """
    decoder = _decoder(data)
    try:
        if decoder is PngImageFile:
            check_png(data)
        opened = decoder(io.BytesIO(data))
        _check_size(opened)
        scans = data.count(b"\xff\xda") if decoder is JpegImageFile else 0
        width, height = opened.size
        if scans > _MAX_SCANS or (scans > 1 and scans * width * height > _MAX_SCANNED_PIXELS):
            raise Unreadable(f"it has {scans:,} scans, which take too long to decode; save it again as a usual JPEG")
        if opened.mode == "P" and decoder is PngImageFile and opened.palette is None:
            raise Unreadable("it uses a palette but has none; save it again")
        factor = max(width, height) // longest if longest else 1
        if (
            longest and factor > 1 and decoder is JpegImageFile
        ):  # that decoder can skip what a smaller one does not need
            opened.draft(opened.mode, (-(-width // factor), -(-height // factor)))
            factor = max(opened.size) // longest
        with _large if width * height > _LARGE_PIXELS else nullcontext():
            opened.load()
            if opened.size != opened.im.size:
                raise Unreadable("its header and its contents differ in size; save it again")
            turn = _turn(opened)
            image = srgb(opened) if factor < 2 else _reduced(opened, factor)
            image = image if turn is None else image.transpose(turn)
            full = (height, width) if turn in _SIDEWAYS else (width, height)
            return image, full
    except Unreadable:
        raise
    except MemoryError as error:
        raise Unreadable("it needs more memory than there is; save it smaller") from error
    except Exception as error:  # decoders of foreign bytes raise anything, struct.error and KeyError included
        raise _damaged(error) from error


def _damaged(error: Exception) -> Unreadable:
    detail = " ".join(shown(error).split())[:120] or type(error).__name__
    return Unreadable(f"it is damaged or cut off ({detail}); copy or download it again")


def _reduced(image: Image.Image, factor: int) -> Image.Image:
    """``srgb`` of ``image``, each ``factor`` x ``factor`` pixels averaged; converted strip by strip."""
    rows = factor * max(1, _STRIP_PIXELS // (factor * image.width))
    strips = []
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        strip.format = image.format  # some conversions ask what it was
        strips.append(srgb(strip).reduce(factor))
    whole = Image.new(strips[0].mode, (strips[0].width, sum(strip.height for strip in strips)))
    for k, strip in enumerate(strips):
        whole.paste(strip, (0, k * strips[0].height))
    return whole


def _decoder(data: bytes) -> Any:
    """The class that reads what starts with ``data``."""
    if not data:
        raise Unreadable("it is empty; copy or download it again")
    for magic, decoder in _DECODERS:
        if _starts(data, magic):
            return decoder
    if any(_starts(data, magic) for magic in _HEIF):
        return heif_decoder()
    text = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for magic, reason in _OTHERS:
        if _starts(data, magic) or _starts(text, magic):
            raise Unreadable(reason)
    raise Unreadable("its format is not accepted (JPEG, PNG, WebP, BMP, GIF, TIFF and PPM are)")


def heif_installed() -> bool:
    """Whether the package is there that reads HEIF."""
    return importlib.util.find_spec("pillow_heif") is not None


def heif_decoder() -> Any:
    """Pillow's class for HEIF, of the package that is an option.

    Raises:
        LacksPackage: it is not installed.
    """
    try:
        return importlib.import_module("pillow_heif").HeifImageFile
    except (ImportError, AttributeError) as error:
        raise LacksPackage(
            "HEIC and HEIF need the package pillow-heif; run pip install pillow-heif, or save it as JPEG or PNG"
        ) from error


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
_SIDEWAYS = {_TURNS[5], _TURNS[6], _TURNS[7], _TURNS[8]}


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
