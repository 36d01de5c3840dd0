"""Images in .npz files: the two layouts, and every way in which an array is none of images."""

from __future__ import annotations

import io
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from condgen import npz as npz_module
from condgen.data import data_info, open_data
from condgen.data.dataset import Dataset
from condgen.errors import InputError
from condgen.npz import Npz
from condgen.recipe.schema import DataSection

CHANCE = np.random.default_rng(0)
X = CHANCE.integers(0, 256, (20, 5, 6, 3), dtype=np.uint8)
Y = np.arange(20) % 3


def section(root: Path, **fields: object) -> DataSection:
    options = {"image_size": [5, 6], "validation": 0, "test": 0, **fields}
    return DataSection.model_validate({"source": "npz", "root": str(root), **options})


def images(data: Dataset) -> np.ndarray:
    """(N, H, W, C)."""
    return data.batch(np.arange(len(data)))["image"].numpy().transpose(0, 2, 3, 1)


def labels(data: Dataset) -> list[int]:
    return data.batch(np.arange(len(data)))["label"].tolist()


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (X, X),
        (X.transpose(0, 3, 1, 2), X),
        (X[..., 0], X[..., :1].repeat(3, axis=3)),
        (X[..., :1], X[..., :1].repeat(3, axis=3)),
        (X.astype(np.int64), X),
        (X.astype(np.float32), X),
        (X.astype(">u2"), X),
        (X > 127, (X > 127) * np.uint8(255)),
    ],
    ids=["NHWC", "NCHW", "NHW", "NHW1", "int64", "float", "big-endian", "bool"],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_layouts_and_types(tmp_path: Path, stored: np.ndarray, expected: np.ndarray, save: Callable[..., None]) -> None:
    save(tmp_path / "a.npz", x=stored, y=Y, classes=np.array(["ape", "bee", "cat"]))
    data = open_data(section(tmp_path / "a.npz"), "train")
    assert np.array_equal(images(data), expected)
    assert labels(data) == Y.tolist() and data.info.classes == ("ape", "bee", "cat")


def test_many_blocks_make_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz_module, "_BLOCK_BYTES", 200)  # two or three rows
    np.savez_compressed(tmp_path / "a.npz", x=X)
    data = open_data(section(tmp_path / "a.npz"), "train")
    assert np.array_equal(images(data), X) and "label" not in data.batch(np.arange(2))


def test_downsampled_imagenet(tmp_path: Path) -> None:
    train = CHANCE.integers(0, 256, (12, 3072), dtype=np.uint8)
    test = CHANCE.integers(0, 256, (4, 3072), dtype=np.uint8)
    ours = np.arange(12) % 5 + 1
    np.savez(tmp_path / "train_data_batch_1.npz", data=train[:7], labels=ours[:7], mean=train.mean(axis=0))
    np.savez(tmp_path / "train_data_batch_2.npz", data=train[7:], labels=ours[7:], mean=train.mean(axis=0))
    np.savez(tmp_path / "val_data.npz", data=test, labels=np.array([5, 1, 1, 2]))
    found = open_data(section(tmp_path, image_size=32), "train")
    assert found.info.classes == ("0", "1", "2", "3", "4")
    assert labels(found) == (ours - 1).tolist()
    for image, row in zip(images(found), train, strict=True):
        for channel in range(3):
            assert np.array_equal(image[..., channel], row[channel * 1024 : (channel + 1) * 1024].reshape(32, 32))
    # the validation images are the test split; validation is drawn from train
    held_out = open_data(section(tmp_path, image_size=32), "test")
    assert len(held_out) == 4 and labels(held_out) == [4, 0, 0, 1]
    assert len(open_data(section(tmp_path, image_size=32, validation=0.25), "validation")) == 3
    np.savez(tmp_path / "val_data.npz", data=test, labels=np.array([5, 1, 0, 2]))
    with pytest.raises(InputError, match=r"val_data\.npz: row 2 has the label 0, which is not in 1\.\."):
        data_info(section(tmp_path))


def test_splits_in_files(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("validation", 10), ("test", 15)):
        np.savez(tmp_path / f"set-{split}.npz", x=X[first : first + 5], y=Y[first : first + 5])
    for split, first in (("train", 0), ("validation", 10), ("test", 15)):
        data = open_data(section(tmp_path), split)  # type: ignore[arg-type]
        assert np.array_equal(images(data), X[first : first + 5]) and labels(data) == Y[first : first + 5].tolist()
    alone = open_data(section(tmp_path / "set-test.npz"), "test")
    assert np.array_equal(images(alone), X[15:])


def test_all_of_a_set_without_splits_may_be_test(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=X)
    assert np.array_equal(images(open_data(section(tmp_path / "set.npz", test=1), "test")), X)
    for split, way_out in (("train", "lower data.test, which takes all images"), ("validation", "set data.validation")):
        with pytest.raises(InputError, match=f"has no {split} split; {way_out}"):
            open_data(section(tmp_path / "set.npz", test=1), split)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="of which 21 would be kept for validation and test"):
        open_data(section(tmp_path / "set.npz", test=1, validation=0.05), "test")


def test_the_cache_makes_a_second_opening_read_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    before = images(open_data(section(tmp_path), "train"))

    def forbidden(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(Npz, "blocks", forbidden)
    assert np.array_equal(images(open_data(section(tmp_path), "train")), before)


with np.errstate(invalid="ignore"):
    BAD_X: list[tuple[str, np.ndarray, str]] = [
        ("NaN", np.where(np.arange(20)[:, None, None, None] == 7, np.nan, X.astype(np.float32)), "holds nan in row 7"),
        ("infinity", np.where(np.arange(20)[:, None, None, None] == 3, np.inf, X.astype(float)), "holds inf in row 3"),
        ("complex", X.astype(complex), "holds complex128; save images as uint8"),
        ("fractions", X / 255, r"holds 0\.\d+ in row 0; save images as uint8"),
        ("zeros and ones", (X > 127).astype(np.float32), "holds numbers from 0 to 1 only; multiply by 255"),
        ("uint16", X.astype(np.uint16) * 257, r"holds \d+ in row 0"),
        ("negative", X.astype(np.int16) - 300, r"holds -\d+ in row 0"),
        ("structured", np.zeros(4, [("a", "u1"), ("b", "u1")]), "has named fields"),
        ("ambiguous", np.zeros((3, 3, 3, 3), np.uint8), r"\(3, 3, 3, 3\), which may be NHWC or NCHW"),
        ("no images", np.zeros((0, 4, 4, 3), np.uint8), "which holds no images"),
        ("one axis", np.zeros(12, np.uint8), "which holds no images"),
        ("two channels", np.zeros((5, 7, 7, 2), np.uint8), "with 1, 3 or 4 channels"),
        ("five axes", np.zeros((5, 4, 4, 3, 1), np.uint8), "with 1, 3 or 4 channels"),
        ("no square", np.zeros((5, 50), np.uint8), "make no square picture"),
        ("words", np.array([["a"]]), "holds <U1"),
        ("Fortran order", np.asfortranarray(X), "lies in Fortran order"),
    ]


@pytest.mark.parametrize(("x", "sentence"), [row[1:] for row in BAD_X], ids=[row[0] for row in BAD_X])
def test_arrays_that_are_no_images(tmp_path: Path, x: np.ndarray, sentence: str, cache: Path) -> None:
    np.savez(tmp_path / "a.npz", x=x)
    with pytest.raises(InputError, match=sentence) as error:
        open_data(section(tmp_path), "train")
    assert error.value.exit_code == 3 and "a.npz" in error.value.message
    assert not [path for path in cache.glob("images/*") if path.suffix != ".lock"]


def test_python_objects_are_never_loaded(tmp_path: Path) -> None:
    bad: list[dict[str, Any]] = [{"x": X.astype(object)}, {"x": X, "y": Y.astype(object)}]
    for place, arrays in enumerate(bad):
        path = tmp_path / f"{place}.npz"
        np.savez(path, **arrays)
        with pytest.raises(InputError, match="holds Python objects, which are never loaded"):
            data_info(section(path))


@pytest.mark.parametrize(
    ("y", "sentence"),
    [
        (Y[:-1], "has 19 labels for 20 images"),
        (np.where(np.arange(20) == 11, -1, Y), "row 11 has the label -1"),
        (np.where(np.arange(20) == 4, 3, Y), r"row 4 has the label 3, which is not in 0\.\.2"),
        (Y.astype(float), "labels must be whole numbers, one for each image, not float64"),
        (np.full(20, np.nan), "labels must be whole numbers"),
        (Y.astype(str), "labels must be whole numbers"),
        (np.stack([Y, Y], axis=1), "has 40 labels for 20 images"),
    ],
)
def test_labels_that_are_none(tmp_path: Path, y: np.ndarray, sentence: str) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=y, classes=np.array(["ape", "bee", "cat"]))
    with pytest.raises(InputError, match=sentence):
        data_info(section(tmp_path))


def test_labels_without_classes_and_classes_that_repeat(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=np.where(Y == 0, 10**12, Y))
    with pytest.raises(InputError, match="row 0 has the label 1000000000000"):
        data_info(section(tmp_path))
    np.savez(tmp_path / "a.npz", x=X, y=Y, classes=np.array(["ape", "bee", "ape"]))
    with pytest.raises(InputError, match="classes repeats a name"):
        data_info(section(tmp_path))
    np.savez(tmp_path / "a.npz", x=X, y=Y[:, None])
    assert labels(open_data(section(tmp_path), "train")) == Y.tolist()
    np.savez(tmp_path / "b.npz", x=X)
    with pytest.raises(InputError, match="some files hold labels and some none"):
        data_info(section(tmp_path))


def test_a_missing_key(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", pictures=X)
    with pytest.raises(InputError, match=r"a\.npz holds pictures; images are expected in one array called x"):
        data_info(section(tmp_path))


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as zipped:
        for name, data in members.items():
            zipped.writestr(name, data)
    return file.getvalue()


def claiming(shape: str) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode() + bytes(64)


def twice() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped, pytest.warns(UserWarning, match="Duplicate"):
        zipped.writestr("x.npy", npy(X))
        zipped.writestr("x.npy", npy(X))
    return file.getvalue()


def encrypted() -> bytes:
    data = bytearray(archive({"x.npy": npy(X)}))
    data[6] |= 1  # the flag in the member's own header
    data[data.index(b"PK\1\2") + 8] |= 1  # and in the directory
    return bytes(data)


def overlapping() -> bytes:
    """Two entries of the directory point at one member."""
    data = bytearray(archive({"x.npy": npy(X), "y.npy": npy(X)}))
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4)
    data[second + 42 : second + 46] = struct.pack("<I", 0)
    return bytes(data)


def wrong_sum() -> bytes:
    data = bytearray(archive({"x.npy": npy(X)}))
    data[300] ^= 1
    return bytes(data)


def wrong_sum_of_compressed() -> bytes:
    """The data are right, the directory's checksum is not."""
    data = bytearray(archive({"x.npy": npy(X)}, zipfile.ZIP_DEFLATED))
    data[data.index(b"PK\1\2") + 16] ^= 1
    return bytes(data)


BAD_FILES: list[tuple[str, Callable[[], bytes], str]] = [
    ("claims a terabyte", lambda: archive({"x.npy": claiming("(1000000000000,)")}), "claims .* but holds 64 bytes"),
    ("negative shape", lambda: archive({"x.npy": claiming("(-4, -16)")}), "claims"),
    ("shape is code", lambda: archive({"x.npy": claiming("__import__('os')")}), "is no plain array"),
    (
        "long header",
        lambda: archive({"x.npy": b"\x93NUMPY\2\0" + struct.pack("<I", 50_000) + b" " * 50_000}),
        "is no plain",
    ),
    ("no npy", lambda: archive({"x.npy": b"text"}), "is no plain array"),
    ("another member", lambda: archive({"x.npy": npy(X), "run.py": b"1"}), "run.py is no .npy array"),
    ("duplicate", twice, "x occurs twice"),
    ("encrypted", encrypted, "x is encrypted"),
    ("overlapping", overlapping, "lies over another member|damaged or no .npz"),
    ("wrong checksum", wrong_sum, "is damaged"),
    ("wrong checksum of compressed data", wrong_sum_of_compressed, "is damaged"),
    ("truncated", lambda: archive({"x.npy": npy(X)})[:-40], "is damaged or no .npz file"),
    ("empty", lambda: b"", "is damaged or no .npz file"),
    ("text", lambda: b"x,y\n1,2\n", "is damaged or no .npz file"),
]


@pytest.mark.parametrize(("make", "sentence"), [row[1:] for row in BAD_FILES], ids=[row[0] for row in BAD_FILES])
def test_files_that_are_refused(tmp_path: Path, make: Callable[[], bytes], sentence: str) -> None:
    (tmp_path / "a.npz").write_bytes(make())
    started = time.monotonic()
    with pytest.raises(InputError, match=sentence) as error:
        open_data(section(tmp_path), "train")
    assert time.monotonic() - started < 2
    assert error.value.message.isprintable() and error.value.exit_code == 3


def test_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz_module, "_BOMB_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((2048, 32, 32), np.uint8))
    with pytest.raises(InputError, match=r"x grows from [\d,]+ to 2,097,280 bytes"):
        data_info(section(tmp_path))


def test_a_key_that_looks_like_a_path_stays_a_key(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(archive({"x.npy": npy(X), "../../up.npy": npy(Y)}))
    assert np.array_equal(images(open_data(section(tmp_path / "a.npz"), "train")), X)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz"]


def test_damaged_bytes_end_in_one_sentence(tmp_path: Path) -> None:
    """Flipped anywhere, a byte is either noticed or changes nothing that matters."""
    known: dict[str, np.ndarray] = {"x": X[:2], "y": Y[:2]}
    whole = archive({f"{name}.npy": npy(array) for name, array in known.items()}, zipfile.ZIP_DEFLATED)
    chance = np.random.default_rng(1)
    path = tmp_path / "a.npz"
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        data[chance.integers(len(data))] ^= 1 << chance.integers(8)
        path.write_bytes(data)
        try:
            with Npz(path) as npz:
                for name in npz.headers:
                    assert name not in known or np.array_equal(npz.read(name), known[name])
        except InputError as error:
            refused += 1
            assert error.message.isprintable()
    assert refused > 200


def test_no_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no \.npz files"):
        data_info(section(tmp_path))
    with pytest.raises(InputError, match="nowhere cannot be opened"):
        data_info(section(tmp_path / "nowhere"))
