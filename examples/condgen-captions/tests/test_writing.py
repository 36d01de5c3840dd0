"""Captions written from attributes: they say what is true, leave things out, and are fixed by the example's key."""

from __future__ import annotations

import re

import condgen
import pytest
import torch

from condgen_captions import writing

MEANS = {
    "glasses": r"glasses|eyeglasses", "beard": "beard", "bald": "bald", "long hair": "long", "fringe": "fringe|bangs",
    "dark hair": r"dark\b(?!-)|black", "red hair": "red", "blond hair": "blond|yellow", "grey hair": "grey|white",
    "dark skin": "dark-skinned", "hat": "hat", "smile": "smiling|cheerful", "open mouth": "mouth",
    "looking left": "left", "looking right": "right",
}  # fmt: skip
"""A reader of captions that shares nothing with the writer."""


def read(caption: str) -> dict[str, int]:
    """The attributes that a caption speaks of, as 1 or 0."""
    found = {}
    for name, words in MEANS.items():
        if re.search(rf"\b(no|without) ({words})\b", caption):
            found[name] = 0
        elif re.search(rf"\b({words})", caption):
            found[name] = 1
    return found


@pytest.fixture
def examples(portraits: condgen.DataInfo) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 2, (500, len(portraits.attributes)), generator=generator, dtype=torch.int8)
    return values, torch.randint(-(2**60), 2**60, (500,), generator=generator)


def test_captions_say_what_is_true(portraits: condgen.DataInfo, examples: tuple[torch.Tensor, torch.Tensor]) -> None:
    values, keys = examples
    said, total = 0, 0
    for caption, row in zip(writing.written(portraits.attributes, values, keys), values.tolist(), strict=True):
        truth = dict(zip(portraits.attributes, row, strict=True))
        spoken = read(caption)
        assert all(truth[name] == value for name, value in spoken.items()), (caption, truth)
        said += sum(spoken.values())
        total += sum(row)
    assert abs(said / total - writing.SAID) < 0.02  # most of what is there, not all


def test_the_key_decides(portraits: condgen.DataInfo, examples: tuple[torch.Tensor, torch.Tensor]) -> None:
    values, keys = examples
    captions = writing.written(portraits.attributes, values, keys)
    assert captions == writing.written(portraits.attributes, values, keys)
    assert captions[7:9] == writing.written(portraits.attributes, values[7:9], keys[7:9])
    same = values[:1].expand(500, -1)
    assert len(set(writing.written(portraits.attributes, same, keys))) > 100


def test_unknown_values_and_names() -> None:
    keys = torch.arange(50)
    assert {"hat" in caption for caption in writing.written(["hat"], torch.full((50, 1), -1), keys)} == {False}
    assert any(
        caption.endswith("with pointy nose") for caption in writing.written(["pointy nose"], torch.ones(50, 1), keys)
    )
    assert all(writing.written([], torch.ones(50, 0), keys))


def test_what_decides_a_caption() -> None:
    index, key = torch.tensor([3, 4]), torch.tensor([30, 40])
    assert torch.equal(writing.keys_of({"index": index, "key": key}, 2), key)
    assert torch.equal(writing.keys_of({"index": index}, 2), index)
    assert writing.keys_of({}, 2).tolist() == [0, 0]
