"""How smoothly pictures change along a walk between two conditions, beside how much chance changes them."""

from __future__ import annotations

import itertools

import numpy as np


def walk_distances(images: np.ndarray) -> tuple[float, float | None]:
    """Mean absolute differences of values 0 .. 255: between neighbours of one row, and between two rows at one place.

    Rows differ in their noise, neighbours in their condition alone: with many steps a good walk has the first figure
    far below the second.

    Args:
        images: uint8 (rows, steps, C, H, W), two steps or more.

    Returns:
        The two figures; None for the second where there is but one row.
    """
    values = images.astype(np.float64)
    along = float(np.abs(np.diff(values, axis=1)).mean())
    pairs = [float(np.abs(values[a] - values[b]).mean()) for a, b in itertools.combinations(range(len(values)), 2)]
    return along, float(np.mean(pairs)) if pairs else None
