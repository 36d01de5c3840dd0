"""Extra columns for encoders: one row for each image, in the set's order (train, then validation, then test).

A ``.csv`` (a line of names, then numbers) becomes one column called ``vector``; each array (N, D) or (N,) of an
``.npz`` or ``.safetensors`` file becomes a column under its own name.
"""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import numpy as np

from condgen.errors import InputError, shown
from condgen.files import open_regular, read_regular
from condgen.npz import Npz

_MAX_CSV = 1 << 30
_RESERVED = ("image", "label", "attributes", "index", "key", "source")
"""What a batch holds by itself."""


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """The columns in ``path``, float32 (N, D) each, all of one N.

    Raises:
        InputError: the file is missing or damaged, a value is no finite number; the sentence names the first bad row.
    """
    suffix = path.suffix.lower()
    readers = {".csv": _csv, ".npz": _npz, ".safetensors": _safetensors}
    if suffix not in readers:
        raise InputError(
            f"data.columns: {shown(path)} is no .csv, .npz or .safetensors file; save the columns as one of these.",
            file=path,
            field="data.columns",
        )
    columns = {name: _checked(path, name, values) for name, values in readers[suffix](path).items()}
    if not columns:
        raise _wrong(path, "holds no columns; save one array for each")
    counts = {name: len(values) for name, values in columns.items()}
    if len(set(counts.values())) > 1:
        raise _wrong(path, f"has columns of different lengths ({counts}); give every image a row in each")
    return columns


def check_rows(path: Path, columns: dict[str, np.ndarray], images: int) -> None:
    """Raises ``InputError`` unless there is one row for each of ``images``."""
    count = len(next(iter(columns.values())))
    if count != images:
        raise _wrong(
            path, f"has {count:,} rows, but the set has {images:,} images (all splits together); give every image one"
        )


def _wrong(path: Path, what: str) -> InputError:
    return InputError(f"data.columns: {shown(path)} {what}.", file=path, field="data.columns")


def _csv(path: Path) -> dict[str, np.ndarray]:
    try:
        text = read_regular(path, _MAX_CSV).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _wrong(path, "is not UTF-8 text; save it as UTF-8") from error
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[np.ndarray] = []
    try:
        names = next(lines, [])
        for row in lines:
            if row:
                rows.append(_numbers(path, lines.line_num, names, row))
    except csv.Error as error:
        raise _wrong(path, f"has a damaged line {lines.line_num} ({shown(error)}); mend it") from error
    if not rows:
        raise _wrong(path, "has no rows; give a line of names and one line for each image")
    if all(_is_number(name) for name in names):
        raise _wrong(path, "starts with numbers; put a line of names first")
    return {"vector": np.stack(rows)}


def _numbers(path: Path, line: int, names: list[str], row: list[str]) -> np.ndarray:
    if len(row) != len(names):
        raise _wrong(path, f"has {len(row)} values in line {line} but {len(names)} names; mend the line")
    for name, word in zip(names, row, strict=True):
        if not _is_number(word):
            raise _wrong(path, f"has {shown(word[:40])!r} under {shown(name)!r} in line {line}; give a number")
    return np.array([float(word) for word in row])


def _is_number(word: str) -> bool:
    try:
        return "_" not in word and np.isfinite(float(word)).item()
    except ValueError:
        return False


def _npz(path: Path) -> dict[str, np.ndarray]:
    with Npz(path) as npz:
        return {name: npz.read(name) for name in npz.headers}


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    import safetensors

    os.close(open_regular(path))
    try:
        with safetensors.safe_open(path, framework="pt") as file:  # numpy has no bfloat16
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, safetensors.SafetensorError) as error:
        raise _wrong(path, f"is damaged or no safetensors file ({shown(error)[:200]}); save it again") from error
    return {name: (t.float() if t.is_floating_point() else t).numpy() for name, t in tensors.items()}


def _checked(path: Path, name: str, values: np.ndarray) -> np.ndarray:
    """``values`` as float32 (N, D)."""
    if name in _RESERVED or not name.isidentifier():
        raise _wrong(path, f"calls a column {shown(name)!r}; choose another name, a word without blanks")
    if values.dtype.kind not in "uifb":
        raise _wrong(path, f"holds {values.dtype} in {name}; save numbers")
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or not values.size:
        raise _wrong(path, f"holds {values.shape} in {name}; give (N, D), a row of D numbers for each image")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise _wrong(path, f"holds NaN, infinity or too large a number in row {bad[0]} of {name}; give finite numbers")
    return values
