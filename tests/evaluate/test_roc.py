"""Curves over all pairs, against the same said slowly."""

from __future__ import annotations

import numpy as np
import pytest

from condgen.errors import InputError
from condgen.evaluate import roc
from condgen.evaluate.roc import accuracy_at, roc_of, roc_picture


def pictures(seed: int, count: int = 60, people: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors on a coarse grid, so that many similarities are equal, and who is in each."""
    generator = np.random.default_rng(seed)
    vectors = generator.integers(-1, 2, (count, 3)).astype(float)
    vectors[(vectors == 0).all(1)] = 1
    return vectors / np.sqrt((vectors**2).sum(1, keepdims=True)), generator.integers(0, people, count)


def slow_pairs(vectors: np.ndarray, people: np.ndarray) -> tuple[list[float], list[float]]:
    same: list[float] = []
    different: list[float] = []
    for i in range(len(vectors)):
        for j in range(i):
            (same if people[i] == people[j] else different).append(float(round(vectors[i] @ vectors[j], 12)))
    return same, different


@pytest.fixture(params=[512, 7], ids=["one block", "blocks of 7"])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roc, "_BLOCK", request.param)


@pytest.mark.parametrize("seed", range(4))
def test_auc_is_the_share_of_pairs_of_pairs_in_order(block: None, seed: int) -> None:
    generator = np.random.default_rng(seed)
    vectors, people = generator.normal(size=(60, 5)), generator.integers(0, 12, 60)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    same, different = slow_pairs(vectors, people)
    found = roc_of(vectors, people)
    assert (found.same, found.different) == (len(same), len(different))
    assert found.auc == pytest.approx(np.mean([(a > b) + 0.5 * (a == b) for a in same for b in different]), abs=1e-12)


def test_ties_count_half() -> None:
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    people = np.array([0, 0, 0, 1, 1])  # same: 1, 0, 0 and 0; different: 0, 0, 1, 1, 1, 0
    same, different = slow_pairs(vectors, people)
    expected = np.mean([(a > b) + 0.5 * (a == b) for a in same for b in different])
    assert roc_of(vectors, people).auc == pytest.approx(expected)
    assert 0 < expected < 1


@pytest.mark.parametrize("allowed", [0.0, 1e-3, 0.05, 0.3, 1.0])
def test_true_accepts_at_few_false_ones(block: None, allowed: float) -> None:
    generator = np.random.default_rng(5)
    people = np.repeat(np.arange(10), 5)
    vectors = generator.normal(size=(10, 4))[people] + 0.7 * generator.normal(size=(50, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    same, different = (np.array(part) for part in slow_pairs(vectors, people))
    every = np.concatenate([same, different, [2.0]])
    slow = max((same >= t - 1e-9).mean() for t in every if (different >= t - 1e-9).mean() <= allowed)
    assert roc_of(vectors, people).true_accepts_at(allowed) == pytest.approx(slow)


def test_the_best_threshold_is_the_best() -> None:
    vectors, people = pictures(3)
    vectors = vectors + 1e-3 * np.random.default_rng(0).normal(size=vectors.shape)  # no ties
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    best = roc_of(vectors, people).best_threshold()
    every = np.concatenate(slow_pairs(vectors, people))
    assert accuracy_at(vectors, people, best) == pytest.approx(
        max(accuracy_at(vectors, people, t - 1e-9) for t in every), abs=1e-9
    )
    same, different = (np.array(part) for part in slow_pairs(vectors, people))
    assert accuracy_at(vectors, people, 0.2) == pytest.approx(((same >= 0.2).mean() + (different < 0.2).mean()) / 2)


def test_the_drawn_curve_has_its_area() -> None:
    generator = np.random.default_rng(1)
    people = np.repeat(np.arange(12), 5)
    vectors = generator.normal(size=(12, 4))[people] + 0.8 * generator.normal(size=(60, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = roc_of(vectors, people)
    far, tar = found.points()
    assert (np.diff(far) > 0).all() and (np.diff(tar) >= 0).all() and (far[0], tar[0], far[-1], tar[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(tar, far) == pytest.approx(found.auc, abs=5e-3)
    assert roc_picture({"embedding": found, "raw pixels": found}, "12 people").width > 1000


@pytest.mark.parametrize(
    ("people", "words"), [(np.arange(5), "No person of this split has two pictures"), (np.zeros(5, int), "one person")]
)
def test_no_pairs(people: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        roc_of(np.eye(5), people)
