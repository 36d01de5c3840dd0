"""Extra columns for encoders: one row for each image, in the set's order (train, then validation, then test).

A ``.csv`` (a line of names or none, then numbers) and a ``.npy`` become one column called ``vector``; each array (N, D)
or (N,) of an ``.npz`` or ``.safetensors`` file becomes a column under its own name.
"""

from __future__ import annotations

import csv
import io
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from condgen.errors import InputError, shown
from condgen.files import open_regular, read_regular
from condgen.npz import Npz

_MAX_CSV = 1 << 30
_RESERVED = ("image", "label", "attributes", "index", "key", "source", "known")
"""What a batch holds by itself."""


def read_columns(path: str | os.PathLike[str], field: str = "data.columns") -> dict[str, np.ndarray]:
    """The columns in ``path``, float32 (N, D) each, all of one N.

    Args:
        field: what named the file: a field of a recipe, or a word of the command line.

    Raises:
        InputError: the file is missing or damaged, a value is no finite number; the sentence names the first bad row.
    """
    table = _Table(Path(path), field)
    suffix = table.path.suffix.lower()
    readers = {".csv": _csv, ".npy": _npy, ".npz": _npz, ".safetensors": _safetensors}
    if suffix not in readers:
        raise InputError(
            f"{field}: {shown(path)} is no .csv, .npy, .npz or .safetensors file; save the columns as one of these.",
            file=path,
            field=field,
        )
    columns = {name: _checked(table, name, values) for name, values in readers[suffix](table).items()}
    if not columns:
        raise table.wrong("holds no columns; save one array for each")
    counts = {name: len(values) for name, values in columns.items()}
    if len(set(counts.values())) > 1:
        raise table.wrong(f"has columns of different lengths ({counts}); give every image a row in each")
    return columns


def check_rows(path: Path, columns: dict[str, np.ndarray], images: int) -> None:
    """Raises ``InputError`` unless there is one row for each of ``images``."""
    count = len(next(iter(columns.values())))
    if count != images:
        raise _Table(path, "data.columns").wrong(
            f"has {count:,} rows, but the set has {images:,} images (all splits together); give every image one"
        )


@dataclass(frozen=True)
class _Table:
    """A file, and what named it."""

    path: Path
    field: str

    def wrong(self, what: str) -> InputError:
        return InputError(f"{self.field}: {shown(self.path)} {what}.", file=self.path, field=self.field)


def _csv(table: _Table) -> dict[str, np.ndarray]:
    try:
        text = read_regular(table.path, _MAX_CSV).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise table.wrong("is not UTF-8 text; save it as UTF-8") from error
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[np.ndarray] = []
    names: list[str] = []
    try:
        for row in filter(None, lines):
            if not names and not any(map(_reads_as_number, row)):
                names = row
                continue
            if not names and not all(map(_reads_as_number, row)):
                raise table.wrong("has names and numbers in its first line; give a line of names, or none")
            names = names or [f"number {k}" for k in range(1, 1 + len(row))]
            rows.append(_numbers(table, lines.line_num, names, row))
    except csv.Error as error:
        raise table.wrong(f"has a damaged line {lines.line_num} ({shown(error)}); mend it") from error
    if not rows:
        raise table.wrong("has no rows; give a line of numbers for each image")
    return {"vector": np.stack(rows)}


def _numbers(table: _Table, line: int, names: list[str], row: list[str]) -> np.ndarray:
    if len(row) != len(names):
        raise table.wrong(f"has {len(row)} values in line {line}, not {len(names)} as in its first; mend the line")
    for name, word in zip(names, row, strict=True):
        if not _is_number(word):
            raise table.wrong(f"has {shown(word[:40])!r} under {shown(name[:40])!r} in line {line}; give a number")
    return np.array([float(word) for word in row])


def _is_number(word: str) -> bool:
    return "_" not in word and _reads_as_number(word) and math.isfinite(float(word))


def _reads_as_number(word: str) -> bool:
    """NaN, infinity and 1_000 too, which are none."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def _npy(table: _Table) -> dict[str, np.ndarray]:
    os.close(open_regular(table.path))
    try:
        values = np.load(table.path, mmap_mode="r", allow_pickle=False)  # mapped: a false size is an error, not memory
    except (OSError, ValueError, EOFError) as error:
        raise table.wrong("is damaged or holds no plain array of numbers; save one by numpy.save") from error
    if not isinstance(values, np.ndarray):
        values.close()
        raise table.wrong("is an .npz file by another name; call it .npz")
    return {"vector": values}


def _npz(table: _Table) -> dict[str, np.ndarray]:
    with Npz(table.path) as npz:
        return {name: npz.read(name) for name in npz.headers}


def _safetensors(table: _Table) -> dict[str, np.ndarray]:
    import safetensors

    os.close(open_regular(table.path))
    try:
        with safetensors.safe_open(table.path, framework="pt") as file:  # numpy has no bfloat16
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, safetensors.SafetensorError) as error:
        raise table.wrong(f"is damaged or no safetensors file ({shown(error)[:200]}); save it again") from error
    return {name: (t.float() if t.is_floating_point() else t).numpy() for name, t in tensors.items()}


def _checked(table: _Table, name: str, values: np.ndarray) -> np.ndarray:
    """``values`` as float32 (N, D)."""
    if name in _RESERVED or not name.isidentifier():
        raise table.wrong(f"calls a column {shown(name)!r}; choose another name, a word without blanks")
    if values.dtype.kind not in "uifb":
        raise table.wrong(f"holds {values.dtype} in {name}; save numbers")
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or not values.size:
        raise table.wrong(f"holds {values.shape} in {name}; give (N, D), a row of D numbers for each image")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise table.wrong(f"holds NaN, infinity or too large a number in row {bad[0]} of {name}; give finite numbers")
    return values
