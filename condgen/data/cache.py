"""Pictures are decoded once: a part's pixels lie in the user's cache folder and are memory-mapped from there.

``<cache>/images/<key>/pixels.npy`` holds every picture of the part in its order, 8 bits deep, zeros where one was
skipped; ``index.json`` beside it says which and why. The key covers names, sizes and times of change of the files and
the settings that shape pixels, so whatever could change a pixel makes another entry. An entry appears whole, by a
rename.

Legend: n pictures of the part, C x H x W each.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from condgen.data.entries import new_entry, one_process
from condgen.data.framing import Framing, framed
from condgen.data.images import pillow_quiet
from condgen.data.limits import NO_FACE
from condgen.data.parts import Loaded, Skipped, digest
from condgen.errors import InputError, MachineError, shown
from condgen.files import cache_folder, write_new
from condgen.progress import Progress, warn

_FORMAT = 1
"""Raise it when the same file would be decoded to other pixels."""
_CHUNK = 32
"""Pictures of one task of the thread pool."""
_PIXELS, _INDEX = "pixels.npy", "index.json"

Opener = Callable[[], Image.Image]
"""Gives the picture in mode L, RGB or RGBA, or raises ``InputError`` with the reason why not."""


@dataclass(frozen=True)
class PicturePart:
    """A part whose pictures are opened one by one, in order, whatever they lie in."""

    name: str
    """What it is called in a sentence, e.g. its folder."""
    count: int
    open_all: Callable[[], Iterator[tuple[str, Opener]]]
    """(name, opener) of every picture. The iterator runs in one thread, the openers in several."""
    fingerprint: str
    stamp: str
    """The fingerprint with times of change: what the cache is keyed by."""
    labels: np.ndarray | None = None
    attributes: np.ndarray | None = None
    work: str = "decoding"
    """What is done to the pictures, before ``name`` in the progress bar."""

    def __len__(self) -> int:
        return self.count

    def load(self, framing: Framing, max_skipped: float) -> Loaded:
        """See ``Part``."""
        key = digest(_FORMAT, self.stamp, framing)[:32]
        shape = (self.count, *framing.shape)
        folder = cache_folder() / "images" / key
        found = _read(folder, shape)
        if found is None:
            with one_process(folder):
                found = _read(folder, shape)
                if found is None:
                    _write(folder, self, framing)
                    found = _read(folder, shape)
        if found is None:
            raise MachineError(f"{shown(folder)} was written but cannot be read back; check the disk.", file=folder)
        self._check_skipped(found.skipped, max_skipped, folder)
        return found

    def _check_skipped(self, skipped: list[Skipped], max_skipped: float, folder: Path) -> None:
        if self.count and all(entry.reason == NO_FACE for entry in skipped) and len(skipped) == self.count:
            raise InputError(
                f"{self.name}: no face was found in any of its {self.count} images; set data.aligned to true if they "
                "are cropped to faces already, or give photographs of people.",
                file=self.name,
                field="data.aligned",
            )
        skipped = [entry for entry in skipped if entry.reason != NO_FACE]
        if len(skipped) > max_skipped * self.count:
            raise InputError(
                f"{self.name}: {len(skipped)} of {self.count} images cannot be used, more than data.max_skipped "
                f"({max_skipped:.3g}) allows; the first is {_first(skipped)}; all are listed in "
                f"{shown(folder / _INDEX)}.",
                file=self.name,
                field="data.max_skipped",
            )


def pooled(parts: Sequence[PicturePart], name: str) -> PicturePart:
    """One part of several, one after another."""

    def open_all() -> Iterator[tuple[str, Opener]]:
        for part in parts:
            yield from part.open_all()

    def joined(arrays: list[np.ndarray | None]) -> np.ndarray | None:
        present = [array for array in arrays if array is not None]
        return np.concatenate(present) if len(present) == len(parts) else None

    return PicturePart(
        name,
        sum(part.count for part in parts),
        open_all,
        digest(*(part.fingerprint for part in parts)),
        digest(*(part.stamp for part in parts)),
        joined([part.labels for part in parts]),
        joined([part.attributes for part in parts]),
    )


def _first(skipped: list[Skipped]) -> str:
    return f"{shown(skipped[0].name)}: {shown(skipped[0].reason).rstrip('.')}"


def _read(folder: Path, shape: tuple[int, ...]) -> Loaded | None:
    """The entry in ``folder``; None where there is none, or a damaged one."""
    try:
        index = json.loads((folder / _INDEX).read_bytes())
        pixels = np.load(folder / _PIXELS, mmap_mode="r", allow_pickle=False)
        skipped = [Skipped(int(row), str(name), str(reason)) for row, name, reason in index["skipped"]]
        resized = int(index["resized"])
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    return Loaded(pixels, skipped, resized) if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _write(folder: Path, part: PicturePart, framing: Framing) -> None:
    """Decodes the whole part into a folder aside, which becomes ``folder``."""
    size = int(np.prod((part.count, *framing.shape), dtype=object))
    with new_entry(folder, size, f"The decoded images of {part.name}") as aside:
        skipped, resized = _write_pixels(aside / _PIXELS, part, framing)
        rows = [(entry.row, entry.name, entry.reason) for entry in skipped]
        index = {"images": part.name, "resized": resized, "skipped": rows}
        write_new(aside / _INDEX, json.dumps(index, indent=1).encode())
    if skipped:
        warn(
            f"{len(skipped)} of {part.count} images of {part.name} are skipped, first {shown(skipped[0].name)}: "
            f"{shown(skipped[0].reason)}; all are listed in {shown(folder / 'index.json')}"
        )


def _write_pixels(path: Path, part: PicturePart, framing: Framing) -> tuple[list[Skipped], int]:
    """Returns what was skipped and how many were resized.

    Written in order, not through a memory map: a full disk is then an error, not the end of the process.
    """
    skipped: list[Skipped] = []
    row = resized = 0
    header = {"descr": "|u1", "fortran_order": False, "shape": (part.count, *framing.shape)}
    with (
        open(path, "xb") as file,
        Progress(f"{part.work} {part.name}", part.count, "images") as progress,
        pillow_quiet(),
        closing(_decoded(part, framing)) as chunks,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        for pixels, bad, changed in chunks:
            file.write(pixels.data)
            skipped += [Skipped(row + place, name, reason) for place, name, reason in bad]
            row += len(pixels)
            resized += changed
            progress.advance(len(pixels))
        if row != part.count:
            raise InputError(
                f"{part.name} held {part.count} images when it was listed and {row} when it was read; start again when "
                "nothing changes it.",
                file=part.name,
            )
        file.flush()
        os.fsync(file.fileno())
    return skipped, resized


Chunk = tuple[np.ndarray, list[tuple[int, str, str]], int]
"""Pixels (k, C, H, W); (place, name, reason) of those that could not be used; how many were resized."""


def _decoded(part: PicturePart, framing: Framing) -> Generator[Chunk, None, None]:
    """Chunks in order, decoded by a few threads that run a little ahead."""
    workers = min(8, os.cpu_count() or 1)
    pictures = part.open_all()
    waiting: deque[Future[Chunk]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            while chunk := list(islice(pictures, _CHUNK)):
                waiting.append(pool.submit(_decode_chunk, chunk, framing))
                if len(waiting) > 3 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _decode_chunk(pictures: list[tuple[str, Opener]], framing: Framing) -> Chunk:
    pixels = np.zeros((len(pictures), *framing.shape), np.uint8)
    bad, resized = [], 0
    for place, (name, opener) in enumerate(pictures):
        try:
            pixels[place], changed = framed(opener(), framing)
            resized += changed
        except InputError as reason:
            bad.append((place, name, reason.message))
    return pixels, bad, resized
