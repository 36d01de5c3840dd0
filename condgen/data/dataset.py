"""A split of a data set, ready for batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from condgen.condition import DataInfo
from condgen.data.parts import Rows, Split
from condgen.streams import example_bytes

_FLIPS = -1
"""The stream of an example's key that decides its flip. Below zero: dropout counts its own from 1 up."""


@dataclass(frozen=True)
class Dataset:
    """N images of one split in a fixed order, with whatever the set says about them.

    ``batch`` may be called from several threads at once.
    """

    info: DataInfo
    split: Split
    fingerprint: str
    """SHA-256 over what the images, their order and their labels depend on; the same wherever the data lie."""
    skipped: list[tuple[str, str]]
    """(name, reason) of pictures of this split that could not be used."""
    rows: np.ndarray
    """int64 (N,), ascending: the place of each image in the part that the arrays below describe (n >= N images)."""
    pixels: Rows
    """uint8 (n, C, H, W), 8 bits deep."""
    labels: Rows | None
    """int64 (n,)."""
    attributes: Rows | None
    """int8 (n, A) of 0 and 1."""
    columns: Mapping[str, Rows]
    """float32 (n, D) each."""
    resized: int = 0
    """How many of the n images had another size than was asked for."""

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: np.ndarray) -> dict[str, Tensor]:
        """The examples at ``indices`` (int64 (B,), in 0 .. N-1, repeats allowed), in that order.

        Returns:
            ``image`` uint8 (B, C, H, W) on 0 .. 2^bit_depth - 1 and ``index`` int64 (B,); ``label`` int64 (B,),
            ``attributes`` int8 (B, A) and the extra columns float32 (B, D) where the set has them.
        """
        indices = np.array(indices, dtype=np.int64)
        rows = self.rows[indices]
        images = np.asarray(self.pixels[rows])  # a memory map's rows are a memory map by name
        values = {"image": images >> (8 - self.info.bit_depth), "index": indices}
        if self.labels is not None:
            values["label"] = self.labels[rows]
        if self.attributes is not None:
            values["attributes"] = self.attributes[rows]
        values |= {name: column[rows] for name, column in self.columns.items()}
        return {name: torch.from_numpy(value) for name, value in values.items()}


def flipped(images: Tensor, keys: Tensor) -> Tensor:
    """``images`` (B, C, H, W), each mirrored left to right or not as a bit of its key (``keys`` int64 (B,)) says."""
    mirror = example_bytes(keys, _FLIPS, 1)[:, 0] & 1
    return torch.where(mirror.bool()[:, None, None, None], images.flip(3), images)
