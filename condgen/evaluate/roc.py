"""Receiver operating characteristics: which pairs of pictures a threshold takes for one person.

A pair is accepted where the cosine of its unit vectors reaches a threshold. Every figure is exact over all pairs, which
are counted block by block and never held together.

Legend: N pictures, D length of an embedding, S pairs of one person ("same"), the others "different"; TAR and FAR the
shares of same and of different pairs that are accepted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from condgen.draw import curve, panels
from condgen.errors import InputError

_BLOCK = 512
"""Pictures whose similarities to all others are held at a time."""
_POINTS = 400
"""Of a curve that is drawn."""


@dataclass(frozen=True)
class Roc:
    """What a threshold accepts, at every threshold where that changes for a same pair.

    Attributes:
        thresholds: similarities of the same pairs, ascending, float64 (S,).
        above: different pairs with a larger similarity than each of them, int64 (S,).
        level: different pairs with that very similarity, int64 (S,).
        different: all different pairs.
    """

    thresholds: np.ndarray
    above: np.ndarray
    level: np.ndarray
    different: int

    @property
    def same(self) -> int:
        return len(self.thresholds)

    @property
    def auc(self) -> float:
        """The probability that a same pair is more similar than a different one; a tie counts half."""
        return float(1 - (self.above + 0.5 * self.level).mean() / self.different)

    @property
    def false_accepts(self) -> np.ndarray:
        """FAR at each threshold, descending, float64 (S,)."""
        return (self.above + self.level) / self.different

    @property
    def true_accepts(self) -> np.ndarray:
        """TAR at each threshold, descending, float64 (S,)."""
        rejected = np.searchsorted(self.thresholds, self.thresholds, side="left")
        return 1 - rejected / self.same

    def true_accepts_at(self, false_accepts: float) -> float:
        """The largest TAR whose FAR is at most ``false_accepts``; 0 where no threshold is strict enough."""
        allowed = self.false_accepts <= false_accepts
        return float(self.true_accepts[allowed].max(initial=0.0))

    def best_threshold(self) -> float:
        """The threshold with the largest mean of TAR and 1 - FAR."""
        return float(self.thresholds[np.argmax(self.true_accepts - self.false_accepts)])

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """FAR and TAR from (0, 0) to (1, 1), a few hundred of them: dense where FAR is small."""
        far, tar = self.false_accepts[::-1], self.true_accepts[::-1]
        wanted = np.unique(np.r_[np.geomspace(1 / self.different, 1, _POINTS), np.linspace(0, 1, _POINTS)[1:]])
        at = np.searchsorted(far, wanted, side="right") - 1
        return np.r_[0, wanted], np.r_[0, np.where(at >= 0, tar[at], 0)]


def roc_of(vectors: np.ndarray, people: np.ndarray) -> Roc:
    """The curve over all pairs of pictures: unit vectors (N, D), who is in each, int64 (N,).

    Raises:
        InputError: nobody has two pictures, or there is one person alone.
    """
    same = np.sort(np.concatenate([s for s, is_same in _pairs(vectors, people) for s in (s[is_same],)]))
    if not len(same):
        raise InputError("No person of this split has two pictures; give more of each.", field="data.root")
    above, reached, different = np.zeros(len(same) + 1, np.int64), np.zeros(len(same) + 1, np.int64), 0
    for similarity, is_same in _pairs(vectors, people):
        others = similarity[~is_same]
        different += len(others)
        above += np.bincount(np.searchsorted(same, others, side="left"), minlength=len(same) + 1)
        reached += np.bincount(np.searchsorted(same, others, side="right"), minlength=len(same) + 1)
    if not different:
        raise InputError("All pictures of this split show one person; give several people.", field="data.root")
    # a different pair lies above the thresholds before its place: sum the places behind
    strictly = above[:0:-1].cumsum()[::-1]
    at_least = reached[:0:-1].cumsum()[::-1]
    return Roc(same, strictly, at_least - strictly, different)


def accuracy_at(vectors: np.ndarray, people: np.ndarray, threshold: float) -> float:
    """The mean of TAR and 1 - FAR over all pairs at ``threshold``."""
    accepted, counted = np.zeros(2), np.zeros(2)
    for similarity, is_same in _pairs(vectors, people):
        for kind in (0, 1):
            chosen = similarity[is_same == bool(kind)]
            counted[kind] += len(chosen)
            accepted[kind] += int((chosen >= threshold).sum())
    rates = accepted / np.maximum(counted, 1)
    return float((rates[1] + 1 - rates[0]) / 2)


def _pairs(vectors: np.ndarray, people: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(similarities, whether of one person), both flat, block by block; every pair once."""
    for start in range(0, len(vectors), _BLOCK):
        block = slice(start, start + _BLOCK)
        similarity = vectors[block] @ vectors[start:].T  # (b, N - start)
        later = np.triu(np.ones(similarity.shape, bool), 1)
        is_same = people[block, None] == people[None, start:]
        yield similarity[later], is_same[later]


def roc_picture(curves: Mapping[str, Roc], title: str) -> Image.Image:
    """TAR against FAR of every curve, on a linear and on a logarithmic axis, with the area under each."""
    named = {f"{name}: AUC {found.auc:.4f}": found.points() for name, found in curves.items()}
    linear = curve(
        {name: (far.tolist(), tar.tolist()) for name, (far, tar) in named.items()},
        title=title,
        x_label="false accepts (share of different pairs)",
        y_label="true accepts",
    )
    logarithmic = curve(
        {name: (np.log10(far[1:]).tolist(), tar[1:].tolist()) for name, (far, tar) in named.items()},
        title="where false accepts are few",
        x_label="log10 of the false accepts",
        y_label="true accepts",
    )
    return panels([linear, logarithmic])
