"""The chores of an autoencoder: its error on validation images, and sheets of its reconstructions."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from condgen.autoencoder import Autoencoder
from condgen.draw import displayable, save_png, sheet
from condgen.evaluate.bits import ImageSet
from condgen.evaluate.squared_error import squared_error
from condgen.recipe import SampleSection

_COLUMNS = 8


class ErrorValidation:
    """Squared error per sub-pixel of the same ``limit`` validation images every time.

    Args:
        model: to estimate ``seconds`` with; its weights do not matter.
    """

    def __init__(self, images: ImageSet, limit: int, batch_size: int, model: Autoencoder) -> None:
        self._images, self._limit, self._batch_size = images, limit, batch_size
        self.seconds = 0.0
        self(model, 0)

    def __call__(self, module: Autoencoder, step: int) -> dict[str, float]:
        start = time.monotonic()
        mean, interval = squared_error(module, self._images, self._limit, self._batch_size)
        self.seconds = time.monotonic() - start
        return {"squared_error": mean} | ({} if interval is None else {"squared_error_ci95": interval})


class Reconstructions:
    """Sheets ``step-00012000.png``: the first images of a set, and below each what the decoder makes of it.

    Args:
        folder: where they go.
        images: of which ``sample.count`` are shown.
        model: to estimate ``seconds`` with.
    """

    def __init__(self, folder: Path, sample: SampleSection, images: ImageSet, model: Autoencoder) -> None:
        self._folder = folder
        self._shown = images.batch(np.arange(min(sample.count, len(images))))
        self.seconds = 0.0
        self._drawn(model)

    def _drawn(self, model: Autoencoder) -> np.ndarray:
        """uint8 (N, C, H, W) 0 .. 255."""
        start = time.monotonic()
        with torch.no_grad():
            condition = model.condition({name: value.to(model.device) for name, value in self._shown.items()})
        drawn = displayable(model.reconstruct(condition), model.info.bit_depth)
        self.seconds = time.monotonic() - start
        return drawn

    def __call__(self, module: Autoencoder, step: int) -> dict[str, float]:
        drawn = self._drawn(module)
        given = displayable(self._shown["image"], module.info.bit_depth)
        rows = []
        for first in range(0, len(given), _COLUMNS):
            part = slice(first, first + _COLUMNS)
            rows += [("image", given[part]), ("reconstruction", drawn[part])]
        picture = sheet(rows, title=f"reconstructions after {step:,} steps")
        save_png(self._folder / f"step-{step:08d}.png", picture, force=True)
        return {}
