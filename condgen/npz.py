"""An ``.npz`` file, written whole and read with suspicion: every header is held against its member before an array is
made.

Nothing is unpickled, no member is extracted to disk, and large arrays come in blocks of rows, so that memory stays
small whatever a file claims.
"""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from condgen.errors import InputError, shown
from condgen.files import aside_of, open_regular, sync_folder, unwritable

_MAX_HEADER = 10_000
"""Characters of a header; NumPy's own limit for files it does not trust."""
_MAX_WHOLE = 4 << 30
"""Bytes of an array that is read in one piece."""
_BOMB_BYTES = 1 << 30
_BOMB_RATIO = 200
"""Beyond this many bytes a member may not have been compressed more than so many times: nothing real is."""
_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True)
class Header:
    """What a member says of its array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    start: int
    """Bytes before the first value."""


class Npz:
    """The arrays in one file, by their names (without ``.npy``).

    Raises:
        InputError: the file or a member is damaged, or is something else than plain arrays; the sentence names both.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.headers: dict[str, Header] = {}
        self._file = os.fdopen(open_regular(path), "rb")
        try:
            self._zip = zipfile.ZipFile(self._file)
            self._members = self._checked_members()
            for name in self._members:
                self.headers[name] = self._header(name)
        except InputError:
            self._file.close()
            raise
        except _DAMAGE as error:
            self._file.close()
            raise self._damaged(error) from error

    def __enter__(self) -> Npz:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, name: str) -> np.ndarray:
        """The whole array ``name``, C order.

        Raises:
            InputError: it is damaged, or too large to be read in one piece.
        """
        header = self.headers[name]
        size = math.prod(header.shape) * header.dtype.itemsize
        if size > _MAX_WHOLE:
            raise self.wrong(name, f"has {size:,} bytes, more than the {_MAX_WHOLE:,} allowed; split it")
        try:
            with self._zip.open(self._members[name]) as member:
                _exactly(member, header.start)
                values = np.frombuffer(_exactly(member, size), header.dtype)
        except _DAMAGE as error:
            raise self._damaged(error) from error
        order: Literal["F", "C"] = "F" if header.fortran_order else "C"
        return np.ascontiguousarray(values.reshape(header.shape, order=order))

    def blocks(self, name: str) -> Iterator[np.ndarray]:
        """The array ``name`` in blocks of some rows (along its first axis), in order.

        Raises:
            InputError: it is damaged, or lies in Fortran order.
        """
        header = self.headers[name]
        if header.fortran_order and len(header.shape) > 1:
            raise self.wrong(name, "lies in Fortran order; save np.ascontiguousarray of it")
        row = math.prod(header.shape[1:]) * header.dtype.itemsize
        step = max(1, _BLOCK_BYTES // max(row, 1))
        try:
            with self._zip.open(self._members[name]) as member:
                _exactly(member, header.start)
                for first in range(0, header.shape[0], step):
                    rows = min(step, header.shape[0] - first)
                    yield np.frombuffer(_exactly(member, rows * row), header.dtype).reshape(rows, *header.shape[1:])
        except _DAMAGE as error:
            raise self._damaged(error) from error

    def wrong(self, name: str, what: str) -> InputError:
        """The error that array ``name`` has ``what`` against it: what is wrong, and what to do."""
        return InputError(f"{shown(self.path)}: {shown(name)} {what}.", file=self.path, field="data.root")

    def _damaged(self, error: BaseException) -> InputError:
        reason = shown(error)[:200] or type(error).__name__
        return InputError(
            f"{shown(self.path)} is damaged or no .npz file ({reason}); copy or save it again.", file=self.path
        )

    def _checked_members(self) -> dict[str, zipfile.ZipInfo]:
        found: dict[str, zipfile.ZipInfo] = {}
        end = 0
        for info in sorted(self._zip.infolist(), key=lambda info: info.header_offset):
            name = info.filename.removesuffix(".npy")
            if name == info.filename:
                raise self.wrong(info.filename, "is no .npy array; save the file with np.savez")
            if name in found:
                raise self.wrong(name, "occurs twice; save the file again")
            if info.flag_bits & 1:
                raise self.wrong(name, "is encrypted; save the file with np.savez")
            if info.header_offset < end:
                raise self.wrong(name, "lies over another member; save the file again")
            end = info.header_offset + 30 + info.compress_size
            if info.file_size > _BOMB_BYTES and info.file_size > _BOMB_RATIO * info.compress_size:
                raise self.wrong(
                    name, f"grows from {info.compress_size:,} to {info.file_size:,} bytes; save it with np.savez"
                )
            found[name] = info
        return found

    def _header(self, name: str) -> Header:
        info = self._members[name]
        with self._zip.open(info) as member:
            try:
                version = np.lib.format.read_magic(member)
                if version == (1, 0):
                    read = np.lib.format.read_array_header_1_0(member, max_header_size=_MAX_HEADER)
                elif version == (2, 0):
                    read = np.lib.format.read_array_header_2_0(member, max_header_size=_MAX_HEADER)
                else:  # 3.0 is for field names beyond Latin-1, and no array with fields is wanted
                    raise ValueError(f"format {version}")
            except ValueError as error:
                reason = " ".join(shown(error).split())[:200]
                raise self.wrong(name, f"is no plain array ({reason}); save it with np.savez") from error
            shape, fortran_order, dtype = read
            start = member.tell()
        if dtype.hasobject:
            raise self.wrong(name, "holds Python objects, which are never loaded; save plain numbers")
        if dtype.names is not None:
            raise self.wrong(name, "has named fields; save each as an array of its own")
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size != info.file_size - start:
            raise self.wrong(
                name, f"claims {shape} values but holds {info.file_size - start:,} bytes; save the file again"
            )
        return Header(tuple(shape), dtype, fortran_order, start)


_DAMAGE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError, ValueError)
"""What ``zipfile`` raises on damaged or strange files; NumPy adds ``ValueError``."""


def _exactly(member: IO[bytes], size: int) -> bytes:
    """The next ``size`` bytes. With a member's last byte ``zipfile`` compares its checksum."""
    data = member.read(size)
    if len(data) != size:
        raise EOFError("it ends too soon")
    return data


@dataclass(frozen=True)
class Rows:
    """An array that is written in pieces."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    blocks: Iterable[bytes]
    """Its values in C order."""


def write_npz(path: Path, arrays: Mapping[str, np.ndarray | Rows]) -> None:
    """What ``numpy.savez`` writes; the same arrays give the same bytes, and ``path`` holds them all or what it held.

    Raises:
        MachineError: the disk is full or cannot be written.
    """
    aside = aside_of(path)
    try:
        try:
            with open(aside, "xb") as file:
                with zipfile.ZipFile(file, "w") as archive:
                    for name, array in arrays.items():
                        _write_member(archive, name, array)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error


def _write_member(archive: zipfile.ZipFile, name: str, array: np.ndarray | Rows) -> None:
    if isinstance(array, np.ndarray):
        array = Rows(array.dtype, array.shape, [array.tobytes()])
    header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
    # its own entry, which has no time; an entry by name alone may get the clock's
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for block in array.blocks:
            member.write(block)
