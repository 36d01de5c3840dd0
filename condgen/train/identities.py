"""Batches of P identities with K views each, for losses that compare examples: a pure function of (seed, step).

Legend: P identities and K views of a batch, P * K = ``train.batch_size``; M identities of the set.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from condgen import streams
from condgen.errors import InputError, RecipeError


class IdentityOrder:
    """The endless sequence of examples of ``seed``, identity after identity, each with ``views`` of its pictures.

    An identity with a single picture has no second view and is left out. One with fewer than K shows each picture once
    before any of them comes again (in training under another augmentation). An epoch is a permutation of the
    identities; the few that would not fill its last batch are left out of this one epoch, so that the P of a batch are
    always different.

    Args:
        labels: who is in each picture, int64 (N,).
        batch_size: P * K.
        views: K.

    Raises:
        RecipeError: K does not divide the batch, or the batch wants more identities than there are.
        InputError: nobody has two pictures.
    """

    def __init__(self, labels: np.ndarray, batch_size: int, views: int, seed: int) -> None:
        if batch_size % views or batch_size < 2 * views:
            raise RecipeError(
                f"train.batch_size: {batch_size} is not two or more identities of train.views={views} pictures; set it "
                f"to a multiple of {views}, at least {2 * views}.",
                field="train.batch_size",
            )
        order = np.argsort(labels, kind="stable")
        _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
        self._pictures = [
            order[start : start + count] for start, count in zip(starts, counts, strict=True) if count > 1
        ]
        self.batch_size, self.views, self.seed = batch_size, views, seed
        self.identities = len(self._pictures)
        """M, those with two pictures or more."""
        self.single = len(counts) - self.identities
        """Identities that are left out."""
        if not self.identities:
            raise InputError(
                f"The training images show {len(counts)} identities and none of them twice; triplets need two pictures "
                "of a person, so give more pictures of each.",
                field="data.root",
            )
        if batch_size // views > self.identities:
            raise RecipeError(
                f"train.batch_size: {batch_size} is {batch_size // views} identities of train.views={views} pictures, "
                f"and the training images show {self.identities} identities more than once; lower it to "
                f"{self.identities * views} or less.",
                field="train.batch_size",
            )
        self._batch = lru_cache(maxsize=4)(self._made)

    def at(self, start: int, stop: int) -> tuple[np.ndarray, Tensor]:
        """Indices, int64, and keys of the examples at positions ``start`` .. ``stop`` - 1; see ``batches.Order``.

        The key of an example is a function of (seed, step, place in the global batch).
        """
        indices, keys = [np.empty(0, np.int64)], [torch.empty(0, dtype=torch.int64)]
        while start < stop:
            step, first = divmod(start, self.batch_size)
            places = np.arange(first, min(self.batch_size, first + stop - start))
            indices.append(self._batch(step)[places])
            keys.append(streams.example_keys(places, self.seed, "example", "identities", step))
            start += len(places)
        return np.concatenate(indices), torch.cat(keys)

    def _made(self, step: int) -> np.ndarray:
        """The batch of ``step``, (P * K,): K pictures of one identity after another."""
        wanted = self.batch_size // self.views
        epoch, place = divmod(step, self.identities // wanted)
        people = streams.permutation(self.identities, self.seed, "identities", epoch)
        chosen = people[place * wanted : (place + 1) * wanted]
        return np.concatenate([self._some(int(person), step) for person in chosen])

    def _some(self, person: int, step: int) -> np.ndarray:
        """K pictures of ``person``, as different as there are."""
        pictures = self._pictures[person]
        drawn = pictures[streams.permutation(len(pictures), self.seed, "views", step, person)]
        return np.resize(drawn, self.views)  # repeats from the front
