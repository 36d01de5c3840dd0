"""The chores of an embedding: how well it tells validation people apart, as figures and as a curve."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from condgen.data import Dataset
from condgen.draw import save_png
from condgen.embedding import Embedding
from condgen.evaluate.roc import Roc, roc_of, roc_picture
from condgen.evaluate.verification import STRICT, embedded, people_of, raw_pixels

_PICTURED = 512
"""Images of a curve."""


class _Pairs:
    """All pairs of about ``limit`` images, the same ones every time.

    Raises:
        InputError: there are no two images of one person, or of two.
    """

    def __init__(self, images: Dataset, limit: int, batch_size: int) -> None:
        self._images, self._batch_size = images, batch_size
        self.indices = people_of(images, limit)
        self.people = images.identities[self.indices]
        self.baseline = roc_of(raw_pixels(images, self.indices), self.people)

    def roc(self, model: Embedding) -> Roc:
        return roc_of(embedded(model, self._images, self.indices, self._batch_size), self.people)


class VerificationFigures:
    """AUC, and true accepts at few false ones, over all pairs of about ``limit`` validation images.

    Args:
        model: to estimate ``seconds`` with; its weights do not matter.
    """

    def __init__(self, images: Dataset, limit: int, batch_size: int, model: Embedding) -> None:
        self._pairs = _Pairs(images, limit, batch_size)
        self.seconds = 0.0
        self(model, 0)

    def __call__(self, module: Embedding, step: int) -> dict[str, float]:
        start = time.monotonic()
        found = self._pairs.roc(module)
        self.seconds = time.monotonic() - start
        return {"auc": found.auc, "tar_at_far_1e-3": found.true_accepts_at(STRICT)}


class RocPictures:
    """``step-00012000.png``: the curve over validation people, beside that of the raw pixels.

    Args:
        folder: where they go.
        model: to estimate ``seconds`` with.
    """

    def __init__(self, folder: Path, images: Dataset, model: Embedding) -> None:
        self._folder = folder
        self._pairs = _Pairs(images, _PICTURED, 64)
        start = time.monotonic()
        self._pairs.roc(model)
        self.seconds = time.monotonic() - start

    def __call__(self, module: Embedding, step: int) -> dict[str, float]:
        people = len(np.unique(self._pairs.people))
        curves = {"embedding": self._pairs.roc(module), "raw pixels": self._pairs.baseline}
        picture = roc_picture(curves, f"{people} unseen people after {step:,} steps")
        save_png(self._folder / f"step-{step:08d}.png", picture, force=True)
        return {}
