"""Work between two steps, with the averaged weights, on rank 0: validation and sheets of samples."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from condgen.condition import Condition
from condgen.draw import displayable, grid, save_png, sheet
from condgen.evaluate.bits import ImageSet, bits_per_dim, evaluated_indices
from condgen.model import ConditionalModel
from condgen.progress import Progress
from condgen.recipe import SampleSection

_PROBE_SECONDS = 0.5
_PICTURED_IMAGES = 4


class Chore(Protocol):
    """Something that is done now and then with a module that nobody is training."""

    seconds: float
    """How long the next one will take, as far as is known."""

    def __call__(self, module: Any, step: int) -> dict[str, float]:
        """Does it; what the log shall say about it."""
        ...


class Validation:
    """Bits/dim of the same ``limit`` validation images every time; ``bound`` where it is a bound of them.

    Args:
        model: to estimate ``seconds`` with; its weights do not matter.
    """

    def __init__(self, images: ImageSet, limit: int, batch_size: int, model: ConditionalModel) -> None:
        self._images, self._limit, self._batch_size = images, limit, batch_size
        probe = min(batch_size, limit)
        bits_per_dim(model, images, min(probe, 2), probe)  # the first pass of a network is slower than any other
        start = time.monotonic()
        bits_per_dim(model, images, probe, probe)
        self.seconds = (time.monotonic() - start) * len(evaluated_indices(len(images), limit)) / probe

    def __call__(self, module: Any, step: int) -> dict[str, float]:
        start = time.monotonic()
        mean, interval = bits_per_dim(module, self._images, self._limit, self._batch_size)
        self.seconds = time.monotonic() - start
        found = {"bits_per_dim": mean} | ({} if interval is None else {"bits_per_dim_ci95": interval})
        return found | ({"bound": True} if module.likelihood.bound else {})


class Pictures:
    """Sheets of samples, ``step-00012000.png``: a row for each of the recipe's labels, or of the encoder's examples;
    for an encoder that has none, rows for images of the data, which end with the image itself and begin with what the
    condition shows of it where the encoder has a view; without conditions, a plain grid.

    Args:
        folder: where they go.
        images: whose conditions are taken where nothing can be named.
        model: to read the labels and to estimate ``seconds`` with.
        quiet: no progress; None: as ``progress.set_quiet`` says.

    Raises:
        RecipeError: the encoder does not know one of ``sample.labels``.
    """

    def __init__(
        self,
        folder: Path,
        sample: SampleSection,
        images: ImageSet,
        model: ConditionalModel,
        quiet: bool | None = None,
    ) -> None:
        self._folder, self._sample, self._quiet = folder, sample, quiet
        encoder = model.encoder
        word = encoder.words[0] if encoder.words else "label"
        named = [(word, label) for label in sample.labels] or encoder.examples()
        self._words = named[: sample.count]
        self._seen: Mapping[str, Tensor] = {}
        if not self._words and (encoder.vector_size or encoder.map_channels):
            self._seen = images.batch(np.arange(min(_PICTURED_IMAGES, sample.count, len(images))))
        self._conditions(model)
        self.seconds = self._estimate(model)

    def _conditions(self, model: ConditionalModel) -> tuple[list[str], Condition]:
        """The label of each row and its condition."""
        if self._words:
            conditions = [model.encode(**{word: value}) for word, value in self._words]
            return [value for _, value in self._words], Condition.stack(conditions)
        if self._seen:
            batch = self._seen_on(model)
            with torch.no_grad():
                return [f"as image {i}" for i in range(len(batch["image"]))], model.condition(batch)
        return [], Condition()

    def _seen_on(self, model: ConditionalModel) -> dict[str, Tensor]:
        return {key: value.to(model.device) for key, value in self._seen.items()}

    def _known(self, model: ConditionalModel) -> dict[str, Tensor]:
        """The pixels that the conditions give away, for ``model.sample``."""
        mask = model.encoder.known(self._seen_on(model)) if self._seen else None
        return {} if mask is None else {"known": self._seen["image"], "mask": mask.cpu()}

    def _drawn(self, model: ConditionalModel, progress: Any = None) -> tuple[list[str], np.ndarray]:
        """Labels and images (rows, pictures of a row, C, H, W), uint8 0 .. 255."""
        labels, conditions = self._conditions(model)
        rows = max(1, len(labels))
        drawn = model.sample(
            conditions,
            max(1, self._sample.count // rows),
            self._sample.seed,
            temperature=self._sample.temperature,
            guidance=self._sample.guidance,
            tile=self._sample.tile,
            progress=progress,
            **self._known(model),
        )
        images = displayable(drawn, model.info.bit_depth)
        return labels, images.reshape(rows, -1, *images.shape[1:])

    def _estimate(self, model: ConditionalModel) -> float:
        """Draws for half a second and scales up: right for any sampler that takes as long for every pixel."""
        start: float | None = None  # after the first pixel, which is slower than any other
        seconds = 0.0

        def watch(done: int, total: int) -> None:
            nonlocal start, seconds
            now = time.monotonic()
            if start is None:
                start = now
            elif now - start > _PROBE_SECONDS or done == total:
                seconds = (now - start) * total / (done - 1)
                raise _Enough

        try:
            self._drawn(model, watch)
        except _Enough:
            pass
        return seconds

    def __call__(self, module: Any, step: int) -> dict[str, float]:
        start = time.monotonic()
        with Progress("drawing samples", None, "pixels", self._quiet) as bar:
            labels, images = self._drawn(module, lambda done, total: bar.fraction(done / total))
        if labels:
            rows: list[tuple[str, np.ndarray]] = list(zip(labels, images, strict=True))
            columns: tuple[str, ...] = ()
            if self._seen:
                view = module.encoder.view(self._seen_on(module))
                shown = ([] if view is None else [view]), [self._seen["image"]]
                given, originals = ([displayable(x, module.info.bit_depth)[:, None] for x in part] for part in shown)
                rows = list(zip(labels, np.concatenate([*given, images, *originals], axis=1), strict=True))
                columns = (*["given"] * len(given), *map(str, range(images.shape[1])), "image")
            picture = sheet(rows, title=f"samples after {step:,} steps", columns=columns)
        else:
            picture = grid(images[0])
        save_png(self._folder / f"step-{step:08d}.png", picture, force=True)
        self.seconds = time.monotonic() - start
        return {}


class _Enough(Exception):
    """The probe knows how long a pixel takes."""
