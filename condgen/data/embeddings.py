"""A frozen encoder sees every image of a data set once: what it makes of them lies in the user's cache folder.

``<cache>/embeddings/<key>/vector.npy`` and ``map.npy`` hold a row for each image; ``index.json`` beside them says what
they were made of and their SHA-256. The key covers the encoder (its code, version, options and weights) and the
images, so whatever could change a number makes another entry. An entry appears whole, by a rename; one that is damaged
is made anew.

Legend: N images of a split.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from condgen.condition import KEPT, Condition, Encoder
from condgen.data.dataset import Dataset
from condgen.data.entries import new_entry, one_process
from condgen.data.parts import digest
from condgen.errors import MachineError, ModelError, shown
from condgen.files import cache_folder, write_new
from condgen.progress import Progress

_FORMAT = 1
"""Raise it when the same encoder would be asked otherwise."""
_BATCH = 32
"""Images of one call of the encoder; always as many, so that no image's numbers depend on how many there are."""
_INDEX = "index.json"


def with_conditions(
    images: Dataset,
    encoder: Encoder,
    device: torch.device,
    *,
    between: Callable[[], None] = lambda: None,
    quiet: bool | None = None,
) -> Dataset:
    """``images`` with what ``encoder`` makes of each, where it is frozen; as they are where it learns.

    Args:
        device: where the encoder is.
        between: called between two batches; what it raises ends the work.
        quiet: no progress; None: as ``progress.set_quiet`` says.

    Raises:
        ModelError: the encoder breaks its contract, or yields NaN for an image.
        MachineError: no room or right to write the cache.
    """
    if not encoder.fixed or not (encoder.vector_size or encoder.map_channels):
        return images
    folder = cache_folder() / "embeddings" / _key(images, encoder)
    shapes = _shapes(images, encoder)
    found = _read(folder, shapes)
    if found is None:
        with one_process(folder):
            found = _read(folder, shapes)
            if found is None:
                _write(folder, shapes, images, encoder, device, between, quiet)
                found = _read(folder, shapes)
    if found is None:
        raise MachineError(f"{shown(folder)} was written but cannot be read back; check the disk.", file=folder)
    return replace(images, kept={KEPT[part]: rows for part, rows in found.items()})


def _key(images: Dataset, encoder: Encoder) -> str:
    kind, weights = type(encoder), hashlib.sha256()
    for name, tensor in encoder.state_dict().items():
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        weights.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    try:
        code = inspect.getsource(sys.modules[kind.__module__])
    except (OSError, TypeError, KeyError):  # made in an interpreter: its version has to do
        code = ""
    of_encoder = (kind.__module__, kind.__qualname__, code, kind.version, encoder.options, encoder.info)
    return digest(_FORMAT, images.stamp, *of_encoder, weights.hexdigest())[:32]


def _shapes(images: Dataset, encoder: Encoder) -> dict[str, tuple[int, ...]]:
    """The shape of the array of each part that ``encoder`` yields."""
    shapes: dict[str, tuple[int, ...]] = {
        "vector": (len(images), encoder.vector_size),
        "map": (len(images), encoder.map_channels, encoder.info.height, encoder.info.width),
    }
    return {part: shape for part, shape in shapes.items() if shape[1]}


def _read(folder: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray] | None:
    """The entry in ``folder``; None where there is none, or a damaged one."""
    found = {}
    try:
        digests = json.loads((folder / _INDEX).read_bytes())["sha256"]
        for part, shape in shapes.items():
            path = folder / f"{part}.npy"
            with open(path, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digests[part]:
                    return None
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
            if rows.shape != shape:
                return None
            found[part] = rows
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    return found


def _write(
    folder: Path,
    shapes: dict[str, tuple[int, ...]],
    images: Dataset,
    encoder: Encoder,
    device: torch.device,
    between: Callable[[], None],
    quiet: bool | None,
) -> None:
    """Encodes all images into a folder aside, which becomes ``folder``. In order, not through a memory map: a full disk
    is then an error, not the end of the process."""
    name = type(encoder).__name__
    size = sum(8 * int(np.prod(shape, dtype=object)) for shape in shapes.values())
    with new_entry(folder, size, f"The conditions that the encoder {name} makes") as aside:
        with ExitStack() as stack:
            bar = stack.enter_context(Progress(f"encoding the {images.split} split", len(images), "images", quiet))
            files: dict[str, _Rows] = {}
            for condition in _conditions(images, encoder, device):
                between()
                for part, shape in shapes.items():
                    rows = getattr(condition, part)
                    rows = (rows if rows.dtype == torch.float64 else rows.float()).cpu().numpy()
                    if part not in files:
                        path = aside / f"{part}.npy"
                        files[part] = stack.enter_context(_Rows(path, rows.dtype, shape))
                    files[part].add(rows)
                bar.advance(len(condition))
            digests = {part: file.finish() for part, file in files.items()}
        index = {"encoder": f"{type(encoder).__module__}:{type(encoder).__qualname__}", "images": images.fingerprint}
        write_new(aside / _INDEX, json.dumps({**index, "sha256": digests}, indent=1).encode())


def _conditions(images: Dataset, encoder: Encoder, device: torch.device) -> Iterator[Condition]:
    """The conditions of all images in order, in batches; every image has its own, not that of a pair."""
    images = replace(images, pairs=None, kept={})
    for start in range(0, len(images), _BATCH):
        indices = np.arange(start, start + _BATCH)
        given = {key: value.to(device) for key, value in images.batch(np.minimum(indices, len(images) - 1)).items()}
        condition: Condition = encoder(given)[: min(_BATCH, len(images) - start)]
        for part in condition.parts:
            bad = ~torch.isfinite(part).flatten(1).all(1)
            if bool(bad.any()):
                name, index = type(encoder).__name__, start + int(bad.nonzero()[0])
                raise ModelError(
                    f"The encoder {name} makes NaN or infinity of image {index} of the {images.split} split; mend the "
                    "encoder or leave the image out."
                )
        yield condition


class _Rows:
    """A ``.npy`` file that is written row by row, and its SHA-256."""

    def __init__(self, path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        self._file = open(path, "x+b")  # closed by __exit__
        descr = np.lib.format.dtype_to_descr(dtype)
        np.lib.format.write_array_header_1_0(self._file, {"descr": descr, "fortran_order": False, "shape": shape})

    def add(self, rows: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(rows).data)

    def finish(self) -> str:
        """All rows are there: they are brought to the disk and digested as they are read back."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.seek(0)
        return hashlib.file_digest(self._file, "sha256").hexdigest()

    def __enter__(self) -> _Rows:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
