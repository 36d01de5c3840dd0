"""The one door to every data set: ``open_data``; and what can be said of one before it is opened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from condgen.condition import DataInfo
from condgen.data.arrays import find_npz
from condgen.data.cache import PicturePart, pooled
from condgen.data.columns import check_rows, read_columns
from condgen.data.dataset import Dataset
from condgen.data.folder import find_folder
from condgen.data.framing import Framing
from condgen.data.pairs import Pairs
from condgen.data.parts import SPLITS, Part, Source, Split, digest, rows_of
from condgen.data.photographs import with_faces
from condgen.data.portrait_set import find_portraits
from condgen.data.portraits import ATTRIBUTES
from condgen.data.shards import find_shards
from condgen.data.torchvision_sets import ATTRIBUTES as TORCHVISION_ATTRIBUTES
from condgen.data.torchvision_sets import CLASSES as TORCHVISION_CLASSES
from condgen.data.torchvision_sets import Absent, find_torchvision
from condgen.errors import InputError, RecipeError
from condgen.recipe.schema import DataSection

_ON_DISK = {"folder": find_folder, "shards": find_shards, "npz": find_npz}


def open_data(section: DataSection, split: Split) -> Dataset:
    """A split of the data set that ``section`` describes, ready for batches.

    The first opening decodes every picture once into the user's cache folder, with progress, and downloads a
    torchvision set where ``data.download`` says so.

    Raises:
        InputError: the set is missing, damaged or empty, holds too many unusable pictures, has no such split and none
            can be drawn, or its labels or columns do not fit.
        MachineError: no room or right to write the cache; an optional package is missing.
    """
    source = _find(section, download=section.download)
    home, rows = rows_of(source, split, section)
    framing = Framing(section.channels, section.height, section.width, section.fit, section.background)
    part = source.parts[home] if section.aligned else _aligned(source.parts[home], framing, section)
    columns = _columns(section, source)
    first = sum(len(source.parts[s]) for s in SPLITS[: SPLITS.index(home)] if s in source.parts)
    columns = {name: values[first : first + len(part)] for name, values in columns.items()}
    pixels, skipped, resized = part.load(framing, section.max_skipped)
    bad = np.array([entry.row for entry in skipped], np.int64)
    skipped = [entry for entry, here in zip(skipped, np.isin(bad, rows), strict=True) if here]
    rows = rows[~np.isin(rows, bad)]
    fingerprint = digest(
        part.fingerprint,
        framing,
        section.bit_depth,
        split,
        rows,
        *(piece for pair in columns.items() for piece in pair),
    )
    images = Dataset(
        info=_info(section, source, {name: values.shape[1] for name, values in columns.items()}),
        split=split,
        fingerprint=fingerprint,
        skipped=[(entry.name, entry.reason) for entry in skipped],
        rows=rows,
        pixels=pixels,
        labels=part.labels,
        attributes=part.attributes,
        columns=columns,
        resized=resized,
        stamp=digest(fingerprint, part.stamp),
    )
    return replace(images, pairs=Pairs(images.identities)) if section.pairs == "identity" else images


def data_info(section: DataSection) -> DataInfo | None:
    """What a model needs to know of the set; no image is decoded and nothing downloaded.

    Returns:
        None where the set is not there and nobody said it should be: it would be downloaded, or ``data.root`` names
        no folder yet.

    Raises:
        InputError: a named ``data.root`` is missing or empty, or the set there is damaged.
    """
    try:
        source = _find(section, download=False)
    except Absent:
        return None
    columns = _columns(section, source)
    return _info(section, source, {name: values.shape[1] for name, values in columns.items()})


def data_sizes(section: DataSection) -> dict[str, int] | None:
    """Images of every split (unusable ones included: nothing is decoded); None as in ``data_info``.

    Raises:
        InputError: as ``data_info``.
    """
    try:
        source = _find(section, download=False)
    except Absent:
        return None
    sizes: dict[str, int] = {}
    for split in SPLITS:
        try:
            sizes[split] = len(rows_of(source, split, section)[1])
        except InputError:
            sizes[split] = 0
    return sizes


def declared_info(section: DataSection) -> DataInfo:
    """What the section alone says of a set that need not be there: shape, and names that are the set's own.

    Raises:
        InputError: the file of ``data.columns`` is missing or damaged.
    """
    attributes = {"portraits": tuple(ATTRIBUTES), **TORCHVISION_ATTRIBUTES}.get(section.source, ())
    source = Source(section.source, {}, TORCHVISION_CLASSES.get(section.source, ()), attributes)
    columns = read_columns(Path(section.columns)) if section.columns else {}
    return _info(section, source, {name: values.shape[1] for name, values in columns.items()})


def _find(section: DataSection, download: bool) -> Source:
    source = _as_it_is(section, download)
    if section.own_splits:
        return source
    parts = [source.parts[split] for split in SPLITS if split in source.parts]
    pictures = [part for part in parts if isinstance(part, PicturePart)]
    if len(pictures) < len(parts):
        raise RecipeError(
            f"data.own_splits: {section.source} are drawn split by split and cannot be pooled; leave it true.",
            field="data.own_splits",
        )
    return replace(source, parts={"train": pooled(pictures, source.name)})


def _aligned(part: Part, framing: Framing, section: DataSection) -> PicturePart:
    if not isinstance(part, PicturePart):
        raise RecipeError(
            f"data.aligned: {section.source} are drawn aligned, and faces are sought in pictures alone; leave it true.",
            field="data.aligned",
        )
    return with_faces(part, framing)


def _as_it_is(section: DataSection, download: bool) -> Source:
    if section.source == "portraits":
        return find_portraits(section)
    if section.source in _ON_DISK:
        if section.root is None:
            raise Absent(
                f"data.source: {section.source} needs data.root; name where the images lie.", field="data.root"
            )
        return _ON_DISK[section.source](section)
    return find_torchvision(section, download)


def _columns(section: DataSection, source: Source) -> dict[str, np.ndarray]:
    """All rows of ``data.columns``, those of every split."""
    if section.columns is None:
        return {}
    path = Path(section.columns)
    columns = read_columns(path)
    check_rows(path, columns, sum(len(part) for part in source.parts.values()))
    return columns


def _info(section: DataSection, source: Source, columns: dict[str, int]) -> DataInfo:
    return DataInfo(
        channels=section.channels,
        height=section.height,
        width=section.width,
        bit_depth=section.bit_depth,
        classes=source.classes,
        attributes=source.attributes,
        columns=columns,
    )
