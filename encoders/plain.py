"""The two encoders that need no learning: nothing at all, and a vector that the data brings along."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import Field

from condgen import Batch, Condition, DataInfo, Encoder, Options, read_columns
from condgen.errors import InputError, RecipeError, shown


class NoCondition(Encoder):
    """No condition: p(x)."""

    def encode(self, batch: Batch) -> Condition:
        return Condition()


class VectorOptions(Options):
    column: str = Field("vector", description="Name of the column; a csv file's numbers together are called vector.")


class Vector(Encoder):
    """A column of the data (data.columns), as it is: anybody's own embedding, coordinates, measurements."""

    Options = VectorOptions
    words = ("vector",)

    def __init__(self, options: Any, info: DataInfo) -> None:
        super().__init__(options, info)
        column = options.column
        if column not in info.columns:
            known = ", ".join(info.columns) or "none"
            raise RecipeError(
                f"encoder.column: the data has no column {column!r} (it has: {known}); data.columns names the file.",
                field="encoder.column",
            )
        self.reads = (column,)
        self.vector_size = info.columns[column]

    def encode(self, batch: Batch) -> Condition:
        return Condition(vector=batch[self.options.column].float())

    def parse(self, word: str, value: str) -> dict[str, torch.Tensor]:
        """``--vector F`` with one vector (D,) or several (n, D) in a csv, npy, npz or safetensors file, or
        ``--vector 0.1,-2,3``: the numbers themselves."""
        if word != "vector":
            return super().parse(word, value)
        if not value.strip():
            raise RecipeError(
                f"--vector: expected a file, or {self.vector_size} numbers with commas between, found nothing.",
                field="vector",
            )
        rows = _numbers(value)
        if rows is None:
            rows = self._read(value)
        elif rows.shape[1] != self.vector_size:
            raise RecipeError(
                f"--vector: expected {self.vector_size} numbers with commas between, found {rows.shape[1]}.",
                field="vector",
            )
        return {self.options.column: torch.from_numpy(rows)}

    def _read(self, file: str) -> np.ndarray:
        """float32 (n, D): of several columns the encoder's own."""
        columns = read_columns(file, "--vector")
        rows = columns.get(self.options.column)
        if rows is None and len(columns) > 1:
            raise InputError(
                f"--vector: {shown(file)} holds {', '.join(columns)}, but no {self.options.column}; call its array so.",
                file=file,
                field="vector",
            )
        rows = next(iter(columns.values())) if rows is None else rows
        if rows.shape == (self.vector_size, 1):  # one vector, (D,)
            rows = rows.reshape(1, self.vector_size)
        if rows.shape[1] != self.vector_size:
            raise InputError(
                f"--vector: {shown(file)} holds rows of {rows.shape[1]} numbers, but the model's vectors have "
                f"{self.vector_size}; give {self.vector_size} a row.",
                file=file,
                field="vector",
            )
        return rows


def _numbers(text: str) -> np.ndarray | None:
    """float32 (1, D) of ``0.1,-2,3``; None: it is the name of a file.

    Raises:
        RecipeError: NaN, infinity or too large a number.
    """
    try:
        with np.errstate(over="ignore"):
            row = np.array([[float(word) for word in text.split(",")]], np.float64).astype(np.float32)
    except ValueError:
        return None
    if not np.isfinite(row).all():
        raise RecipeError(f"--vector: {shown(text)[:60]} holds no finite numbers; give such.", field="vector")
    return row
