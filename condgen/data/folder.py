"""A folder of pictures: ``train/<class>/*``, ``<class>/*``, or simply ``*``.

Splits are folders named train, validation (or valid, val) and test; what is not there is drawn later. Classes are the
folders below, found by themselves and sorted by the bytes of their names. Inside a class everything counts, however
deep. What is no picture by its name is passed over without a word.

    data.source: folder    data.root: photos
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from condgen.data.cache import Opener, PicturePart
from condgen.data.images import decode, heif_installed
from condgen.data.limits import MAX_BYTES, SUFFIXES, Unreadable
from condgen.data.parts import SPLITS, Source, Split, digest, name_bytes, split_folder
from condgen.errors import InputError, shown
from condgen.files import read_regular
from condgen.recipe.schema import DataSection

_NOT_READ = {
    *(".svg", ".pdf", ".eps", ".ps", ".avif", ".heic", ".heif", ".ico", ".psd", ".fits", ".jp2", ".jxl", ".dng"),
}
"""Pictures too, in the eyes of whoever put them there: they are listed as skipped, not passed over."""

_HEIF = (".heic", ".heif")


@dataclass(frozen=True)
class Listed:
    """A file that looks like a picture by its name, relative to the root."""

    name: str
    size: int
    """Bytes; -1 where it is no regular file or cannot be asked."""
    changed: int
    """Nanoseconds; the time of the last change of contents or rights (ctime): it cannot be set back."""
    problem: str = ""
    """Why it cannot be used, where that is known already."""


def find_folder(section: DataSection) -> Source:
    """The folder ``section.root`` as a source.

    Raises:
        InputError: it is missing, empty, or mixes pictures with class folders; a class folder is empty.
    """
    root = Path(section.root or "")
    if not root.is_dir():
        raise InputError(f"data.root: {shown(root)} is no folder; name the folder of the images.", field="data.root")
    splits = _split_folders(root)
    listing = {split: _classes(root, name) for split, name in splits.items()} if splits else {"train": _classes(root)}
    names = sorted({name for classes in listing.values() for name in classes if name is not None}, key=name_bytes)
    parts: dict[Split, PicturePart] = {}
    for split in SPLITS:
        if split in listing:
            parts[split] = _part(root, splits.get(split), listing[split], names)
    if any((part.labels is None) != (not names) for part in parts.values()):
        raise InputError(f"{shown(root)}: one split has class folders and another has none; give all the same layout.")
    return Source(shown(root), parts, tuple(names))


def open_file(path: Path) -> Image.Image:
    """The picture in ``path``.

    Raises:
        InputError: it cannot be read or used.
    """
    return decode(read_regular(path, MAX_BYTES))


def picture_part(
    name: str,
    root: Path,
    files: list[Listed],
    labels: np.ndarray | None = None,
    attributes: np.ndarray | None = None,
) -> PicturePart:
    """A part out of files below ``root``."""

    def open_all() -> Iterator[tuple[str, Opener]]:
        for file in files:
            yield file.name, partial(_refuse, file.problem) if file.problem else partial(open_file, root / file.name)

    said = ["" if values is None else values for values in (labels, attributes)]
    fingerprint = digest(*(value for file in files for value in (file.name, file.size)), *said)
    times = np.array([file.changed for file in files], np.int64)
    # what could not be read without a package can be with it
    reads = ["heif"] if any(file.name.lower().endswith(_HEIF) for file in files) and heif_installed() else []
    return PicturePart(name, len(files), open_all, fingerprint, digest(fingerprint, times, *reads), labels, attributes)


def list_files(root: Path, names: list[str]) -> list[Listed]:
    """The files that a list names, in its order."""
    return [_listed(root, name) for name in names]


def _refuse(reason: str) -> Image.Image:
    raise Unreadable(reason)


def _split_folders(root: Path) -> dict[Split, str]:
    """The folders that hold splits; {} where there are none."""
    found: dict[Split, str] = {}
    for entry in _entries(root):
        split = split_folder(entry.name)
        if split is None or not _is_folder(entry):
            continue
        if split in found:
            raise InputError(
                f"{shown(root)} has both {found[split]} and {entry.name}, which are one split; keep one of them.",
                field="data.root",
            )
        found[split] = entry.name
    return found


def _classes(root: Path, split: str = "") -> Mapping[str | None, list[Listed]]:
    """The pictures of each class folder below ``root/split``; those of a flat folder under None."""
    folder = root / split
    seen = {_identity(root), _identity(folder)}
    loose, folders = [], []
    for entry in _entries(folder):
        name = f"{split}/{entry.name}" if split else entry.name
        picture = _is_picture(entry.name)
        if _is_folder(entry):
            if not picture and _identity(root / name) not in seen:
                folders.append((entry.name, name))
        elif picture:
            loose.append(_listed(root, name))
    classes = {name: _pictures(root, path, seen) for name, path in folders}
    if loose and any(classes.values()):
        raise InputError(
            f"{shown(folder)} holds both pictures ({shown(loose[0].name)}) and folders of pictures "
            f"({shown(next(name for name, files in classes.items() if files))}); move the pictures into class folders, "
            "or the folders away.",
            file=folder,
            field="data.root",
        )
    if loose:
        return {None: loose}
    if not any(classes.values()):
        raise InputError(f"{shown(folder)} holds no images; check data.root.", file=folder, field="data.root")
    for name, files in classes.items():
        if not files:
            raise InputError(
                f"The class folder {shown(folder / name)} holds no images; remove it or put some there.",
                file=folder / name,
                field="data.root",
            )
    return {name: files for name, files in classes.items()}


def _pictures(root: Path, folder: str, seen: set[tuple[int, int]]) -> list[Listed]:
    """Every picture below ``root/folder``, sorted by bytes; a folder met twice (links) counts once."""
    files, folders = [], [folder]
    while folders:
        here = folders.pop()
        try:
            identity = _identity(root / here)
            if identity in seen:
                continue
            seen.add(identity)
            entries = _entries(root / here)
        except InputError as error:
            files.append(Listed(here, -1, 0, error.message))
            continue
        for entry in entries:
            name = f"{here}/{entry.name}"
            picture = _is_picture(entry.name)
            if _is_folder(entry):
                if not picture:  # a folder that is named like a picture is nothing to look into
                    folders.append(name)
            elif picture:
                files.append(_listed(root, name))
    return sorted(files, key=lambda file: name_bytes(file.name))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is not hidden in ``folder``, sorted by bytes."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise _unlisted(folder, error) from error
    return sorted(found, key=lambda entry: name_bytes(entry.name))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES | _NOT_READ


def _identity(folder: Path) -> tuple[int, int]:
    try:
        found = os.stat(folder)
    except OSError as error:
        raise _unlisted(folder, error) from error
    return found.st_dev, found.st_ino


def _unlisted(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"The folder {shown(folder)} cannot be listed ({error.strerror}); check its rights.",
        file=folder,
        field="data.root",
    )


def _listed(root: Path, name: str) -> Listed:
    try:
        found = os.stat(root / name)
    except OSError as error:
        return Listed(name, -1, 0, f"it cannot be opened ({error.strerror})")
    if not stat.S_ISREG(found.st_mode):
        return Listed(name, -1, 0, "it is not a regular file")
    return Listed(name, found.st_size, found.st_ctime_ns)


def _part(root: Path, folder: str | None, listing: Mapping[str | None, list[Listed]], names: list[str]) -> PicturePart:
    """A split: its classes one after another, or the flat folder."""
    places = {name: place for place, name in enumerate(names)}
    files = [file for group in listing.values() for file in group]
    labels = None
    if None not in listing:
        labels = np.array([places[str(name)] for name, group in listing.items() for _ in group], np.int64)
    return picture_part(shown(root / folder if folder else root), root, files, labels)
