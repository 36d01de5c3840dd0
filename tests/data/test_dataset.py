"""Batches and flips."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from condgen.condition import DataInfo
from condgen.data import Dataset, flipped
from condgen.streams import example_keys

PIXELS = np.random.default_rng(0).integers(0, 256, (50, 3, 4, 5), dtype=np.uint8)


def dataset(bit_depth: int = 8) -> Dataset:
    return Dataset(
        info=DataInfo(3, 4, 5, bit_depth),
        split="train",
        fingerprint="",
        skipped=[],
        rows=np.arange(1, 50, 2),
        pixels=PIXELS,
        labels=np.arange(50) * 10,
        attributes=np.arange(100, dtype=np.int8).reshape(50, 2) % 2,
        columns={"vector": np.arange(50, dtype=np.float32)[:, None]},
    )


def test_a_batch_is_the_rows_asked_for_in_that_order() -> None:
    batch = dataset().batch(np.array([3, 0, 3]))
    rows = [7, 1, 7]
    assert np.array_equal(batch["image"], PIXELS[rows])
    assert batch["label"].tolist() == [70, 10, 70] and batch["vector"].tolist() == [[7], [1], [7]]
    assert batch["attributes"].tolist() == [[0, 1], [0, 1], [0, 1]] and batch["index"].tolist() == [3, 0, 3]
    kinds = {name: value.dtype for name, value in batch.items()}
    assert kinds == {
        "image": torch.uint8,
        "label": torch.int64,
        "attributes": torch.int8,
        "vector": torch.float32,
        "index": torch.int64,
    }


def test_a_batch_is_the_callers_own() -> None:
    indices = np.array([1, 2])
    data = dataset()
    batch = data.batch(indices)
    for value in batch.values():
        value.zero_()
    assert indices.tolist() == [1, 2] and np.array_equal(data.batch(indices)["image"], PIXELS[[3, 5]])


def test_an_empty_batch() -> None:
    batch = dataset().batch(np.array([], dtype=np.int64))
    assert batch["image"].shape == (0, 3, 4, 5) and batch["label"].shape == (0,)


def test_bit_depth() -> None:
    assert np.array_equal(dataset(3).batch(np.arange(25))["image"], PIXELS[1::2] // 32)
    assert np.array_equal(dataset(1).batch(np.arange(25))["image"], PIXELS[1::2] >= 128)


def test_several_threads_get_the_same() -> None:
    data = dataset()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: data.batch(np.random.default_rng(seed).integers(0, 25, 8)), range(50)))
    for seed, batch in enumerate(found):
        indices = np.random.default_rng(seed).integers(0, 25, 8)
        assert np.array_equal(batch["image"], PIXELS[1::2][indices])


def test_flips_are_whole_mirrors_decided_by_the_key_alone() -> None:
    images = torch.from_numpy(PIXELS)
    keys = example_keys(np.arange(50), 0, "flip")
    result = flipped(images, keys)
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(result, images, strict=True)]
    assert all(m or torch.equal(a, b) for m, a, b in zip(mirrored, result, images, strict=True))
    assert 10 < sum(mirrored) < 40
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(flipped(images[order], keys[order]), result[order])
    assert torch.equal(flipped(images[7:8], keys[7:8]), result[7:8])
    assert result.dtype == torch.uint8


def test_half_of_many_are_flipped() -> None:
    images = torch.tensor([[[[0, 1]]]], dtype=torch.uint8).expand(20_000, 1, 1, 2)
    share = flipped(images, example_keys(np.arange(20_000), 3, "x"))[:, 0, 0, 0].float().mean().item()
    assert abs(share - 0.5) < 0.02
