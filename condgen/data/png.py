"""What is wrong with a PNG that its decoder lets pass."""

from __future__ import annotations

import struct
import zlib

from condgen.data.limits import MAX_PIXELS, MAX_SIDE, Unreadable

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS = 100_000


def check_png(data: bytes) -> None:
    """What Pillow lets pass: pixels whose checksum is wrong or that end too soon, a second header, endless chunks."""
    place, headers = len(SIGNATURE), 0
    pixels = []
    for _ in range(_MAX_CHUNKS):
        if place + 12 > len(data):
            break  # cut off; whether pixels are missing shows below
        (length,) = struct.unpack_from(">I", data, place)
        kind = data[place + 4 : place + 8]
        body = memoryview(data)[place + 4 : place + 8 + length]
        place += 12 + length
        # a critical chunk (capital first letter) that is whole must have its checksum
        if (
            place <= len(data)
            and 65 <= kind[0] <= 90
            and zlib.crc32(body) != struct.unpack_from(">I", data, place - 4)[0]
        ):
            raise Unreadable("a checksum in it is wrong; copy or download it again")
        headers += kind == b"IHDR"
        if kind == b"IDAT":
            pixels.append(body[4:])
        if kind == b"IEND":
            break
    else:
        raise Unreadable("it is made of too many pieces; save it again")
    if headers > 1:
        raise Unreadable("it has two headers; save it again")
    _check_pixels(data, pixels)


def _check_pixels(data: bytes, pixels: list[memoryview]) -> None:
    """Whether as many bytes of pixels are there as the header of this PNG asks for."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, len(SIGNATURE) + 8)
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        return  # refused for that, with nothing unpacked
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
    # Adam7: (first column, first row, step across, step down) of each pass
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    missing = 0
    for left, top, across, down in passes if interlaced else [(0, 0, 1, 1)]:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            missing += rows * (1 + -(-columns * bits // 8))  # each row opens with the byte of its filter
    unpacker = zlib.decompressobj()
    for piece in pixels:
        packed: bytes | memoryview = piece
        while packed and missing > 0:
            missing -= len(unpacker.decompress(packed, 1 << 20))
            packed = unpacker.unconsumed_tail
    if missing > 0:
        raise Unreadable("it is cut off: pixels are missing; copy or download it again")
