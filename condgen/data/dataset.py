"""A split of a data set, ready for batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from condgen.condition import SOURCE, DataInfo
from condgen.data.pairs import Pairs
from condgen.data.parts import Rows, Split
from condgen.errors import InputError
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
    stamp: str = ""
    """The fingerprint with times of change: what is computed from the images is kept under it."""
    pairs: Pairs | None = None
    """Whose condition an image has, where that is another's (``data.pairs``)."""
    kept: Mapping[str, Rows] = field(default_factory=dict)
    """What a frozen encoder made of the images, (N, ...) each, by the keys of a batch (``embeddings``)."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def identities(self) -> np.ndarray:
        """Who is in each image, int64 (N,): its label.

        Raises:
            InputError: the set has no labels.
        """
        if self.labels is None:
            raise InputError(
                "The data does not say who is in its images; give a folder for each person, or labels.",
                field="data.root",
            )
        return self.labels[self.rows]

    def batch(self, indices: np.ndarray, sources: np.ndarray | None = None) -> dict[str, Tensor]:
        """The examples at ``indices`` (int64 (B,), in 0 .. N-1, repeats allowed), in that order.

        Args:
            sources: whose condition each has, int64 (B,), of a set with ``pairs``; None: the fixed pairs of evaluation.

        Returns:
            ``image`` uint8 (B, C, H, W) on 0 .. 2^bit_depth - 1 and ``index`` int64 (B,); ``label`` int64 (B,),
            ``attributes`` int8 (B, A) and the extra columns float32 (B, D) where the set has them. With ``pairs`` also
            ``source`` and ``source.image`` and so on; with ``kept`` conditions those (see ``condgen.Batch``).
        """
        indices = np.array(indices, dtype=np.int64)
        values = self._described(indices)
        if self.pairs is None:
            sources = indices
        else:
            sources = self.pairs.sources(indices) if sources is None else sources
            values["source"] = sources
            if not self.kept:
                values |= {SOURCE + name: value for name, value in self._described(sources).items()}
        values |= {name: np.array(rows[sources]) for name, rows in self.kept.items()}
        return {name: torch.from_numpy(value) for name, value in values.items()}

    def _described(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        rows = self.rows[indices]
        images = np.asarray(self.pixels[rows])  # a memory map's rows are a memory map by name
        values = {"image": images >> (8 - self.info.bit_depth), "index": indices}
        if self.labels is not None:
            values["label"] = self.labels[rows]
        if self.attributes is not None:
            values["attributes"] = self.attributes[rows]
        return values | {name: column[rows] for name, column in self.columns.items()}


def flipped(images: Tensor, keys: Tensor) -> Tensor:
    """``images`` (B, C, H, W), each mirrored left to right or not as a bit of its key (``keys`` int64 (B,)) says."""
    mirror = example_bytes(keys, _FLIPS, 1)[:, 0] & 1
    return torch.where(mirror.bool()[:, None, None, None], images.flip(3), images)
