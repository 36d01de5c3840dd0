"""Points of the unit cube and what their coordinates become: numbers and colours for the painter.

Only + - * / % and comparisons are used, which every machine rounds alike.

Legend: n pictures, numbers (n, 1, 1), colours (3, n, 1, 1) in 0..1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.floating[Any]]  # float32 throughout; type stubs lose track of it


@dataclass(frozen=True, slots=True)
class Columns:
    """Numbers (n, 1, 1) and colours (3, n, 1, 1), float32, which meet planes (n, H, W)."""

    def block(self, pictures: slice) -> Self:
        """The entries of some of the n pictures."""
        return type(self)(**{f.name: getattr(self, f.name)[..., pictures, :, :] for f in fields(self)})


def coordinates(points: np.ndarray) -> Iterator[Planes]:
    """One column of ``points`` (n, k) after the other, (n, 1, 1)."""
    return iter(points.T.astype(np.float32)[:, :, None, None])


def between(u: Planes, low: float, high: float) -> Planes:
    return low + (high - low) * u


def chance(u: Planes, probability: Planes | float) -> Planes:
    """1 with ``probability``, else 0."""
    return (u < probability).astype(np.float32)


def path(u: Planes, stops: tuple[float, ...], values: tuple[float, ...] | tuple[tuple[float, ...], ...]) -> Planes:
    """Piecewise linear through ``values`` at ``stops``: numbers (n, 1, 1), or colours (3, n, 1, 1)."""
    at, through = np.array(stops, np.float32), np.array(values, np.float32).T
    piece = np.clip(np.searchsorted(at, u, side="right") - 1, 0, len(at) - 2)
    part = (u - at[piece]) / (at[piece + 1] - at[piece])
    start: Planes = through[..., piece]
    return start + part * (through[..., piece + 1] - start)


def rgb(red: float, green: float, blue: float) -> Planes:
    """A colour (or a factor on colours), (3, 1, 1, 1)."""
    return np.array([red, green, blue], np.float32)[:, None, None, None]


def hue_colour(hue: Planes, saturation: Planes, value: Planes) -> Planes:
    """HSV to RGB, (3, n, 1, 1)."""
    place = (rgb(5, 3, 1) + 6 * hue) % 6
    return value - value * saturation * np.clip(np.minimum(place, 4 - place), 0.0, 1.0)
