"""The well-known sets, read, checked and, when asked, downloaded by torchvision, in its folders below ``data.root``.

data.source: fashion_mnist    data.root: OUT    data.download: true
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np

from condgen.data.arrays import picture_of
from condgen.data.cache import Opener, PicturePart
from condgen.data.folder import list_files, picture_part
from condgen.data.parts import SPLITS, Source, Split, digest
from condgen.errors import InputError, MachineError, shown
from condgen.files import cache_folder
from condgen.recipe.schema import DataSection


class Absent(InputError):
    """The set is not there, and nobody said that it should be: it would be downloaded, or its folder be named."""


NAMES = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "svhn": "SVHN",
    "celeba": "CelebA",
    "lfw": "LFWPeople",
}
CLASSES: dict[str, tuple[str, ...]] = {
    "mnist": tuple(
        f"{digit} - {word}" for digit, word in enumerate("zero one two three four five six seven eight nine".split())
    ),
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "cifar10": (*("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),),
    "svhn": tuple("0123456789"),
}
"""Known before the set is there. Those of lfw, 5,749 people, are read from it."""
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "celeba": tuple(
        "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair "
        "Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup "
        "High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose "
        "Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat "
        "Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young".split()
    )
}


def find_torchvision(section: DataSection, download: bool) -> Source:
    """The set ``section.source`` below ``section.root`` (default: a folder in the cache folder) as a source.

    Raises:
        Absent: it is not there; it was to be downloaded later, or no folder was named.
        InputError: it is damaged, missing in the folder that was named, or cannot be downloaded.
        MachineError: an optional package is missing, or the disk is full.
    """
    from torchvision import datasets

    kind = getattr(datasets, NAMES[section.source])
    root = Path(section.root) if section.root is not None else cache_folder() / "downloads"
    return _FINDERS[section.source](section, partial(_made, section, kind, root, download), root)


def _made(section: DataSection, kind: Any, root: Path, download: bool, **options: Any) -> Any:
    """torchvision's object, its errors turned into ours."""
    name = kind.__name__
    if any((root / name / "processed").glob("*.pt")):
        raise InputError(
            f"{shown(root / name / 'processed')} holds pickled files of an old torchvision, which are not loaded; "
            "remove that folder.",
            field="data.root",
        )
    try:
        with contextlib.redirect_stdout(sys.stderr):  # some of its downloaders talk
            return kind(root, download=download, **options)
    except ModuleNotFoundError as error:
        raise MachineError(
            f"data.source: {section.source} needs the package {error.name}; run pip install {error.name}."
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise MachineError(f"{name} cannot be written to {shown(root)} ({error.strerror}).", file=root) from error
        raise _unusable(section, name, root, download, error) from error
    except Exception as error:  # assertions, KeyError, RuntimeError: whatever its readers meet in damaged files
        raise _unusable(section, name, root, download, error) from error


def _unusable(section: DataSection, name: str, root: Path, download: bool, error: Exception) -> InputError:
    reason = " ".join(shown(error).split())[:300] or type(error).__name__
    if download:
        cause = "the network" if isinstance(error, URLError) else "the files there"
        return InputError(f"{name} could not be downloaded into {shown(root)} ({reason}); check {cause}.", file=root)
    if not str(error).startswith("Dataset not found"):
        return InputError(f"{name} in {shown(root)} is damaged ({reason}); fetch it again.", file=root)
    if section.root is not None and not section.download:
        return InputError(
            f"data.root: {shown(root)} does not hold {name} as torchvision lays it out, or only a part; check the "
            "folder, or set data.download=true.",
            file=root,
            field="data.root",
        )
    return Absent(
        f"{name} is not here; set data.root to the folder that holds it, or data.download=true to fetch it.",
        field="data.root",
    )


def _array_set(section: DataSection, made: Callable[..., Any], root: Path) -> Source:
    """Sets that torchvision holds in memory: arrays of images and one label each."""
    if section.source == "svhn":
        halves = {"train": made(split="train"), "test": made(split="test")}
    else:
        halves = {"train": made(train=True), "test": made(train=False)}
    names = CLASSES[section.source]
    parts: dict[Split, PicturePart] = {}
    for split in ("train", "test"):
        half = halves[split]
        images = np.asarray(half.data)  # (n, H, W), (n, H, W, C) or, SVHN's, (n, C, H, W)
        if section.source == "svhn":
            images = images.transpose(0, 2, 3, 1)
        labels = np.asarray(half.labels if section.source == "svhn" else half.targets, dtype=np.int64)
        if len(labels) != len(images) or not len(labels) or labels.min() < 0 or labels.max() >= len(names):
            raise InputError(
                f"{NAMES[section.source]} in {shown(root)} is damaged ({len(images)} images, {len(labels)} labels, not "
                f"all in 0..{len(names) - 1}); fetch it again.",
                file=root,
            )
        parts[split] = _array_part(f"{NAMES[section.source]} ({split})", images, labels)
    return Source(NAMES[section.source], parts, names)


def _array_part(name: str, images: np.ndarray, labels: np.ndarray) -> PicturePart:
    def open_all() -> Iterator[tuple[str, Opener]]:
        for row, image in enumerate(images):
            yield f"{name}[{row}]", partial(picture_of, image)

    # the pixels themselves: these sets are small, and MNIST's files are not hashed by torchvision
    fingerprint = digest(name, images, labels)
    return PicturePart(name, len(images), open_all, fingerprint, fingerprint, labels)


def _celeba(section: DataSection, made: Callable[..., Any], root: Path) -> Source:
    """Photographs with 40 attributes each. The split is the authors', in ``list_eval_partition.txt``."""
    found = made(split="all", target_type="attr")
    names = tuple(name for name in found.attr_names if name)
    if names != ATTRIBUTES["celeba"]:
        raise InputError(f"CelebA in {shown(root)} has other attributes than expected; fetch it again.", file=root)
    said = np.asarray(found.attr, dtype=np.int8)
    # its hash was compared above
    lines = (root / "celeba" / "list_eval_partition.txt").read_text().split("\n")
    numbers = {name: number for name, _, number in (line.partition(" ") for line in lines)}
    parts: dict[Split, PicturePart] = {}
    folder = root / "celeba" / "img_align_celeba"
    for number, split in enumerate(SPLITS):
        rows = [row for row, name in enumerate(found.filename) if numbers.get(name) == str(number)]
        files = list_files(folder, [found.filename[row] for row in rows])
        parts[split] = picture_part(f"CelebA ({split})", folder, files, attributes=said[rows])
    return Source("CelebA", parts, (), ATTRIBUTES["celeba"])


def _lfw(section: DataSection, made: Callable[..., Any], root: Path) -> Source:
    """Funneled photographs; the label is the person. Nobody is in both splits."""
    parts: dict[Split, PicturePart] = {}
    people: tuple[str, ...] = ()
    for split in ("train", "test"):
        found = made(split=split, image_set="funneled")
        people = tuple(found.class_to_idx)
        folder = Path(found.images_dir)
        files = list_files(folder, [os.path.relpath(path, folder) for path in found.data])
        parts[split] = picture_part(f"LFW ({split})", folder, files, np.asarray(found.targets, dtype=np.int64))
    return Source("LFW", parts, people)


_FINDERS: dict[str, Callable[[DataSection, Callable[..., Any], Path], Source]] = {
    **dict.fromkeys(("mnist", "fashion_mnist", "cifar10", "svhn"), _array_set),
    "celeba": _celeba,
    "lfw": _lfw,
}
