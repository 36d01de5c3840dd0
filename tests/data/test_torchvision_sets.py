"""torchvision's sets, in its own layouts, made small here; nothing is downloaded."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io
from picture_bytes import saved
from torchvision import datasets

from condgen.data import data_info, data_sizes, declared_info, open_data
from condgen.data import torchvision_sets as sets_module
from condgen.data.dataset import Dataset
from condgen.errors import InputError, MachineError
from condgen.recipe.schema import DataSection

CHANCE = np.random.default_rng(0)


def section(source: str, root: Path | None, **fields: object) -> DataSection:
    return DataSection.model_validate({"source": source, "root": root and str(root), "validation": 0, **fields})


def images(data: Dataset) -> np.ndarray:
    return data.batch(np.arange(len(data)))["image"].numpy()


def labels(data: Dataset) -> list[int]:
    return data.batch(np.arange(len(data)))["label"].tolist()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def put_idx(folder: Path, digits: dict[str, np.ndarray], names: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True)
    for half, pixels in digits.items():
        header = struct.pack(">4I", 2051, *pixels.shape)
        (folder / f"{half}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        (folder / f"{half}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2I", 2049, len(names[half])) + names[half].tobytes()
        )


@pytest.fixture
def mnist(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    digits = {
        "train": CHANCE.integers(0, 256, (12, 28, 28), np.uint8),
        "t10k": CHANCE.integers(0, 256, (5, 28, 28), np.uint8),
    }
    names = {half: (np.arange(len(pixels)) % 10).astype(np.uint8) for half, pixels in digits.items()}
    put_idx(tmp_path / "FashionMNIST" / "raw", digits, names)
    return tmp_path, digits


def test_fashion_mnist(mnist: tuple[Path, dict[str, np.ndarray]]) -> None:
    root, digits = mnist
    plain = section("fashion_mnist", root, image_size=28, channels=1)
    train, test = open_data(plain, "train"), open_data(plain, "test")
    assert np.array_equal(images(train)[:, 0], digits["train"]) and np.array_equal(images(test)[:, 0], digits["t10k"])
    assert labels(train) == [n % 10 for n in range(12)]
    assert train.info.classes[7] == "Sneaker" and train.info == data_info(plain)
    padded = section("fashion_mnist", root, fit="pad", background=(0, 0, 0))
    framed = images(open_data(padded, "train"))
    assert framed.shape == (12, 3, 32, 32) and not framed[:, :, :2].any() and not framed[..., -2:].any()
    assert np.array_equal(framed[:, 1, 2:30, 2:30], digits["train"])
    drawn = section("fashion_mnist", root, validation=0.25)
    assert data_sizes(drawn) == {"train": 9, "validation": 3, "test": 5}


def test_damaged_idx_files(mnist: tuple[Path, dict[str, np.ndarray]]) -> None:
    root, _ = mnist
    raw = root / "FashionMNIST" / "raw"
    whole = (raw / "train-images-idx3-ubyte").read_bytes()
    for bad in (whole[:-1], b"", whole[:3], gzip.compress(whole)):
        (raw / "train-images-idx3-ubyte").write_bytes(bad)
        with pytest.raises(InputError, match=r"FashionMNIST in .* is damaged .*; fetch it again"):
            open_data(section("fashion_mnist", root), "train")
    (raw / "train-images-idx3-ubyte").write_bytes(whole)
    (raw / "train-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, 12) + bytes([10] * 12))
    with pytest.raises(InputError, match=r"not all in 0\.\.9"):
        open_data(section("fashion_mnist", root), "train")


def test_pickles_of_an_old_torchvision_are_not_loaded(mnist: tuple[Path, dict[str, np.ndarray]]) -> None:
    root, _ = mnist
    (root / "FashionMNIST" / "processed").mkdir()
    for name in ("training.pt", "test.pt"):
        (root / "FashionMNIST" / "processed" / name).write_bytes(b"")
    with pytest.raises(InputError, match="pickled files of an old torchvision"):
        open_data(section("fashion_mnist", root), "train")


class _Cifar:
    """What torchvision's CIFAR10 holds once it has read its (pickled) files."""

    pixels = CHANCE.integers(0, 256, (9, 32, 32, 3), np.uint8)

    def __init__(self, root: Path, train: bool, download: bool) -> None:
        self.data = self.pixels[:6] if train else self.pixels[6:]
        self.targets = list(range(6)) if train else [9, 8, 7]


def test_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "CIFAR10", _Cifar)
    train, test = (open_data(section("cifar10", tmp_path), split) for split in ("train", "test"))
    assert np.array_equal(images(train).transpose(0, 2, 3, 1), _Cifar.pixels[:6])
    assert np.array_equal(images(test).transpose(0, 2, 3, 1), _Cifar.pixels[6:])
    assert labels(test) == [9, 8, 7] and test.info.classes[9] == "truck"


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = CHANCE.integers(0, 256, (6, 32, 32, 3), np.uint8)
    digits = np.array([10, 1, 2, 3, 9, 10])
    files = {}
    for half in ("train", "test"):
        path = tmp_path / f"{half}_32x32.mat"
        scipy.io.savemat(path, {"X": pixels.transpose(1, 2, 3, 0), "y": digits[:, None]})
        files[half] = ["", path.name, md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", files)
    data = open_data(section("svhn", tmp_path), "train")
    assert np.array_equal(images(data).transpose(0, 2, 3, 1), pixels)
    assert labels(data) == [0, 1, 2, 3, 9, 0] and data.info.classes == tuple("0123456789")


def test_celeba(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = sets_module.ATTRIBUTES["celeba"]
    said = CHANCE.integers(0, 2, (6, 40))
    files = [f"{n:06d}.jpg" for n in range(1, 7)]
    for n, name in enumerate(files):
        (folder / "img_align_celeba" / name).write_bytes(saved(np.full((44, 36, 3), 40 * n, np.uint8), "JPEG"))
    rows = [" ".join([name, *(f"{2 * v - 1:2d}" for v in row)]) for name, row in zip(files, said, strict=True)]
    tables = {
        "list_attr_celeba.txt": "\n".join(["6", " ".join(names), *rows]),
        "identity_CelebA.txt": "\n".join(f"{name} 1" for name in files),
        "list_bbox_celeba.txt": "\n".join(["6", "image_id x_1", *(f"{name} 1" for name in files)]),
        "list_landmarks_align_celeba.txt": "\n".join(["6", "x", *(f"{name} 1" for name in files)]),
        "list_eval_partition.txt": "\n".join(f"{name} {(0, 0, 0, 1, 2, 2)[n]}" for n, name in enumerate(files)),
    }
    listed = []
    for name, text in tables.items():
        (folder / name).write_text(text + "\n")
        listed.append(("", md5(folder / name), name))
    monkeypatch.setattr(datasets.CelebA, "file_list", listed)
    expected = {"train": [0, 1, 2], "validation": [3], "test": [4, 5]}
    for split, rows_of in expected.items():
        data = open_data(section("celeba", tmp_path, image_size=8), split)  # type: ignore[arg-type]
        batch = data.batch(np.arange(len(data)))
        assert np.array_equal(batch["attributes"], said[rows_of])
        assert batch["image"][:, 0, 4, 4].tolist() == pytest.approx([40 * n for n in rows_of], abs=1)
        assert data.info.attributes == names and len(names) == 40 and "Smiling" in names
    # a picture that is missing is skipped, as in any folder
    (folder / "img_align_celeba" / files[1]).unlink()
    data = open_data(section("celeba", tmp_path, image_size=8, max_skipped=0.5), "train")
    assert len(data) == 2 and data.skipped[0][0] == files[1]
    assert np.array_equal(data.batch(np.arange(2))["attributes"], said[[0, 2]])


def test_lfw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "lfw-py"
    people = {"Ann_A": 2, "Bob_B": 1, "Cyd_C": 2}
    for value, (person, count) in enumerate(people.items()):
        (folder / "lfw_funneled" / person).mkdir(parents=True)
        for n in range(1, count + 1):
            picture = np.full((16, 16, 3), 50 * value + n, np.uint8)
            (folder / "lfw_funneled" / person / f"{person}_{n:04d}.jpg").write_bytes(saved(picture, "JPEG"))
    (folder / "lfw-names.txt").write_text("".join(f"{person}\t{count}\n" for person, count in people.items()))
    (folder / "peopleDevTrain.txt").write_text("2\nAnn_A\t2\nBob_B\t1\n")
    (folder / "peopleDevTest.txt").write_text("1\nCyd_C\t2\n")
    (folder / "lfw-funneled.tgz").write_bytes(b"")
    sums = {name: md5(folder / name) for name in ("lfw-names.txt", "peopleDevTrain.txt", "peopleDevTest.txt")}
    monkeypatch.setattr(datasets.LFWPeople, "checksums", sums)
    archive = ("lfw_funneled", "lfw-funneled.tgz", md5(folder / "lfw-funneled.tgz"))
    monkeypatch.setattr(datasets.LFWPeople, "file_dict", {"funneled": archive})
    train = open_data(section("lfw", tmp_path, image_size=8), "train")
    test = open_data(section("lfw", tmp_path, image_size=8), "test")
    assert train.info.classes == ("Ann_A", "Bob_B", "Cyd_C")
    assert labels(train) == [0, 0, 1] and labels(test) == [2, 2]
    assert images(train)[:, 0, 3, 3].tolist() == pytest.approx([1, 2, 51], abs=1)


def test_a_set_that_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # in a folder that was named: an error at once, also of a dry run
    for ask in (
        lambda: data_info(section("cifar10", tmp_path)),
        lambda: open_data(section("cifar10", tmp_path), "train"),
    ):
        with pytest.raises(
            InputError, match=r"data\.root: .* does not hold CIFAR10 as torchvision lays it out"
        ) as error:
            ask()
        assert error.value.exit_code == 3
    # to be downloaded, or nowhere named: absent
    for absent in (
        section("cifar10", None),
        section("cifar10", tmp_path, download=True),
        section("cifar10", None, download=True),
    ):
        assert data_info(absent) is None and data_sizes(absent) is None
    with pytest.raises(InputError, match=r"CIFAR10 is not here; set data\.root .* or data\.download=true"):
        open_data(section("cifar10", None), "train")
    assert declared_info(section("cifar10", None)).classes[0] == "airplane"
    assert len(declared_info(section("celeba", None)).attributes) == 40

    # asked for, with no network
    def no_network(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(datasets.CIFAR10, "download", no_network)
    with pytest.raises(InputError, match=r"CIFAR10 could not be downloaded into .*no network.*; check the network"):
        open_data(section("cifar10", tmp_path, download=True), "train")


def test_a_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_gdown(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'gdown'", name="gdown")

    monkeypatch.setattr(datasets.CelebA, "download", without_gdown)
    with pytest.raises(
        MachineError, match=r"data\.source: celeba needs the package gdown; run pip install gdown"
    ) as error:
        open_data(section("celeba", tmp_path, download=True), "train")
    assert error.value.exit_code == 6


@pytest.mark.parametrize(("source", "name"), sorted(sets_module.NAMES.items()))
def test_the_names_known_beforehand_are_torchvisions(source: str, name: str) -> None:
    classes = getattr(getattr(datasets, name), "classes", None)
    if isinstance(classes, list):
        assert sets_module.CLASSES[source] == tuple(classes)
