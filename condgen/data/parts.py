"""What a source of images consists of, and how what lies on disk becomes splits.

A ``Source`` has one ``Part`` for each split that it has by itself, or a single part ``train`` from which the missing
splits are drawn. A part knows its labels at once and its pixels on demand.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np

from condgen.data.framing import Framing
from condgen.errors import InputError, shown
from condgen.recipe.schema import DataSection
from condgen.streams import permutation

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
MAX_CLASSES = 100_000
_WORDS: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}
_WORD = re.compile(r"(?:^|[-_. ])(train|training|validation|valid|val|test|testing)(?=[-_. \d]|$)", re.IGNORECASE)


class Rows(Protocol):
    """One entry for each image of a part, perhaps made only when it is asked for; an array is one."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """The entries at ``rows`` (int64 (B,)), a fresh array (B, ...)."""


@dataclass(frozen=True)
class Skipped:
    """A picture that cannot be used: its place in the part, its name, and why."""

    row: int
    name: str
    reason: str


class Loaded(NamedTuple):
    """The pictures of a part at the size that was asked for."""

    pixels: Rows
    """uint8 (n, C, H, W), 8 bits deep."""
    skipped: list[Skipped]
    """What could not be used: these rows of ``pixels`` mean nothing."""
    resized: int
    """How many had another size."""


class Part(Protocol):
    """Images that belong together on disk: one split, or a whole set without splits."""

    @property
    def labels(self) -> np.ndarray | None:
        """int64 (n,)."""

    @property
    def attributes(self) -> Rows | None:
        """int8 (n, A) of 0 and 1."""

    @property
    def fingerprint(self) -> str:
        """A digest of names and sizes, or of whatever else decides the images. Not of where they lie or of times."""

    @property
    def stamp(self) -> str:
        """The fingerprint with times of change, where files have them."""

    def __len__(self) -> int: ...

    def load(self, framing: Framing, max_skipped: float) -> Loaded:
        """All pictures, decoded.

        Raises:
            InputError: a larger share than ``max_skipped`` cannot be used.
            MachineError: no room for the cache.
        """


@dataclass(frozen=True)
class Source:
    """A data set as it lies there; ``name`` is what people call it in a sentence, e.g. its folder."""

    name: str
    parts: Mapping[Split, Part]
    classes: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()


def split_of(name: str) -> Split | None:
    """The split that a file's or folder's name speaks of, e.g. ``set-train-003.tar``, ``val_data.npz``."""
    found = _WORD.search(name)
    return _WORDS[found[1].lower()] if found else None


def split_folder(name: str) -> Split | None:
    """The split whose folder has this very name."""
    return _WORDS.get(name) if name in ("train", "validation", "valid", "val", "test") else None


def grouped(names: Iterable[str], where: str) -> dict[Split, list[str]]:
    """File names by the split they speak of; all under ``train`` where none does.

    Raises:
        InputError: some names speak of a split and some do not.
    """
    groups: dict[Split | None, list[str]] = {}
    for name in names:
        groups.setdefault(split_of(name), []).append(name)
    silent = groups.pop(None, [])
    spoken = {split: groups[split] for split in SPLITS if split in groups}
    if silent and spoken:
        raise InputError(
            f"{where}: {shown(silent[0])} names no split, but others do (train, validation, test); rename it or move "
            "it away.",
            field="data.root",
        )
    return spoken or {"train": silent}


def rows_of(source: Source, split: Split, section: DataSection) -> tuple[Split, np.ndarray]:
    """Which part holds ``split``, and its rows there (int64, ascending).

    Rows are drawn before anything is skipped, so that one unreadable picture moves no other from split to split. See
    ``data.split_by`` for what is drawn.

    Raises:
        InputError: the split is neither there nor can be drawn.
    """
    if split in source.parts and split != "train":
        return split, np.arange(len(source.parts[split]), dtype=np.int64)
    if "train" not in source.parts:
        raise InputError(
            f"{source.name} has no training images{'' if split == 'train' else f' to draw a {split} split from'}; "
            "give a set that has them.",
            field="data.root",
        )
    part = source.parts["train"]
    units = np.arange(len(part))  # an image, or where people are drawn whole, who is in it
    if section.split_by == "identity":
        units = _labels(source, part)
    order = permutation(int(units.max(initial=-1)) + 1, section.split_seed, "data", "split")
    groups = [order]
    if section.split_by == "class":
        labels = _labels(source, part)[order]
        groups = [order[labels == c] for c in np.unique(labels)]
    chosen = np.concatenate([_chosen(group, source, split, section) for group in groups])
    if not len(chosen):
        way_out = "lower data.test, which takes all images" if split == "train" else f"set data.{split} above 0"
        raise InputError(f"{source.name} has no {split} split; {way_out}.", field=f"data.{split}")
    return "train", np.flatnonzero(np.isin(units, chosen))


def _chosen(order: np.ndarray, source: Source, split: Split, section: DataSection) -> np.ndarray:
    """Those of ``order`` that belong to ``split``: from both ends, so that the share of one does not move the other.

    Raises:
        InputError: none would be left for training.
    """
    count = len(order)
    test = 0 if "test" in source.parts else _share(count, section.test)
    validation = 0 if "validation" in source.parts else _share(count, section.validation)
    everything = section.test == 1 and not validation  # of a set that is only measured, none is for training
    if test + validation >= count and not everything:
        what = {None: "images", "class": "images of one class", "identity": "people"}[section.split_by]
        raise InputError(
            f"{source.name} has {count} training {what}, of which {test + validation} would be kept for validation "
            "and test; give more images or lower data.validation and data.test.",
            field="data.validation",
        )
    return {
        "test": order[:test],
        "validation": order[count - validation :],
        "train": order[test : count - validation],
    }[split]


def _labels(source: Source, part: Part) -> np.ndarray:
    """The labels of ``part``, counted from 0 without gaps, int64 (n,).

    Raises:
        InputError: the part has none.
    """
    if part.labels is None:
        raise InputError(
            f"data.split_by: {source.name} does not say what or who is in its images; give a folder for each, or leave "
            "data.split_by out.",
            field="data.split_by",
        )
    return np.unique(part.labels, return_inverse=True)[1].astype(np.int64)


def _share(count: int, fraction: float) -> int:
    return max(1, round(count * fraction)) if fraction else 0


def common_classes(tables: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """One list of class names for several (one for each file or split), and what each table's indices become.

    The same table everywhere is kept in its order. Others (sets of people, who differ from split to split) are
    joined and sorted by bytes.
    """
    if all(list(table) == list(tables[0]) for table in tables):
        classes = tuple(tables[0])
    else:
        classes = tuple(sorted({name for table in tables for name in table}, key=name_bytes))
    places = {name: place for place, name in enumerate(classes)}
    return classes, [np.array([places[name] for name in table], dtype=np.int64) for table in tables]


def numbered_classes(labels: Iterable[np.ndarray]) -> tuple[str, ...]:
    """Names ``0`` to the largest label, for a set that names none."""
    return tuple(str(index) for index in range(1 + max((int(part.max()) for part in labels if len(part)), default=-1)))


def check_labels(labels: np.ndarray, classes: int | None, lowest: int, place: str) -> np.ndarray:
    """``labels`` as int64 (n,) counted from 0.

    Args:
        classes: how many there are; None: not known.
        lowest: the label of the first class, 0 or 1.
        place: what the rows are rows of, for the sentence.

    Raises:
        InputError: a label is no whole number or out of range; the sentence names the first bad row.
    """
    labels = labels.reshape(len(labels), -1)[:, 0] if labels.size == len(labels) else labels
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(
            f"{place}: labels must be whole numbers, one for each image, not {labels.dtype} {labels.shape} (row 0 "
            f"holds {shown(labels[:1].tolist())}); save class indices.",
            field="data.root",
        )
    highest = lowest + (MAX_CLASSES if classes is None else classes) - 1
    bad = np.flatnonzero((labels < lowest) | (labels > highest))
    if len(bad):
        known = f"{lowest}..{highest}"
        raise InputError(
            f"{place}: row {bad[0]} has the label {labels[bad[0]]}, which is not in {known}; mend the label or the "
            "list of classes.",
            field="data.root",
        )
    return labels.astype(np.int64) - lowest


def name_bytes(name: str) -> bytes:
    """The order of names everywhere: by their bytes on disk."""
    return name.encode("utf-8", "surrogateescape")


def digest(*pieces: object) -> str:
    """SHA-256 over pieces in order; arrays count with their bytes, everything else as text."""
    total = hashlib.sha256()
    for piece in pieces:
        data = np.ascontiguousarray(piece).tobytes() if isinstance(piece, np.ndarray) else name_bytes(str(piece))
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()
