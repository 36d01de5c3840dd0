"""Whose condition an image has: another image of the same identity, as a slow look at the lists confirms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from condgen import streams
from condgen.data import open_data
from condgen.data.pairs import Pairs
from condgen.recipe.schema import DataSection

IDENTITIES = np.array([7, 3, 7, 7, 9, 3, 7, -1])
OTHERS = [{2, 3, 6}, {5}, {0, 3, 6}, {0, 2, 6}, {4}, {1}, {0, 2, 3}, {7}]


def test_every_other_image_of_the_identity_is_dealt_evenly() -> None:
    pairs = Pairs(IDENTITIES)
    dealt: list[list[int]] = [[] for _ in IDENTITIES]
    for epoch in range(300):
        keys = streams.example_keys(np.arange(8), 5, "example", epoch)
        for index, source in enumerate(pairs.sources(np.arange(8), keys)):
            dealt[index].append(int(source))
    assert [set(found) for found in dealt] == OTHERS
    assert all(70 < dealt[0].count(source) < 130 for source in OTHERS[0])


def test_a_source_is_the_examples_own_wherever_it_stands() -> None:
    pairs, keys = Pairs(IDENTITIES), streams.example_keys(np.arange(8), 1, "example", 0)
    whole = pairs.sources(np.arange(8), keys)
    order = np.array([6, 0, 3])
    assert pairs.sources(order, keys[torch.from_numpy(order)]).tolist() == whole[order].tolist()
    fixed = pairs.sources(np.arange(8))
    assert fixed.tolist() == pairs.sources(np.arange(8)).tolist() != whole.tolist()
    assert pairs.sources(order).tolist() == fixed[order].tolist()


def test_a_set_with_pairs_describes_the_source_as_well(tmp_path: Path) -> None:
    images = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2)
    np.savez(tmp_path / "train.npz", x=images, y=np.array([0, 1, 0, 1, 0, 2]))
    section = {"source": "npz", "root": str(tmp_path), "image_size": 2, "channels": 1, "validation": 0.0, "test": 0.0}
    paired = open_data(DataSection.model_validate(section | {"pairs": "identity"}), "train")
    batch = paired.batch(np.arange(6))
    assert paired.pairs is not None and batch["source"].tolist() == paired.pairs.sources(np.arange(6)).tolist()
    assert torch.equal(batch["source.image"], batch["image"][batch["source"]])
    assert torch.equal(batch["source.label"], batch["label"]) and batch["source.index"].equal(batch["source"])
    chosen = paired.batch(np.array([4, 0]), np.array([2, 4]))
    assert chosen["source"].tolist() == [2, 4] and chosen["image"].equal(batch["image"][[4, 0]])
    plain = open_data(DataSection.model_validate(section), "train")
    assert set(plain.batch(np.arange(2))) == {"image", "index", "label"}
    assert plain.fingerprint == paired.fingerprint
