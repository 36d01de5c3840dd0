"""The two encoders that need no learning: nothing at all, and a vector that the data brings along."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from pydantic import Field

from condgen import Batch, Condition, DataInfo, Encoder, Options
from condgen.errors import InputError, RecipeError


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
        """``--vector F.npy``: one vector (D,) or several (n, D)."""
        if word != "vector":
            return super().parse(word, value)
        try:
            rows = np.load(value, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{value}: not a readable .npy file of numbers.", file=value) from error
        if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "fiu":
            raise InputError(f"{value}: must hold one array of numbers, as numpy.save writes it.", file=value)
        rows = np.atleast_2d(rows).astype(np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.vector_size or not np.isfinite(rows).all():
            raise InputError(
                f"{value}: expected finite numbers of shape ({self.vector_size},) or (n, {self.vector_size}), "
                f"found {rows.shape}.",
                file=value,
            )
        return {self.options.column: torch.from_numpy(rows)}
