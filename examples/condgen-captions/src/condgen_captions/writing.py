"""Captions out of named attributes, as people would write them: not everything is said, and never in one way.

Which attributes are mentioned, and in which words, is a function of the example's own stream of random numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from condgen.streams import example_uniforms
from torch import Tensor

STREAM = -16
"""Of the example's key: encoders of others than condgen's take -16 and below."""
SAID = 0.85
"""Chance that something to be seen is mentioned."""
DENIED = 0.3
"""Chance that the absence of something in ``_ABSENT`` is mentioned."""

_OPENINGS = ("a {}person", "a {}face", "a portrait of a {}person")
_BEFORE: Mapping[str, Sequence[str]] = {
    "smile": ("smiling", "cheerful"),
    "bald": ("bald",),
    "dark skin": ("dark-skinned",),
}
_WITH: Mapping[str, Sequence[str]] = {
    "glasses": ("glasses", "eyeglasses"),
    "beard": ("a beard", "a full beard"),
    "hat": ("a hat", "a hat on"),
    "fringe": ("a fringe", "bangs"),
    "open mouth": ("an open mouth", "mouth open"),
}
_HAIR: Mapping[str, Sequence[str]] = {
    "long hair": ("long",),
    "dark hair": ("dark", "black"),
    "red hair": ("red",),
    "blond hair": ("blond", "yellow"),
    "grey hair": ("grey", "white"),
}
_AFTER: Mapping[str, Sequence[str]] = {
    "looking left": ("looking left", "turned to the left"),
    "looking right": ("looking right", "turned to the right"),
}
_ABSENT: Mapping[str, Sequence[str]] = {
    "glasses": ("no glasses", "without glasses"),
    "beard": ("no beard", "without beard"),
    "hat": ("no hat", "without hat"),
}


def written(names: Sequence[str], values: Tensor, keys: Tensor) -> list[str]:
    """A caption for each example.

    Args:
        names: of the attributes; those without a phrase here are mentioned by their own name.
        values: 1 yes, 0 no, anything else unknown: (B, A).
        keys: the examples' own streams, int64 (B,).
    """
    draws = example_uniforms(keys, STREAM, 1 + 2 * len(names)).tolist()
    rows = values.tolist()
    return [_one(dict(zip(names, row, strict=True)), draw) for row, draw in zip(rows, draws, strict=True)]


def _one(known: Mapping[str, int], draw: Sequence[float]) -> str:
    before, hair, have, after = [], [], [], []
    for i, (name, value) in enumerate(known.items()):
        said, which = draw[1 + 2 * i : 3 + 2 * i]

        def word(table: Mapping[str, Sequence[str]], name: str = name, which: float = which) -> str:
            choices = table.get(name, (name,))
            return choices[int(which * len(choices))]

        if value == 1 and said < SAID:
            if name in _BEFORE:
                before.append(word(_BEFORE))
            elif name in _HAIR:
                hair.append(word(_HAIR))
            elif name in _AFTER:
                after.append(word(_AFTER))
            else:
                have.append(word(_WITH))
        elif value == 0 and said < DENIED and name in _ABSENT:
            after.append(word(_ABSENT))
    if hair:
        have.insert(0, " ".join([*hair, "hair"]))
    opening = _OPENINGS[int(draw[0] * len(_OPENINGS))]
    text = opening.format("".join(f"{adjective} " for adjective in before))
    if have:
        text += " with " + (", ".join(have[:-1]) + " and " if have[1:] else "") + have[-1]
    return ", ".join([text, *after])


def keys_of(batch: Mapping[str, Tensor], count: int) -> Tensor:
    """What each example's caption depends on: in training its key, new in every epoch; else its place in the set."""
    if "key" in batch:
        return batch["key"]
    return batch["index"] if "index" in batch else torch.zeros(count, dtype=torch.int64)
