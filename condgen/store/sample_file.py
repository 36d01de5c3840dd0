"""Sampled images in one ``.npz``, made in a folder ``FILE.npz.partial`` until all are there."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from condgen.errors import RecipeError, shown
from condgen.files import aside_of, unwritable
from condgen.npz import Rows, write_npz
from condgen.store.samples import SampleJob, append

_PIXELS = "pixels.raw"


class SampleFile(SampleJob):
    """An ``.npz``: x uint8 (N, H, W, C) 0 .. 255, log_prob float64 (N,), seed, k; of named conditions y and classes.

    Raises:
        RecipeError: also if ``path`` exists and ``force`` is off.
    """

    def __init__(self, path: Path, job: dict[str, Any], *, force: bool = False) -> None:
        self._path, self._force = path, force
        self._size = math.prod(job["shape"])
        partial = path.with_name(path.name + ".partial")
        if not partial.is_dir():
            self._check_free()
        super().__init__(partial, job, force=force)
        if self.done < self.total:  # else a process died between putting the file in place and clearing up
            try:
                self._check_free()
            except RecipeError:
                self.close()
                raise

    def _check_free(self) -> None:
        if os.path.lexists(self._path) and not self._force:
            raise RecipeError(f"{shown(self._path)} exists; choose another name or add --force.", file=self._path)

    def _put(self, first: int, images: np.ndarray) -> None:
        path = self.folder / _PIXELS
        if path.exists():
            os.truncate(path, first * self._size)
        append(path, np.ascontiguousarray(np.moveaxis(images, 1, -1)).tobytes())

    def _there(self, count: int) -> int:
        path = self.folder / _PIXELS
        return min(count, path.stat().st_size // self._size) if path.exists() else 0

    def _delete(self, job: dict[str, Any]) -> None:
        (self.folder / _PIXELS).unlink(missing_ok=True)

    def finish(self) -> None:
        """Makes the file, and deletes what it was made of."""
        labels, count = self.job["labels"], self.job["count"]
        C, H, W = self.job["shape"]
        arrays: dict[str, np.ndarray | Rows] = {
            "x": Rows(np.dtype(np.uint8), (self.total, H, W, C), _blocks(self.folder / _PIXELS)),
            "log_prob": np.array(self.log_probs, np.float64),
            "seed": np.full(self.total, self.job["seed"], np.int64),
            "k": np.tile(np.arange(count, dtype=np.int64), len(labels)),
        }
        if labels != [""]:
            classes = list(dict.fromkeys(labels))
            arrays["y"] = np.array([classes.index(name) for name in labels], np.int64).repeat(count)
            arrays["classes"] = np.array(classes)
        write_npz(self._path, arrays)
        try:
            # under a name of no meaning first: what is half deleted is taken for nobody's job
            aside = aside_of(self.folder)
            os.replace(self.folder, aside)
            shutil.rmtree(aside)
        except OSError as error:
            raise unwritable(self.folder, error) from error


def _blocks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(1 << 24):
            yield block
