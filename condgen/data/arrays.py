"""Images in NumPy arrays, ``.npz``: one file or a folder of them.

Two layouts. Plain: ``x`` (N, H, W, C), (N, C, H, W) or (N, H, W), with ``y`` (N,) counted from 0 and ``classes``
(names) where the set has them. Downsampled ImageNet (Chrabaszcz et al. 2017): ``data`` (N, 3*H*W), colour by colour,
with ``labels`` counted from 1, in ``train_data_batch_*.npz`` and ``val_data.npz``; the latter is the test split, as
whoever reports on that set uses it, and validation is drawn from the training images.

    data.source: npz    data.root: imagenet32
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from condgen.data.cache import Opener, PicturePart
from condgen.data.parts import (
    SPLITS,
    Source,
    Split,
    check_labels,
    common_classes,
    digest,
    grouped,
    name_bytes,
    numbered_classes,
)
from condgen.errors import InputError, shown
from condgen.npz import Npz
from condgen.recipe.schema import DataSection

_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class ImageFile:
    """One file, its headers and labels read, its images not."""

    path: Path
    images: str
    """The name of the array of images."""
    count: int
    arrange: Callable[[np.ndarray], np.ndarray]
    """(rows as stored) -> (n, H, W) or (n, H, W, C)."""
    imagenet: bool
    labels: np.ndarray | None
    """As stored."""
    classes: list[str] | None
    changed: int


def find_npz(section: DataSection) -> Source:
    """The arrays at ``section.root`` as a source.

    Raises:
        InputError: a file is missing, damaged, or does not hold images (and labels) as described above.
    """
    root = Path(section.root or "")
    folder, names = _files(root)
    files = {name: _opened(folder / name) for name in names}
    groups = grouped(names, shown(root))
    if "test" not in groups and "validation" in groups and all(files[name].imagenet for name in groups["validation"]):
        groups["test"] = groups.pop("validation")
    if len({file.labels is None for file in files.values()}) > 1:
        raise InputError(f"{shown(root)}: some files hold labels and some none; give all the same layout.")
    classes, labels = _labels(list(files.values()))
    of_file = dict(zip(files, labels, strict=True))
    parts: dict[Split, PicturePart] = {}
    for split in SPLITS:
        if split in groups:
            name = shown(root) if len(groups) == 1 else f"{shown(root)} ({split})"
            chosen = [of_file[file] for file in groups[split]]
            joined = np.concatenate([part for part in chosen if part is not None]) if classes else None
            parts[split] = _part(name, [files[file] for file in groups[split]], joined)
    return Source(shown(root), parts, classes)


def _files(root: Path) -> tuple[Path, list[str]]:
    if root.is_file():
        return root.parent, [root.name]
    try:
        names = sorted((n for n in os.listdir(root) if n.endswith(".npz") and n[0] != "."), key=name_bytes)
    except OSError as error:
        raise InputError(
            f"data.root: {shown(root)} cannot be opened ({error.strerror}); name an .npz file or a folder of them.",
            field="data.root",
        ) from error
    if not names:
        raise InputError(
            f"data.root: {shown(root)} holds no .npz files; name the folder of the arrays.", field="data.root"
        )
    return root, names


def _opened(path: Path) -> ImageFile:
    """Everything but the images themselves."""
    with Npz(path) as npz:
        found = [(x, y) for x, y in (("x", "y"), ("images", "labels"), ("data", "labels")) if x in npz.headers]
        if len(found) != 1:
            known = ", ".join(shown(name) for name in sorted(npz.headers)) or "nothing"
            raise InputError(
                f"{shown(path)} holds {known}; images are expected in one array called x (with labels in y) or data "
                "(with labels).",
                file=path,
                field="data.root",
            )
        x, y = found[0]
        shape = npz.headers[x].shape
        imagenet = x == "data" and len(shape) == 2
        arrange = _layout(npz, x)
        labels = npz.read(y) if y in npz.headers else None
        if labels is not None and len(labels.reshape(-1)) != shape[0]:
            raise npz.wrong(y, f"has {labels.size:,} labels for {shape[0]:,} images; give one for each")
        classes = _class_names(npz) if "classes" in npz.headers else None
        changed = os.stat(path).st_ctime_ns
    return ImageFile(path, x, shape[0], arrange, imagenet, labels, classes, changed)


def _layout(npz: Npz, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """How rows of the array become pictures.

    Raises:
        InputError: its shape is no images' shape, or could be two.
    """
    header = npz.headers[name]
    shape, kind = header.shape, header.dtype.kind
    if kind not in "uifb":
        raise npz.wrong(name, f"holds {header.dtype}; save images as uint8, 0 to 255")
    if len(shape) < 2 or math.prod(shape) == 0:
        raise npz.wrong(name, f"has the shape {shape}, which holds no images; give (N, H, W, C)")
    if len(shape) == 2:
        for channels in _CHANNELS:
            side = math.isqrt(shape[1] // channels)
            if channels * side * side == shape[1]:
                return partial(_flat, channels=channels, side=side)
        raise npz.wrong(name, f"has rows of {shape[1]} values, which make no square picture; give (N, H, W, C)")
    if len(shape) == 3:
        return _as_stored
    if len(shape) == 4:
        first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
        if first and last:
            raise npz.wrong(name, f"has the shape {shape}, which may be NHWC or NCHW; add or remove pixels to tell")
        if last:
            return _as_stored
        if first:
            return _channels_first
    raise npz.wrong(name, f"has the shape {shape}; give (N, H, W, C) with 1, 3 or 4 channels")


def _as_stored(rows: np.ndarray) -> np.ndarray:
    return rows


def _channels_first(rows: np.ndarray) -> np.ndarray:
    return rows.transpose(0, 2, 3, 1)  # (n, C, H, W) -> (n, H, W, C)


def _flat(rows: np.ndarray, channels: int, side: int) -> np.ndarray:
    return rows.reshape(-1, channels, side, side).transpose(0, 2, 3, 1)  # (n, C*H*W) -> (n, H, W, C)


def _class_names(npz: Npz) -> list[str]:
    if npz.headers["classes"].dtype.kind not in "US" or len(npz.headers["classes"].shape) != 1:
        raise npz.wrong("classes", "holds no list of names; save np.array([...names...])")
    names = npz.read("classes").astype(str).tolist()
    if len(set(names)) != len(names):
        raise npz.wrong("classes", "repeats a name; give every class its own")
    return names


def _labels(files: list[ImageFile]) -> tuple[tuple[str, ...], list[np.ndarray | None]]:
    """Class names, and each file's labels as indices into them."""
    checked = [
        None
        if file.labels is None
        else check_labels(
            file.labels,
            None if file.classes is None else len(file.classes),
            1 if file.imagenet else 0,
            shown(file.path),
        )
        for file in files
    ]
    known = [labels for labels in checked if labels is not None]
    tables = [file.classes for file in files if file.classes is not None]
    if not known:
        return (), checked
    if not tables:
        return numbered_classes(known), checked
    if len(tables) != len(files):
        bare = next(file for file in files if file.classes is None)
        raise InputError(
            f"{shown(bare.path)} has no classes, but other files have; add them or remove them all.", file=bare.path
        )
    classes, places = common_classes(tables)
    return classes, [place[labels] for place, labels in zip(places, known, strict=True)]


def _part(name: str, files: list[ImageFile], labels: np.ndarray | None) -> PicturePart:
    def open_all() -> Iterator[tuple[str, Opener]]:
        for file in files:
            for row, picture in enumerate(_pictures(file)):
                yield f"{file.path.name}[{row}]", partial(picture_of, picture)

    fingerprint = digest(
        *(value for file in files for value in (file.path.name, file.path.stat().st_size, file.count)),
        "" if labels is None else labels,
    )
    times = np.array([file.changed for file in files], np.int64)
    return PicturePart(
        name, sum(file.count for file in files), open_all, fingerprint, digest(fingerprint, times), labels
    )


def picture_of(picture: np.ndarray) -> Image.Image:
    """(H, W) or (H, W, C) uint8 as a picture."""
    single = picture.ndim == 3 and picture.shape[2] == 1
    return Image.fromarray(np.ascontiguousarray(picture[..., 0] if single else picture))


def _pictures(file: ImageFile) -> Iterator[np.ndarray]:
    """Each image as uint8 (H, W) or (H, W, C).

    Raises:
        InputError: a value is none of 0 .. 255; the sentence names the first bad row.
    """
    with Npz(file.path) as npz:
        kind = npz.headers[file.images].dtype.kind
        first, largest = 0, 0.0
        for block in npz.blocks(file.images):
            if block.dtype != np.uint8:
                _check_values(npz, file.images, block, first)
                largest = max(largest, float(block.max()))
                block = block.astype(np.uint8) * (255 if kind == "b" else 1)
            first += len(block)
            yield from file.arrange(block)
        if kind == "f" and largest <= 1:
            raise npz.wrong(
                file.images,
                "holds numbers from 0 to 1 only; multiply by 255 and save as uint8, or save 0s and 1s as bool",
            )


def _check_values(npz: Npz, name: str, block: np.ndarray, first: int) -> None:
    flat = block.reshape(len(block), -1)
    good = (flat >= 0) & (flat <= 255)  # NaN is in neither
    if block.dtype.kind == "f":
        good &= flat == np.floor(flat)
    bad = np.argwhere(~good)
    if len(bad):
        row, place = bad[0]
        raise npz.wrong(
            name, f"holds {flat[row, place]} in row {first + row}; save images as uint8, whole numbers from 0 to 255"
        )
