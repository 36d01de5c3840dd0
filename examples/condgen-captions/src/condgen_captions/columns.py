"""``condgen-captions TEXT.txt --out CAPTIONS.npz``: a caption a line becomes a column for ``data.columns``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from condgen.errors import CondgenError, InputError, shown

from condgen_captions import text


def embedded(path: Path) -> np.ndarray:
    """float32 (N, WIDTH), a row for each line of ``path``.

    Raises:
        InputError: the file is missing, empty or not UTF-8, or a line is no caption; the sentence names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{shown(path)} is not a readable UTF-8 text file ({shown(error)[:200]}).", file=path
        ) from error
    if not lines:
        raise InputError(f"{shown(path)} is empty; write one caption a line.", file=path)
    for number, line in enumerate(lines, 1):
        try:
            text.cleaned(line)
        except InputError as error:
            raise InputError(f"{shown(path)}, line {number}: {error.message}", file=path) from error
    return text.vectors(lines).numpy()


def main() -> None:
    """The command; an error is one sentence and condgen's exit code."""
    parser = argparse.ArgumentParser("condgen-captions", description="Make a column of text vectors for data.columns.")
    parser.add_argument("captions", type=Path, help="a UTF-8 text file: one caption a line, in the images' order")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    arguments = parser.parse_args()
    try:
        if arguments.out.suffix.lower() != ".npz":
            raise InputError(f"{shown(arguments.out)}: the column is written as .npz; give a name that ends in .npz.")
        if arguments.out.exists():
            raise InputError(f"{shown(arguments.out)} exists; choose another name.", file=arguments.out)
        column = embedded(arguments.captions)
        np.savez(arguments.out, caption=column)
    except CondgenError as error:
        print(f"Error: {error.message}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"{len(column):,} captions of {column.shape[1]} numbers: {arguments.out}")
