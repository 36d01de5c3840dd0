"""Bytes of picture files, good and bad, made by hand where no writer would make them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageCms

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def gradient(height: int = 12, width: int = 10) -> np.ndarray:
    """A smooth colour picture without symmetry, uint8 (H, W, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    red = 20 + 200 * x // max(width - 1, 1)
    green = 230 - 190 * y // max(height - 1, 1)
    blue = (3 * x + 5 * y) % 200 + 20
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def saved(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    """``image`` as a file of ``kind`` (Pillow's name of the format)."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *before: bytes) -> bytes:
    """A PNG of raw ``rows`` (each with its filter byte), with chunks ``before`` the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return SIGNATURE + header + b"".join(before) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def exif(orientation: Any) -> bytes:
    """An EXIF block that says no more than the orientation; a word where ``orientation`` is bytes."""
    if isinstance(orientation, bytes):
        entry = struct.pack("<HHI4s", 0x0112, 2, 4, orientation)
    else:
        entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)


def tiff_pages(count: int, next_of_first: int | None = None) -> bytes:
    """A gray 2x2 TIFF; then ``count - 1`` further pages without an entry, each 6 bytes."""
    entries = [
        (256, 3, 1, 2),  # width
        (257, 3, 1, 2),  # height
        (258, 3, 1, 8),  # bits
        (259, 3, 1, 1),  # not compressed
        (262, 3, 1, 1),  # black is zero
        (273, 4, 1, 8),  # the strip lies at byte 8
        (277, 3, 1, 1),  # samples
        (278, 3, 1, 2),  # rows of the strip
        (279, 4, 1, 4),  # bytes of the strip
    ]
    start = 12
    rest = start + 2 + 12 * len(entries) + 4
    first = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    first += struct.pack("<I", next_of_first if next_of_first is not None else rest if count > 1 else 0)
    offsets = rest + 6 * np.arange(1, count, dtype=np.int64)
    pages = np.zeros(count - 1, dtype=[("entries", "<u2"), ("next", "<u4")])
    pages["next"] = offsets
    pages["next"][-1:] = 0
    return b"II*\0" + struct.pack("<I", start) + bytes([10, 20, 30, 40]) + first + pages.tobytes()


def gif_frames(count: int) -> bytes:
    """A GIF whose ``count`` frames are all alike."""
    one = saved(Image.new("P", (4, 4), 3), "GIF")
    start = one.index(b"\x2c")  # the image's separator
    return one[:start] + one[start:-1] * count + b";"


def progressive_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes ``count`` times."""
    data = saved(gradient(16, 16), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + b"\xff\xd9"


def swapped_profile() -> bytes:
    """An RGB colour profile in which red and green changed places: what it describes as green is red."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack_from(">I", profile, 128)
    tags = {bytes(profile[place : place + 4]): place for place in range(132, 132 + 12 * count, 12)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    profile[red + 4 : red + 12], profile[green + 4 : green + 12] = (
        profile[green + 4 : green + 12],
        profile[red + 4 : red + 12],
    )
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "Swap".encode("utf-16-be"))
