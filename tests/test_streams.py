"""Streams: functions of their key, evenly spread, and the same for every way of asking."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import chisquare, kstest

from condgen import streams


def splitmix64(state: int) -> int:
    """The reference in plain integers: Steele, Lea and Flood 2014."""
    mask = 2**64 - 1
    z = state & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_the_hash_equals_plain_integer_arithmetic() -> None:
    keys = streams.example_keys(np.arange(5), 3, "x", 1)
    base = streams.key(3, "x", 1)
    for i in range(5):
        assert int(keys[i]) % 2**64 == splitmix64(base + i * 0x9E3779B97F4A7C15)
    drawn = streams.example_bytes(keys, 2, 24)
    for i in range(5):
        start = splitmix64(int(keys[i]) + 2 * 0x94D049BB133111EB)
        words = b"".join(splitmix64(start + k * 0x9E3779B97F4A7C15).to_bytes(8, "little") for k in range(3))
        assert bytes(drawn[i].tolist()) == words


def test_bytes_and_uniforms_are_even() -> None:
    keys = streams.example_keys(np.arange(200), 0, "even")
    counts = torch.bincount(streams.example_bytes(keys, 1, 1000).flatten().long(), minlength=256)
    assert chisquare(counts).pvalue > 1e-4
    drawn = streams.example_uniforms(keys, 1, 500)
    assert 0 < float(drawn.min()) and float(drawn.max()) < 1
    assert kstest(drawn.flatten(), "uniform").pvalue > 1e-4
    assert kstest(streams.uniforms(20_000, 0, "u"), "uniform").pvalue > 1e-4


def test_an_example_owes_nothing_to_its_batch() -> None:
    all_keys = streams.example_keys(np.arange(50), 0, "a")
    one = streams.example_keys(np.array([17]), 0, "a")
    assert torch.equal(one, all_keys[17:18])
    assert torch.equal(streams.example_bytes(one, 4, 33), streams.example_bytes(all_keys, 4, 33)[17:18])


def test_streams_of_other_purposes_differ() -> None:
    assert len({streams.key(0, "a"), streams.key(1, "a"), streams.key(0, "b"), streams.key(0, "a", 0)}) == 4
    keys = streams.example_keys(np.arange(3), 0, "a")
    assert not torch.equal(streams.example_bytes(keys, 1, 8), streams.example_bytes(keys, 2, 8))


def test_permutation_is_one_and_depends_on_the_epoch() -> None:
    first, second = (streams.permutation(1000, 0, "order", epoch) for epoch in range(2))
    assert sorted(first.tolist()) == list(range(1000))
    assert (first != second).mean() > 0.9
    assert np.array_equal(first, streams.permutation(1000, 0, "order", 0))


def test_known_answers_never_change() -> None:
    """A model's order and samples must mean the same in every later version."""
    assert streams.key(0, "order", 0) == 6942163024847554866
    assert streams.uniforms(2, 0, "sample", 0).tolist() == [0.7053809332503838, 0.8856393277512531]
    assert streams.permutation(6, 0, "order", 0).tolist() == [2, 5, 4, 3, 0, 1]
