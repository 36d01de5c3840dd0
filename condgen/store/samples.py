"""Sampled images on disk: written as they are drawn, and gone on with where an earlier process stopped.

    FOLDER/job.json        what is drawn, sealed
    FOLDER/00007.png       several conditions: FOLDER/CONDITION/00007.png
    FOLDER/samples.jsonl   a line for each image that is there, tile by tile

An ``.npz`` is made in a folder ``FILE.npz.partial`` of the same kind, with all pixels in ``pixels.raw``.
"""

from __future__ import annotations

import json
import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from condgen.errors import RecipeError, shown
from condgen.files import ASIDE, read_regular, unwritable, write_whole
from condgen.store.jobs import DIGESTS
from condgen.store.lock import Lock
from condgen.store.sealed import read_sealed, seal

JOB = "job.json"
LOG = "samples.jsonl"
_LOCK = ".lock"
_LOG_LIMIT = 1 << 32
_LONGEST_SHOWN = 60


class SampleJob(ABC):
    """Opens (or makes) ``folder`` for ``job`` and holds its lock until ``close``; images ``done`` and up are wanted.

    Args:
        folder: holds this job, half done or finished, or nothing, or does not exist.
        job: of ``store.jobs.job_of``.
        force: another job, or this one finished, is deleted and begun anew.

    Raises:
        RecipeError: the folder holds something else, or another job and ``force`` is off; the sentence says in what
            it differs.
        ModelError: its ``job.json`` is damaged.
        MachineError: another process draws into it, or the disk refuses.
    """

    def __init__(self, folder: Path, job: dict[str, Any], *, force: bool) -> None:
        self.folder, self.job = folder, job
        self.total = len(job["labels"]) * job["count"]
        self.log_probs: list[float] = []
        """Of the images that are there, in nats."""
        try:
            folder.mkdir(exist_ok=True)
            self._lock = Lock(folder / _LOCK)
        except (OSError, ValueError) as error:
            raise unwritable(folder, error) from error
        try:
            self._claim(force)
            self._resume()
        except OSError as error:
            self.close()
            raise unwritable(folder, error) from error
        except BaseException:
            self.close()
            raise

    @property
    def done(self) -> int:
        """Images that are there, in order; whole tiles, or all."""
        return len(self.log_probs)

    def add(self, images: np.ndarray, log_probs: Iterable[float]) -> None:
        """The next images (n, C, H, W), uint8 0 .. 255. They count as soon as this returns.

        Raises:
            MachineError: the disk is full or refuses.
        """
        values = [float(value) for value in log_probs]
        try:
            self._put(self.done, images)
            lines = b"".join(self._line(self.done + i, value) for i, value in enumerate(values))
            append(self.folder / LOG, lines)
        except OSError as error:
            raise unwritable(self.folder, error) from error
        self.log_probs += values

    @abstractmethod
    def finish(self) -> None:
        """All images are there: the result gets its final form."""

    @abstractmethod
    def _put(self, first: int, images: np.ndarray) -> None:
        """Brings images number ``first`` and up to the disk; those that are there already may be replaced."""

    @abstractmethod
    def _there(self, count: int) -> int:
        """How many of the first ``count`` images are there, up to the first that is not."""

    @abstractmethod
    def _delete(self, job: dict[str, Any]) -> None:
        """Deletes the images of ``job``."""

    def _name(self, i: int) -> str | None:
        """The file of image ``i``."""
        return None

    def _line(self, i: int, log_prob: float) -> bytes:
        row, k = divmod(i, self.job["count"])
        entry: dict[str, Any] = {} if self._name(i) is None else {"file": self._name(i)}
        entry |= {"label": self.job["labels"][row], "seed": self.job["seed"], "k": k, "log_prob": log_prob}
        entry["bits_per_dim"] = -log_prob / math.log(2) / math.prod(self.job["shape"])
        return json.dumps(entry).encode() + b"\n"

    def _claim(self, force: bool) -> None:
        path = self.folder / JOB
        mine = _job_in(self.folder)
        if mine is None:
            if any(name != _LOCK and not ASIDE.fullmatch(name) for name in os.listdir(self.folder)):
                raise RecipeError(
                    f"{shown(self.folder)} holds other files than samples; choose a new or an empty folder.",
                    file=self.folder,
                )
        else:
            different = next((name for name in self.job if mine.get(name) != self.job[name]), None)
            if different is None and not (force and self._recorded() == self.total):
                return
            if different is not None and not force:
                raise RecipeError(
                    f"{shown(self.folder)} holds other samples ({_difference(different, mine, self.job)}); choose "
                    "another name, or add --force to draw anew.",
                    file=self.folder,
                    field=different,
                )
            (self.folder / LOG).unlink(missing_ok=True)
            self._delete(mine)
        write_whole(path, seal(self.job), force=True)

    def _resume(self) -> None:
        """Finds what is there, and cuts off what is not a whole tile or was being written when a process died."""
        for folder in [self.folder, *(path for path in self.folder.iterdir() if path.is_dir())]:
            for path in folder.iterdir():
                if ASIDE.fullmatch(path.name):
                    path.unlink()
        count = self._recorded()
        self.log_probs = self.log_probs[: count if count == self.total else count - count % self.job["tile"]]
        if (self.folder / LOG).exists():
            os.truncate(self.folder / LOG, sum(len(self._line(i, v)) for i, v in enumerate(self.log_probs)))

    def _recorded(self) -> int:
        """Images that are there and whose lines are whole; reads ``log_probs``."""
        path = self.folder / LOG
        self.log_probs = []
        if path.exists():
            for line in read_regular(path, _LOG_LIMIT, follow_links=False).splitlines(keepends=True)[: self.total]:
                try:
                    value = json.loads(line)["log_prob"]
                    if not isinstance(value, float) or line != self._line(self.done, value):
                        break
                except (ValueError, KeyError, TypeError, RecursionError):
                    break
                self.log_probs.append(value)
        return self._there(self.done)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the lock back."""
        (self.folder / _LOCK).unlink(missing_ok=True)
        self._lock.close()


class SampleFolder(SampleJob):
    """A picture file for each image.

    Args:
        encode: (C, H, W) uint8 0 .. 255 -> the bytes of a PNG.
    """

    def __init__(
        self, folder: Path, job: dict[str, Any], encode: Callable[[np.ndarray], bytes], *, force: bool = False
    ) -> None:
        self._encode = encode
        self._folders = _folders(job["labels"])
        super().__init__(folder, job, force=force)

    @staticmethod
    def is_of(folder: Path, job: dict[str, Any]) -> bool:
        """Whether ``folder`` is this very job."""
        return _job_in(folder) == job

    def _name(self, i: int) -> str:
        return _name(self._folders, self.job["count"], i)

    def _put(self, first: int, images: np.ndarray) -> None:
        for i, image in enumerate(images, first):
            path = self.folder / self._name(i)
            path.parent.mkdir(exist_ok=True)
            write_whole(path, self._encode(image), force=True)

    def _there(self, count: int) -> int:
        return next((i for i in range(count) if not (self.folder / self._name(i)).is_file()), count)

    def _delete(self, job: dict[str, Any]) -> None:
        folders = _folders(job["labels"])
        for i in range(len(folders) * job["count"]):
            (self.folder / _name(folders, job["count"], i)).unlink(missing_ok=True)
        for name in filter(None, folders):
            if (self.folder / name).is_dir() and not os.listdir(self.folder / name):
                (self.folder / name).rmdir()

    def finish(self) -> None:
        """Nothing is left to do: every file is where it belongs."""


def _job_in(folder: Path) -> dict[str, Any] | None:
    path = folder / JOB
    return read_sealed(path) if os.path.lexists(path) else None


def _difference(name: str, found: dict[str, Any], wanted: dict[str, Any]) -> str:
    values = [json.dumps(job.get(name)) for job in (found, wanted)]
    if name in DIGESTS or max(map(len, values)) > _LONGEST_SHOWN:
        return f"{name} differs"
    return f"{name}: {values[0]}, not {values[1]}"


def _folders(labels: Sequence[str]) -> list[str]:
    """A folder for each condition, named like it; none for a single one."""
    if len(labels) == 1:
        return [""]
    names: list[str] = []
    for label in labels:
        plain = re.sub(r"[^\w ,.+=-]", "_", label).strip(" .")[:60] or "_"
        name, k = plain, 1
        while name.lower() in (other.lower() for other in names):
            k += 1
            name = f"{plain}-{k}"
        names.append(name)
    return names


def _name(folders: Sequence[str], count: int, i: int) -> str:
    row, k = divmod(i, count)
    return f"{folders[row]}/{k:05d}.png" if folders[row] else f"{k:05d}.png"


def append(path: Path, data: bytes) -> None:
    """Adds ``data`` to a file, on the disk before it returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
