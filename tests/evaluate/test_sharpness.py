"""Gradient energy by slow loops, and what it is for: blur lowers it, grain hardly counts."""

from __future__ import annotations

import numpy as np
import pytest

from condgen.evaluate.sharpness import gradient_energy, sharpness


def slow(image: np.ndarray) -> float:
    """(C, H, W) uint8."""
    C, H, W = image.shape

    def at(c: int, i: int, j: int) -> float:
        return float(image[c, min(max(i, 0), H - 1), min(max(j, 0), W - 1)]) / 255

    def smooth(c: int, i: int, j: int) -> float:
        weights = {-1: 1, 0: 2, 1: 1}
        return sum(a * b * at(c, i + u, j + v) for u, a in weights.items() for v, b in weights.items()) / 16

    total = 0.0
    for c in range(C):
        for i in range(H):
            for j in range(W):
                if i + 1 < H:
                    total += (smooth(c, i + 1, j) - smooth(c, i, j)) ** 2
                if j + 1 < W:
                    total += (smooth(c, i, j + 1) - smooth(c, i, j)) ** 2
    return total


@pytest.mark.parametrize("shape", [(3, 5, 4), (1, 1, 6), (1, 7, 1), (4, 3, 3), (1, 1, 1)])
def test_gradient_energy(shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    assert gradient_energy(images) == pytest.approx([slow(image) for image in images], rel=1e-12)


def bars(count: int, side: int = 24) -> np.ndarray:
    """Grey pictures with a dark bar somewhere."""
    images = np.full((count, 1, side, side), 200, np.uint8)
    for k in range(count):
        images[k, :, :, 3 + k % 10 : 9 + k % 10] = 40
    return images


def test_blur_lowers_it_and_grain_does_not_count() -> None:
    originals, random = bars(20), np.random.default_rng(0)
    assert sharpness(originals, originals) == 1
    assert sharpness(originals[:7], originals[3:]) == pytest.approx(1)  # per picture, not in all
    blurred = np.stack([np.roll(originals, k, axis=3) for k in range(-3, 4)]).mean(0).astype(np.uint8)
    found = sharpness(blurred, originals)
    assert found is not None and found < 0.4
    grain = np.clip(originals + random.normal(0, 2, originals.shape), 0, 255).round().astype(np.uint8)
    found = sharpness(grain, originals)
    assert found == pytest.approx(1, abs=0.01)
    noise = np.clip(blurred + random.normal(0, 8, originals.shape), 0, 255).round().astype(np.uint8)
    found = sharpness(noise, originals)
    assert found is not None and found < 0.6  # noise of sigma 8 does not make up for lost edges


def test_flat_originals_have_no_share() -> None:
    assert sharpness(bars(2), np.full((2, 1, 24, 24), 9, np.uint8)) is None
