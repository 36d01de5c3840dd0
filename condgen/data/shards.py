"""Tar shards in the WebDataset layout: ``KEY.png`` (or another picture) and ``KEY.cls`` (a class index as text).

``data.root`` is one tar file or a folder of them; a name that speaks of a split (``set-train-000.tar``) decides it.
``...classes.txt`` beside them names the classes, one a line. Members are found through an index that is made once for
each shard and kept in the cache folder, so that any order of reading is possible, and read in place.

    data.source: shards    data.root: OUT/tinyimagenet30/webdataset
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from condgen.data.cache import Opener, PicturePart
from condgen.data.images import decode
from condgen.data.limits import MAX_BYTES, SUFFIXES, Unreadable
from condgen.data.parts import (
    MAX_CLASSES,
    Source,
    Split,
    check_labels,
    common_classes,
    digest,
    grouped,
    name_bytes,
    numbered_classes,
)
from condgen.data.tar import Damaged, members
from condgen.errors import InputError, shown
from condgen.files import cache_folder, open_regular, read_regular, write_whole
from condgen.recipe.schema import DataSection

_FORMAT = 1
_LABEL_BYTES = 32


@dataclass(frozen=True)
class Sample:
    """A key of a shard: where its picture lies and its class index, or why it cannot be used."""

    key: str
    offset: int
    size: int
    label: int | None
    problem: str = ""


def find_shards(section: DataSection) -> Source:
    """The shards at ``section.root`` as a source.

    Raises:
        InputError: there are none, one is damaged from the start, labels and class names do not fit.
    """
    root = Path(section.root or "")
    folder, names = _tar_files(root)
    groups = grouped(names, shown(root))
    shards = {split: {name: _index(folder / name) for name in group} for split, group in groups.items()}
    labels = {split: _labels(folder, group) for split, group in shards.items()}
    if len({part is None for part in labels.values()}) > 1:
        raise InputError(f"{shown(root)}: one split has .cls members and another has none; give all the same layout.")
    known = {split: part for split, part in labels.items() if part is not None}
    classes, known = _classes(folder, known)
    parts = {
        split: _part(folder, shown(root) if len(shards) == 1 else f"{shown(root)} ({split})", group, known.get(split))
        for split, group in shards.items()
    }
    return Source(shown(root), parts, classes)


def _tar_files(root: Path) -> tuple[Path, list[str]]:
    """The folder, and the names of the shards in it, sorted by bytes."""
    if root.is_file():
        return root.parent, [root.name]
    try:
        names = sorted((name for name in os.listdir(root) if name.endswith(".tar")), key=name_bytes)
    except OSError as error:
        raise InputError(
            f"data.root: {shown(root)} cannot be opened ({error.strerror}); name a tar file or a folder of them.",
            field="data.root",
        ) from error
    names = [name for name in names if not name.startswith(".")]
    if not names:
        raise InputError(
            f"data.root: {shown(root)} holds no .tar files; name the folder of the shards.", field="data.root"
        )
    return root, names


def _index(path: Path) -> list[Sample]:
    """The samples of a shard, from the cache where it knows this very file."""
    descriptor = open_regular(path)
    try:
        found = os.fstat(descriptor)
        key = digest(_FORMAT, path.name, found.st_size, found.st_ctime_ns, found.st_ino)[:32]
        kept = cache_folder() / "shards" / f"{key}.json"
        try:
            return [Sample(*row) for row in json.loads(kept.read_bytes())]
        except (OSError, ValueError, TypeError):
            samples = _walk(path, descriptor)
    finally:
        os.close(descriptor)
    kept.parent.mkdir(exist_ok=True)
    rows = [(s.key, s.offset, s.size, s.label, s.problem) for s in samples]
    write_whole(kept, json.dumps(rows).encode(), force=True)
    return samples


def _walk(path: Path, descriptor: int) -> list[Sample]:
    """The samples of the shard open at ``descriptor``, in the order in which their keys appear.

    Raises:
        InputError: a label is no number; the file is no tar file at all.
    """
    pictures: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    problems: dict[str, str] = {}
    keys: dict[str, None] = {}  # an ordered set
    damage = ""
    try:
        for member in members(descriptor):
            folder, _, file = member.name.rpartition("/")
            stem, dot, extension = file.partition(".")
            extension = dot + extension.lower()
            if not stem or extension not in SUFFIXES | {".cls"}:
                continue
            key = f"{folder}/{stem}" if folder else stem
            keys[key] = None
            if key in (labels if extension == ".cls" else pictures):
                problems[key] = f"it occurs twice in {shown(path.name)}"
            elif extension == ".cls":
                labels[key] = _label(os.pread(descriptor, _LABEL_BYTES + 1, member.offset)[: member.size], path, key)
            else:
                pictures[key] = member.offset, member.size
    except Damaged as error:
        damage = f"{shown(path.name)} is damaged or cut off here ({error}); copy or download it again"
        if not keys:
            raise InputError(
                f"{shown(path)} is no tar file ({error}); give uncompressed tar files.", file=path, field="data.root"
            ) from error
    if not keys:
        raise InputError(
            f"{shown(path)} holds no pictures with a .cls beside each; give shards in the WebDataset layout.",
            file=path,
            field="data.root",
        )
    samples = []
    for key in keys:
        problem = problems.get(key, "")
        if key not in pictures:
            problem = problem or damage or "its picture is missing beside its .cls"
        elif labels and key not in labels:
            problem = problem or damage or "its .cls is missing beside its picture"
        samples.append(Sample(key, *pictures.get(key, (0, 0)), labels.get(key), problem))
    if damage and not any(sample.problem for sample in samples):
        samples.append(Sample("(the rest)", 0, 0, None, damage))
    return samples


def _label(text: bytes, path: Path, key: str) -> int:
    word = text.strip()
    if len(text) > _LABEL_BYTES or not word.removeprefix(b"-").isdigit():
        raise InputError(
            f"{shown(path)}: {shown(key)}.cls holds {shown(text[:20])}, not a class index; write a whole number.",
            file=path,
            field="data.root",
        )
    return int(word)


def _labels(folder: Path, shards: Mapping[str, list[Sample]]) -> np.ndarray | None:
    """The class indices of a split, 0 where a sample is skipped; None where no sample has one."""
    if not any(sample.label is not None for group in shards.values() for sample in group):
        return None
    labels = []
    for name, group in shards.items():
        for sample in group:
            if sample.label is None and not sample.problem:
                raise InputError(
                    f"{shown(folder / name)}: {shown(sample.key)} has no .cls, but other shards have; add it or remove "
                    "the shard.",
                    file=folder / name,
                    field="data.root",
                )
            if sample.label is not None and not 0 <= sample.label < MAX_CLASSES:
                raise InputError(
                    f"{shown(folder / name)}: {shown(sample.key)}.cls holds {sample.label}, which is no class index; "
                    "count classes from 0.",
                    file=folder / name,
                    field="data.root",
                )
            labels.append(sample.label or 0)
    return np.array(labels, np.int64)


def _classes(folder: Path, labels: dict[Split, np.ndarray]) -> tuple[tuple[str, ...], dict[Split, np.ndarray]]:
    """The class names, and the labels as indices into them."""
    if not labels:
        return (), {}
    files = sorted((n for n in os.listdir(folder) if n.endswith("classes.txt") and n[0] != "."), key=name_bytes)
    if not files:
        return numbered_classes(labels.values()), labels
    groups = grouped(files, shown(folder))
    names = {split: groups.get(split, files if len(files) == 1 else []) for split in labels}
    tables = {}
    for split, candidates in names.items():
        if len(candidates) != 1:
            raise InputError(
                f"{shown(folder)} has {len(candidates)} lists of classes for {split} (…classes.txt); keep one for each "
                "split, or one for all.",
                field="data.root",
            )
        tables[split] = _class_table(folder / candidates[0])
    classes, places = common_classes(list(tables.values()))
    mapped = {}
    for (split, table), place in zip(tables.items(), places, strict=True):
        where = f"{shown(folder)}, {split} shards, against {shown(names[split][0])}"
        mapped[split] = place[check_labels(labels[split], len(table), 0, where)]
    return classes, mapped


def _class_table(path: Path) -> list[str]:
    """One name a line."""
    try:
        names = read_regular(path, 16 << 20).decode("utf-8-sig").replace("\r\n", "\n").rstrip("\n").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{shown(path)} is not UTF-8 text; save it as UTF-8.", file=path) from error
    seen: set[str] = set()
    for row, name in enumerate(names):
        if not name.strip() or name in seen:
            raise InputError(f"{shown(path)}: line {row + 1} is empty or repeats a name; mend it.", file=path)
        seen.add(name)
    return names


def _part(folder: Path, name: str, shards: Mapping[str, list[Sample]], labels: np.ndarray | None) -> PicturePart:
    def open_all() -> Iterator[tuple[str, Opener]]:
        for shard, samples in shards.items():
            for sample in samples:
                yield f"{shard}/{sample.key}", partial(_open, folder / shard, sample)

    fingerprint = digest(
        *(value for shard in shards.values() for sample in shard for value in (sample.key, sample.size)),
        "" if labels is None else labels,
    )
    times = np.array([os.stat(folder / shard).st_ctime_ns for shard in shards], np.int64)
    count = sum(len(samples) for samples in shards.values())
    return PicturePart(name, count, open_all, fingerprint, digest(fingerprint, times), labels)


def _open(path: Path, sample: Sample) -> Image.Image:
    if sample.problem:
        raise Unreadable(sample.problem)
    if sample.size > MAX_BYTES:
        raise Unreadable(f"it has {sample.size:,} bytes, more than the {MAX_BYTES:,} allowed; save it smaller")
    descriptor = open_regular(path)
    try:
        return decode(os.pread(descriptor, sample.size, sample.offset))
    except OSError as error:
        raise Unreadable(f"{shown(path)} cannot be read here ({error.strerror}); check the disk") from error
    finally:
        os.close(descriptor)
