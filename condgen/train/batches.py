"""Which examples a step sees: a pure function of (seed, step), whatever the number of processes.

The position in the data is one integer g, the number of examples seen: epoch g // N, place g mod N of that epoch's
permutation. Nothing is dropped, an epoch may end inside a batch, and there is no other state to lose.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from condgen import streams
from condgen.data import Pairs, augmented, flipped

Batch = dict[str, Tensor]


class Examples(Protocol):
    """As much of a data set as training needs."""

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray, sources: np.ndarray | None = None) -> Batch:
        """The examples at ``indices`` (int64), with the conditions of ``sources``; called from a background thread."""
        ...


class Sequence(Protocol):
    """An endless sequence of examples."""

    def at(self, start: int, stop: int) -> tuple[np.ndarray, Tensor]:
        """Indices, int64, and keys of the examples at positions ``start`` .. ``stop`` - 1."""
        ...


class Order:
    """The endless sequence of examples of ``seed``: one permutation of ``range(count)`` after another."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self._permutation = lru_cache(maxsize=2)(lambda epoch: streams.permutation(count, seed, "order", epoch))

    def at(self, start: int, stop: int) -> tuple[np.ndarray, Tensor]:
        """Indices, int64, and keys of the examples at positions ``start`` .. ``stop`` - 1.

        The key of an example is a function of (seed, epoch, index): dropout, flips and masks follow the example, not
        its place in a batch.
        """
        indices, keys = [np.empty(0, np.int64)], [torch.empty(0, dtype=torch.int64)]
        while start < stop:
            epoch, place = divmod(start, self.count)
            part = self._permutation(epoch)[place : place + stop - start]
            indices.append(part)
            keys.append(streams.example_keys(part, self.seed, "example", epoch))
            start += len(part)
        return np.concatenate(indices), torch.cat(keys)


def share(batch_size: int, rank: int, ranks: int) -> tuple[int, int]:
    """The places of a global batch that belong to ``rank``: contiguous, as even as possible, maybe none."""
    return rank * batch_size // ranks, (rank + 1) * batch_size // ranks


class Batches:
    """One process's share of every step's batch, fetched ahead by one background thread.

    Args:
        fetch: (step counted from 0) -> batch.
        ahead: batches that are made before they are asked for.
    """

    def __init__(self, fetch: Callable[[int], Batch], start: int, ahead: int = 2) -> None:
        self._fetch = fetch
        self._next = start
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="condgen-batches")
        self._waiting: deque[Future[Batch]] = deque()
        for _ in range(ahead):
            self._order()

    def _order(self) -> None:
        self._waiting.append(self._thread.submit(self._fetch, self._next))
        self._next += 1

    def next(self) -> Batch:
        """The batch of the next step; what went wrong in the background is raised here."""
        self._order()
        return self._waiting.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)


def fetcher(
    examples: Examples,
    order: Sequence,
    batch_size: int,
    rank: int,
    ranks: int,
    *,
    flip: bool,
    pin: bool,
    augment: float = 0.0,
    bit_depth: int = 8,
    pairs: Pairs | None = None,
) -> Callable[[int], Batch]:
    """The function that makes the batch of a step for ``rank``; {} where its share is empty.

    Args:
        flip: mirror half of the images, by their keys.
        augment: strength of what ``augmented`` does to images of ``bit_depth``, by their keys too.
        pin: put the tensors into page-locked memory, for a GPU.
        pairs: deals every example one whose condition it has.
    """
    first, last = share(batch_size, rank, ranks)

    def fetch(step: int) -> Batch:
        indices, keys = order.at(step * batch_size + first, step * batch_size + last)
        if not len(indices):
            return {}
        sources = None if pairs is None else pairs.sources(indices, keys)
        batch = {**examples.batch(indices, sources), "key": keys}
        if flip:
            batch["image"] = flipped(batch["image"], keys)
        if augment:
            batch["image"] = augmented(batch["image"], keys, augment, bit_depth)
        return {name: tensor.pin_memory() for name, tensor in batch.items()} if pin else batch

    return fetch
