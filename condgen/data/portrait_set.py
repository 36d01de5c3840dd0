"""The package's own portraits as a data set: ``data.identities`` people with ``data.views`` pictures each.

Nothing lies on disk. A picture is drawn when it is first asked for and then kept, so that later epochs cost nothing.
Validation and test have people of their own. The label is the number of the person; there are no class names.
"""

from __future__ import annotations

import numpy as np

from condgen.data.framing import Framing, luma
from condgen.data.parts import Loaded, Source, Split, digest
from condgen.data.portraits import ATTRIBUTES, draw
from condgen.errors import RecipeError
from condgen.recipe.schema import DataSection

_FIRST: dict[Split, int] = {"train": 0, "validation": 1 << 40, "test": 1 << 41}
"""The first identity of each split: so far apart that no number of people makes them meet."""
_LARGEST = 1 << 26
"""Pictures of one split."""
_KEPT_BYTES = 2 << 30
"""Pixels of a split that are kept; a larger one is drawn anew every time."""


def find_portraits(section: DataSection) -> Source:
    """The portraits that ``section`` describes; ``split_seed`` is the seed of all people and pictures.

    Raises:
        RecipeError: more pictures than can be numbered in memory.
    """
    if section.identities * section.views > _LARGEST:
        raise RecipeError(
            f"data.identities x data.views is {section.identities * section.views:,}, more than {_LARGEST:,}; lower "
            "one.",
            field="data.identities",
        )
    held_out = max(64, section.identities // 8)
    counts: dict[Split, int] = {"train": section.identities, "validation": held_out, "test": held_out}
    parts = {split: PortraitPart(section, _FIRST[split], identities) for split, identities in counts.items()}
    return Source("portraits", parts, (), tuple(ATTRIBUTES))


class PortraitPart:
    """``identities`` people from number ``first`` on, all views of one after another."""

    def __init__(self, section: DataSection, first: int, identities: int) -> None:
        self.labels = np.repeat(np.arange(first, first + identities, dtype=np.int64), section.views)
        self.fingerprint = digest("portraits 1", section.split_seed, first, identities, section.views, section.grain)
        self.stamp = self.fingerprint
        self._section = section
        self._attributes = np.zeros((len(self.labels), len(ATTRIBUTES)), np.int8)
        self._known = np.zeros(len(self.labels), bool)  # whose pixels (where kept) and attributes are there
        self._pixels: np.ndarray | None = None  # (n, C, H, W), filled as pictures are drawn

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def attributes(self) -> _Attributes:
        return _Attributes(self)

    def load(self, framing: Framing, max_skipped: float) -> Loaded:
        """See ``Part``: the part draws its own pixels, as ``part[rows]``. Nothing can be skipped."""
        if len(self) * int(np.prod(framing.shape)) <= _KEPT_BYTES:
            self._pixels = np.zeros((len(self), *framing.shape), np.uint8)
        return Loaded(self, [], 0)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """uint8 (B, C, H, W). Safe in several threads: two may draw the same picture, and keep the same bytes."""
        if self._pixels is None:
            return self._drawn(rows)
        missing = np.unique(rows[~self._known[rows]])
        if len(missing):
            self._pixels[missing] = self._drawn(missing)
            self._known[missing] = True  # last: another thread may take what is known
        return self._pixels[rows]

    def _drawn(self, rows: np.ndarray) -> np.ndarray:
        section = self._section
        images, self._attributes[rows] = draw(
            section.split_seed, self.labels[rows], rows % section.views, section.height, section.width, section.grain
        )
        if self._pixels is None:
            self._known[rows] = True
        if section.channels == 1:
            return luma(*images.astype(np.int32).transpose(1, 0, 2, 3)).astype(np.uint8)[:, None]
        if section.channels == 4:
            return np.concatenate([images, np.full_like(images[:, :1], 255)], axis=1)
        return images


class _Attributes:
    """int8 (n, A) of 0 and 1: known once a picture was drawn."""

    def __init__(self, part: PortraitPart) -> None:
        self._part = part

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        missing = np.unique(rows[~self._part._known[rows]])
        if len(missing):
            self._part[missing]
        return self._part._attributes[rows]
