"""Extra columns: read, matched with the images row by row, and refused where they cannot be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picture_bytes import saved
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

from condgen.data import SPLITS, data_info, declared_info, open_data, read_columns
from condgen.errors import InputError
from condgen.recipe.schema import DataSection

COUNT = 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train/ with pictures of values 0 .. 16, test/ with 17 .. 19."""
    for number in range(COUNT):
        path = tmp_path / "photos" / ("train" if number < 17 else "test") / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(saved(np.full((4, 4, 3), number, np.uint8), "PNG"))
    return tmp_path / "photos"


def section(folder: Path, columns: Path, **fields: object) -> DataSection:
    return DataSection.model_validate(
        {"source": "folder", "root": str(folder), "image_size": 4, "columns": str(columns), **fields}
    )


def written(folder: Path, text: str | bytes) -> Path:
    path = folder.parent / "columns.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_rows_follow_the_images_through_every_split(folder: Path) -> None:
    lines = [f"{number},{-number / 4:.2e}" for number in range(COUNT)]
    path = written(folder, b"\xef\xbb\xbf" + "\r\n".join(["age,height", *lines, ""]).encode())
    for split in SPLITS:
        data = open_data(section(folder, path, validation=0.3), split)
        assert data.info.columns == {"vector": 2}
        batch = data.batch(np.arange(len(data)))
        values = batch["image"][:, 0, 0, 0].float()
        assert batch["vector"].dtype == torch.float32
        assert torch.equal(batch["vector"], torch.stack([values, -values / 4], dim=1))


def test_rows_of_skipped_images_are_dropped(folder: Path) -> None:
    (folder / "train" / "05.png").write_bytes(b"no picture")
    path = written(folder, "\n".join(["age", *map(str, range(COUNT))]))
    data = open_data(section(folder, path, validation=0, max_skipped=0.5), "train")
    batch = data.batch(np.arange(len(data)))
    assert batch["vector"][:, 0].tolist() == batch["image"][:, 0, 0, 0].tolist() == [n for n in range(17) if n != 5]


def test_a_file_without_names_is_numbers_from_its_first_line(folder: Path) -> None:
    values = np.arange(COUNT * 2.0).reshape(COUNT, 2)
    np.savetxt(folder.parent / "columns.csv", values, delimiter=",")
    np.save(folder.parent / "columns.npy", values)
    np.save(folder.parent / "flat.npy", values[:, 1])
    for name, expected in (("columns.csv", values), ("columns.npy", values), ("flat.npy", values[:, 1:])):
        data = open_data(section(folder, folder.parent / name), "test")
        assert np.array_equal(data.batch(np.arange(3))["vector"], expected[17:])


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_arrays_keep_their_names(folder: Path, kind: str) -> None:
    arrays: dict[str, Any] = {"pose": np.arange(COUNT * 3).reshape(COUNT, 3), "age": np.arange(COUNT, dtype=np.float64)}
    path = folder.parent / f"columns.{kind}"
    if kind == "npz":
        np.savez(path, **arrays)
    else:
        save_file(arrays, path)
    data = open_data(section(folder, path, validation=0), "train")
    assert data.info.columns == {"pose": 3, "age": 1}
    assert data.info == data_info(section(folder, path)) and declared_info(section(folder, path)).columns["pose"] == 3
    batch = data.batch(np.array([4, 2]))
    assert batch["pose"].tolist() == [[12, 13, 14], [6, 7, 8]] and batch["age"].tolist() == [[4], [2]]


def test_half_precision_columns(folder: Path) -> None:
    path = folder.parent / "columns.safetensors"
    save_torch_file({"age": torch.arange(COUNT, dtype=torch.bfloat16)}, path)
    data = open_data(section(folder, path), "test")
    assert data.batch(np.arange(3))["age"].tolist() == [[17], [18], [19]]


def test_another_columns_file_is_another_fingerprint(folder: Path) -> None:
    first = open_data(section(folder, written(folder, "\n".join(["a", *["1"] * COUNT]))), "train").fingerprint
    second = open_data(section(folder, written(folder, "\n".join(["a", *["2"] * COUNT]))), "train").fingerprint
    assert first != second


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no rows"),
        ("age\n", "has no rows"),
        ("age\n" + "1\n" * 19, "has 19 rows, but the set has 20 images"),
        ("age\n1\ntwo\n", "has 'two' under 'age' in line 3; give a number"),
        (b"\xef\xbb\xbfage\ntwo\n", "has 'two' under 'age' in line 2"),
        ("age\n1\n\nnan\n", "has 'nan' under 'age' in line 4"),
        ("age\n1\ninf\n", "has 'inf' under 'age' in line 3"),
        ("age\n1_000\n", "has '1_000' under 'age' in line 2"),
        ("age\n1e300\n" + "1\n" * 19, "too large a number in row 0 of vector"),
        ("age,height\n1,2\n3\n", "has 1 values in line 3, not 2 as in its first"),
        ("1,2\n" * 21, "has 21 rows, but the set has 20 images"),
        ("1,two\n" * 20, "has names and numbers in its first line; give a line of names, or none"),
        ("1,nan\n" * 20, "has 'nan' under 'number 2' in line 1"),
        ("1_0\n" * 20, "has '1_0' under 'number 1' in line 1"),
        (",0,1\n" + "7,1,2\n" * 20, "has names and numbers in its first line"),
        ("1,2\n3\n", "has 1 values in line 2, not 2 as in its first"),
        ('age\n"1\n', "has a damaged line"),
        (b"age\n\xff\n", "is not UTF-8 text"),
        ("photo,age\na.png,3\n", "has 'a.png' under 'photo' in line 2"),
    ],
)
def test_tables_that_are_refused(folder: Path, text: str | bytes, sentence: str) -> None:
    path = written(folder, text)
    with pytest.raises(InputError, match=sentence) as error:
        data_info(section(folder, path))
    assert error.value.exit_code == 3 and error.value.field == "data.columns" and str(path) in error.value.message


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (
            {"age": np.where(np.arange(20) == 7, np.nan, 1.0)},
            "holds NaN, infinity or too large a number in row 7 of age",
        ),
        ({"age": np.ones(19)}, "has 19 rows, but the set has 20 images"),
        ({"age": np.ones(20), "pose": np.ones((19, 2))}, "has columns of different lengths"),
        ({"image": np.ones(20)}, "calls a column 'image'"),
        ({"two words": np.ones(20)}, "calls a column 'two words'"),
        ({"age": np.ones((20, 2, 2))}, r"holds \(20, 2, 2\) in age"),
        ({"age": np.array(["a"] * 20)}, "holds <U1 in age"),
        ({"age": np.ones(20, object)}, "holds Python objects"),
        ({}, "holds no columns"),
    ],
)
def test_arrays_that_are_refused(folder: Path, arrays: dict[str, Any], sentence: str) -> None:
    path = folder.parent / "columns.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=sentence):
        data_info(section(folder, path))


def test_files_that_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"is no \.csv, \.npy, \.npz or \.safetensors file"):
        data_info(section(folder, folder.parent / "columns.txt"))
    for name in ("columns.csv", "columns.npy", "columns.npz", "columns.safetensors"):
        with pytest.raises(InputError, match="No such file"):
            data_info(section(folder, folder.parent / name))
    (folder.parent / "bad.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match=r"is damaged or no safetensors file"):
        data_info(section(folder, folder.parent / "bad.safetensors"))


def huge(path: Path) -> None:
    """A header that claims far more than the file holds."""
    np.save(path, np.ones((4, 2)))
    path.write_bytes(path.read_bytes().replace(b"(4, 2), }        ", b"(9999999999, 9), }"))
    assert b"9999999999" in path.read_bytes()


def zipped(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.ones(20))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: np.save(path, np.array([{}, 1], object)), "is damaged or holds no plain array of numbers"),
        (lambda path: path.write_bytes(b"\x80\x04."), "is damaged or holds no plain array of numbers"),
        (lambda path: path.write_bytes(b""), "is damaged or holds no plain array of numbers"),
        (huge, "is damaged or holds no plain array of numbers"),
        (zipped, r"is an \.npz file by another name"),
        (lambda path: np.save(path, np.full(20, np.nan)), "holds NaN"),
        (lambda path: np.save(path, np.array(["a"] * 20)), "holds <U1 in vector"),
        (lambda path: np.save(path, np.ones((20, 2, 2))), r"holds \(20, 2, 2\) in vector"),
    ],
)
def test_npy_files_that_are_refused(folder: Path, make: Any, sentence: str) -> None:
    path = folder.parent / "columns.npy"
    make(path)
    with pytest.raises(InputError, match=sentence) as error:
        data_info(section(folder, path))
    assert error.value.field == "data.columns" and str(path) in error.value.message


def test_a_pipe_is_refused_and_not_waited_for(folder: Path) -> None:
    for suffix in (".csv", ".npy", ".npz", ".safetensors"):
        path = folder.parent / f"pipe{suffix}"
        os.mkfifo(path)
        with pytest.raises(InputError, match="is not a regular file"):
            data_info(section(folder, path))


def test_whoever_named_the_file_is_named_in_the_sentence(folder: Path) -> None:
    with pytest.raises(InputError, match=r"^--vector: .*columns\.csv has no rows") as error:
        read_columns(written(folder, ""), "--vector")
    assert error.value.field == "--vector"
