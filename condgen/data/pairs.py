"""Whose condition an image has: that of another image of the same identity (``data.pairs: identity``).

A model that is shown x with the embedding of x learns to copy; shown another photograph of the same person, it learns
what of a person stays the same (van den Oord et al. 2016, section 3.3).
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from condgen.streams import example_keys, example_uniforms

_PAIRS = -7
"""The stream of an example's key that deals its source."""


class Pairs:
    """Deals every image one of the other images of its identity; itself where there is none.

    Args:
        identities: int64 (N,), who is in each image.
    """

    def __init__(self, identities: np.ndarray) -> None:
        _, identity, counts = np.unique(identities, return_inverse=True, return_counts=True)
        self._order = np.argsort(identity, kind="stable")  # images, identity after identity
        first = np.cumsum(counts) - counts
        self._first, self._count = first[identity], counts[identity]  # of each image's identity in that order
        self._place = np.empty(len(identity), np.int64)  # of each image among those of its identity
        self._place[self._order] = np.arange(len(identity)) - self._first[self._order]

    def sources(self, indices: np.ndarray, keys: Tensor | None = None) -> np.ndarray:
        """The images, int64 (B,), whose conditions those at ``indices`` have.

        Args:
            keys: the examples' own streams, int64 (B,), in training; None: the fixed pairs of evaluation.
        """
        keys = example_keys(indices, 0, "pairs") if keys is None else keys
        uniforms = example_uniforms(keys, _PAIRS, 1)[:, 0].numpy()
        others = self._count[indices] - 1
        chosen = np.minimum((uniforms * others).astype(np.int64), np.maximum(others - 1, 0))
        chosen += (others > 0) & (chosen >= self._place[indices])  # not oneself
        found: np.ndarray = self._order[self._first[indices] + chosen]
        return found
