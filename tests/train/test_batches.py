"""The order of examples: whatever the interleaving of processes, restarts and batch sizes, one sequence."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from condgen import streams
from condgen.train.batches import Batch, Batches, Order, fetcher, share

quick = settings(max_examples=50, derandomize=True, deadline=None)


def slow_sequence(count: int, seed: int, length: int) -> list[tuple[int, int]]:
    """(index, key) of the first ``length`` positions, one at a time."""
    found = []
    for g in range(length):
        epoch, place = divmod(g, count)
        index = int(streams.permutation(count, seed, "order", epoch)[place])
        found.append((index, int(streams.example_keys(np.array([index]), seed, "example", epoch)[0])))
    return found


@quick
@given(
    st.integers(1, 40),
    st.integers(0, 2**63 - 1),
    st.lists(st.tuples(st.integers(1, 17), st.integers(1, 5)), max_size=6),
)
def test_any_interleaving_gives_one_sequence(count: int, seed: int, chunks: list[tuple[int, int]]) -> None:
    """Chunks: a global batch and a world size each, as after restarts on other machines."""
    found, position = [], 0
    for batch, ranks in chunks:
        order = Order(count, seed)  # a restart knows nothing
        for rank in range(ranks):
            first, last = share(batch, rank, ranks)
            indices, keys = order.at(position + first, position + last)
            assert indices.dtype == np.int64 and keys.dtype == torch.int64
            found += list(zip(indices.tolist(), keys.tolist(), strict=True))
        position += batch
    assert found == slow_sequence(count, seed, position)


@quick
@given(st.integers(1, 100), st.integers(1, 12))
def test_shares_tile_the_batch(batch: int, ranks: int) -> None:
    sizes = [share(batch, rank, ranks) for rank in range(ranks)]
    assert sizes[0][0] == 0 and sizes[-1][1] == batch
    assert all(a[1] == b[0] for a, b in itertools.pairwise(sizes))
    lengths = [last - first for first, last in sizes]
    assert max(lengths) - min(lengths) <= 1


def test_an_epoch_is_a_permutation_and_the_next_another() -> None:
    indices, keys = Order(37, 5).at(0, 74)
    assert sorted(indices[:37]) == sorted(indices[37:]) == list(range(37))
    assert indices[:37].tolist() != indices[37:].tolist()
    assert len(set(keys.tolist())) == 74
    assert Order(37, 6).at(0, 37)[0].tolist() != indices[:37].tolist()


class Numbers:
    """Images that show their own index: pixel (0, 0) of example i is i, and (0, 1) is 255."""

    def __len__(self) -> int:
        return 20

    def batch(self, indices: np.ndarray, sources: np.ndarray | None = None) -> Batch:
        image = torch.zeros(len(indices), 1, 1, 2, dtype=torch.uint8)
        image[:, 0, 0, 0] = torch.from_numpy(indices)
        image[:, 0, 0, 1] = 255
        return {"image": image, "index": torch.from_numpy(indices)}


def test_flips_follow_the_example_not_its_place() -> None:
    def flips(batch_size: int, ranks: int) -> dict[tuple[int, int], bool]:
        found = {}
        for step in range(40 // batch_size):
            for rank in range(ranks):
                fetch = fetcher(Numbers(), Order(20, 3), batch_size, rank, ranks, flip=True, pin=False)
                batch = fetch(step)
                for row, index in zip(batch.get("image", []), batch.get("index", []), strict=True):
                    epoch = (int(index), step * batch_size // 20)
                    found[epoch] = bool(row[0, 0, 0] == 255 and int(index) != 255)
        return found

    first = flips(20, 1)
    assert first == flips(4, 1) == flips(5, 2) == flips(2, 4)
    assert 8 < sum(first.values()) < 32  # about half of 40
    assert any(first[i, 0] != first[i, 1] for i in range(20))  # drawn anew in every epoch


def test_an_empty_share_fetches_nothing() -> None:
    fetch = fetcher(Numbers(), Order(20, 3), 2, 1, 4, flip=True, pin=False)
    assert share(2, 0, 4) == (0, 0) and fetcher(Numbers(), Order(20, 3), 2, 0, 4, flip=True, pin=False)(0) == {}
    assert len(fetch(0)["key"]) == 1


def test_prefetched_batches_come_in_order_from_one_thread() -> None:
    threads = set()

    def fetch(step: int) -> Batch:
        threads.add(threading.get_ident())
        return {"key": torch.tensor([step])}

    with Batches(fetch, 7) as batches:
        assert [int(batches.next()["key"]) for _ in range(10)] == list(range(7, 17))
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_an_error_in_the_background_is_raised_in_front() -> None:
    def fetch(step: int) -> Batch:
        if step == 2:
            raise OSError("gone")
        return {"key": torch.tensor([step])}

    with Batches(fetch, 0) as batches:
        batches.next()
        batches.next()
        with pytest.raises(OSError, match="gone"):
            batches.next()
