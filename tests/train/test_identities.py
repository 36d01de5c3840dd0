"""Batches of P identities with K views each."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from condgen.errors import InputError, RecipeError
from condgen.train.batches import share
from condgen.train.identities import IdentityOrder

COUNTS = [1, 2, 5, 4, 3, 1, 9, 6, 2, 4]  # pictures of each identity; two have a single one
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(len(COUNTS)) * 7 + 100, COUNTS))
P, K = 3, 4


def order(seed: int = 0) -> IdentityOrder:
    return IdentityOrder(LABELS, P * K, K, seed)


def batch(step: int, seed: int = 0) -> np.ndarray:
    return order(seed).at(step * P * K, (step + 1) * P * K)[0]


def test_every_batch_has_p_identities_with_k_views() -> None:
    for step in range(40):
        people = LABELS[batch(step)].reshape(P, K)
        assert (people == people[:, :1]).all() and len(set(people[:, 0])) == P


def test_views_are_as_different_as_there_are() -> None:
    counts = dict(zip(*np.unique(LABELS, return_counts=True), strict=True))
    for step in range(40):
        for group in batch(step).reshape(P, K):
            assert len(set(group.tolist())) == min(K, counts[LABELS[group[0]]])


def test_an_epoch_shows_everybody_once_but_the_few_left_over() -> None:
    found = order()
    assert (found.identities, found.single) == (8, 2)
    left_out = set()
    for epoch in range(20):
        people = [p for step in range(2) for p in LABELS[batch(2 * epoch + step)].reshape(P, K)[:, 0].tolist()]
        assert len(people) == len(set(people)) == 6  # 8 identities are two batches of 3
        left_out.add(frozenset(set(LABELS.tolist()) - set(people) - {100, 135}))
    assert len(left_out) > 5  # others in every epoch


def test_a_function_of_seed_and_step_for_any_world() -> None:
    whole, keys = order().at(5 * P * K, 8 * P * K)
    parts = []
    for step in (5, 6, 7):
        for rank in range(5):
            first, last = share(P * K, rank, 5)
            parts.append(order().at(step * P * K + first, step * P * K + last))
    assert np.array_equal(np.concatenate([indices for indices, _ in parts]), whole)
    assert torch.equal(torch.cat([key for _, key in parts]), keys)
    assert len(set(keys.tolist())) == 3 * P * K  # a picture that comes twice in a batch has two keys
    assert not np.array_equal(batch(5, seed=1), batch(5))
    assert np.array_equal(batch(5), whole[: P * K])


def test_single_views_are_never_drawn() -> None:
    assert not {100, 135} & {LABELS[i] for step in range(60) for i in batch(step)}


@pytest.mark.parametrize(
    ("size", "views", "words"),
    [
        (10, 4, "multiple of 4, at least 8"),
        (4, 4, "at least 8"),
        (36, 4, "8 identities more than once; lower it to 32"),
    ],
)
def test_sizes_that_do_not_fit(size: int, views: int, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        IdentityOrder(LABELS, size, views, 0)
    assert caught.value.field == "train.batch_size" and caught.value.exit_code == 2


def test_nobody_twice() -> None:
    with pytest.raises(InputError, match="show 30 identities and none of them twice") as caught:
        IdentityOrder(np.arange(30), 8, 4, 0)
    assert caught.value.exit_code == 3
