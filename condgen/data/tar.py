"""Where the members of a tar file lie: the headers are read, nothing is extracted, no name becomes a path.

POSIX.1-1988 (ustar) headers, with the extensions that writers use today: pax records (``path``, ``size``), GNU long
names, base-256 sizes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

BLOCK = 512
_MAX_RECORD = 1 << 20
"""Bytes of a pax record or long name; a name is a few hundred."""
_RECORDS = b"x", b"g", b"L", b"K"
"""What speaks of the next member (or, g, of all, with nothing that matters here)."""
_WITHOUT_DATA = b"1", b"2", b"3", b"4", b"5", b"6"
"""Links, devices, folders, pipes: whatever size their header gives, no bytes follow."""
_FILES = b"0", b"\0", b"7"


@dataclass(frozen=True)
class Member:
    """A regular file in a tar file: ``size`` bytes at ``offset``."""

    name: str
    offset: int
    size: int


class Damaged(ValueError):
    """From here on the file is no tar file, or it ends too soon."""


def members(descriptor: int) -> Iterator[Member]:
    """The regular files in the tar file open at ``descriptor``, in order. Links, devices, sparse files are passed over.

    Raises:
        Damaged: after the members that came before the damage. A member that the file ends in is not given.
    """
    total = os.fstat(descriptor).st_size
    place = 0
    override: dict[str, str] = {}
    while place < total:
        header = os.pread(descriptor, BLOCK, place)
        if len(header) < BLOCK:
            raise Damaged("it ends inside a header")
        if not any(header):
            return
        _check_sum(header)
        kind = header[156:157]
        size = _number(header[124:136])
        name = _name(header)
        place += BLOCK
        if kind in _RECORDS:
            if size > _MAX_RECORD:
                raise Damaged(f"it holds a header of {size:,} bytes")
            record = os.pread(descriptor, size, place)
            if kind == b"L":
                override["path"] = _text(record.rstrip(b"\0"))
            elif kind == b"x":
                override |= _pax(record)
        elif kind in _WITHOUT_DATA:
            size, override = 0, {}
        else:
            if "size" in override:
                size = _decimal(override["size"])
            if place + size > total:
                raise Damaged(f"it ends inside a member of {size:,} bytes")
            if kind in _FILES and not any(key.startswith("GNU.sparse") for key in override):
                yield Member(override.get("path", name), place, size)
            override = {}
        place += -(-size // BLOCK) * BLOCK


def _check_sum(header: bytes) -> None:
    """The sum over the header with the checksum's own eight bytes as blanks."""
    expected = _number(header[148:156])
    unsigned = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if unsigned != expected:
        raise Damaged("a header's checksum is wrong")


def _number(field: bytes) -> int:
    """Octal digits, or GNU's base 256 where the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] & 0x40 or value >= 1 << 63:
            raise Damaged("a header's size is impossible")
        return value
    digits = field.split(b"\0")[0].strip()
    if not re.fullmatch(rb"[0-7]*", digits):
        raise Damaged("a header's number is no number")
    return int(digits or b"0", 8)


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Damaged("a header's size is no number")
    return int(text)


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _pax(record: bytes) -> dict[str, str]:
    """``"12 path=a.b\\n"`` repeated: length of the record in bytes, key, value."""
    pairs = {}
    place, total = 0, len(record.rstrip(b"\0"))
    while place < total:
        blank = record.find(b" ", place, place + 20)
        end = place + _decimal(_text(record[place : max(blank, place)]))
        key, equals, value = record[blank + 1 : end].partition(b"=")
        if end <= blank or not equals or not value.endswith(b"\n"):
            raise Damaged("an extended header is damaged")
        pairs[_text(key)] = _text(value[:-1])
        place = end
    return pairs
