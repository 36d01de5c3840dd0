"""Tar shards: the same pictures as a folder, through an index that is made once."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from picture_bytes import gradient, saved

from condgen.data import SPLITS, data_info, open_data
from condgen.data import shards as shards_module
from condgen.data.dataset import Dataset
from condgen.errors import InputError
from condgen.recipe.schema import DataSection


def put(path: Path, files: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def picture(value: int) -> bytes:
    return saved(np.full((4, 4, 3), value, np.uint8), "PNG")


def pairs(numbers: range, classes: int = 3) -> list[tuple[str, bytes]]:
    return [
        entry for n in numbers for entry in ((f"{n:06d}.png", picture(n)), (f"{n:06d}.cls", str(n % classes).encode()))
    ]


def section(root: Path, **fields: object) -> DataSection:
    return DataSection.model_validate({"source": "shards", "root": str(root), "image_size": 4, **fields})


def values(data: Dataset) -> list[int]:
    return data.batch(np.arange(len(data)))["image"][:, 0, 0, 0].tolist()


def labels(data: Dataset) -> list[int]:
    return data.batch(np.arange(len(data)))["label"].tolist()


def test_splits_by_name_and_the_order_of_shards(tmp_path: Path) -> None:
    put(tmp_path / "set-train-000.tar", pairs(range(20)))
    put(tmp_path / "set-train-001.tar", pairs(range(20, 30)))
    put(tmp_path / "set-test-000.tar", pairs(range(100, 105)))
    train = open_data(section(tmp_path, validation=0), "train")
    assert values(train) == list(range(30)) and labels(train) == [n % 3 for n in range(30)]
    assert values(open_data(section(tmp_path), "test")) == list(range(100, 105))
    assert train.info.classes == ("0", "1", "2")
    drawn = values(open_data(section(tmp_path, validation=0.2), "validation"))
    kept = values(open_data(section(tmp_path, validation=0.2), "train"))
    assert len(drawn) == 6 and sorted(drawn + kept) == list(range(30))


def test_one_tar_without_a_split(tmp_path: Path) -> None:
    put(tmp_path / "a.tar", pairs(range(40)))
    found = [values(open_data(section(tmp_path / "a.tar"), split)) for split in SPLITS]
    assert [len(part) for part in found] == [34, 2, 4] and sorted(v for part in found for v in part) == list(range(40))


def test_the_same_pixels_as_a_folder(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    files = [
        (f"{n:03d}.{kind.lower()}", saved(gradient(*chance.integers(3, 40, 2)), kind))
        for n, kind in enumerate(["PNG", "JPEG"] * 8)
    ]
    (tmp_path / "folder").mkdir()
    for name, data in files:
        (tmp_path / "folder" / name).write_bytes(data)
    put(tmp_path / "a.tar", files)
    options = {"image_size": [6, 8], "validation": 0, "test": 0, "fit": "pad"}
    folder = open_data(section(tmp_path / "folder", source="folder", **options), "train")
    shards = open_data(section(tmp_path / "a.tar", **options), "train")
    everything = np.arange(len(files))
    assert (folder.batch(everything)["image"] == shards.batch(everything)["image"]).all()
    assert "label" not in shards.batch(everything)


def test_class_names_from_a_file(tmp_path: Path) -> None:
    put(tmp_path / "s-train-0.tar", pairs(range(9)))
    put(tmp_path / "s-test-0.tar", pairs(range(9)))
    (tmp_path / "s-classes.txt").write_bytes("\ufeffape\r\nbee\r\ncat\r\n".encode())
    info = data_info(section(tmp_path))
    assert info is not None and info.classes == ("ape", "bee", "cat")


def test_lists_of_classes_that_differ_are_joined(tmp_path: Path) -> None:
    put(tmp_path / "s-train-0.tar", pairs(range(4), 2))
    put(tmp_path / "s-test-0.tar", pairs(range(4), 2))
    (tmp_path / "s-train-classes.txt").write_text("cyd\nann\n")
    (tmp_path / "s-test-classes.txt").write_text("bob\nann\n")
    train = open_data(section(tmp_path, validation=0), "train")
    test = open_data(section(tmp_path), "test")
    assert train.info.classes == test.info.classes == ("ann", "bob", "cyd")
    assert labels(train) == [2, 0, 2, 0] and labels(test) == [1, 0, 1, 0]


def test_the_index_is_made_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "a.tar", pairs(range(40)))
    before = values(open_data(section(tmp_path), "train"))
    walked: list[Path] = []
    walk = shards_module._walk

    def counted(path: Path, descriptor: int) -> list[shards_module.Sample]:
        walked.append(path)
        return walk(path, descriptor)

    monkeypatch.setattr(shards_module, "_walk", counted)
    assert values(open_data(section(tmp_path), "train")) == before and not walked
    put(tmp_path / "a.tar", pairs(range(50)))
    assert len(open_data(section(tmp_path), "train")) == 50 - 5 - 2 and len(walked) == 1
    size = (tmp_path / "a.tar").stat().st_size
    put(tmp_path / "a.tar", pairs(range(50, 100)))  # another shard of the same size, in the same place
    assert (tmp_path / "a.tar").stat().st_size == size
    assert min(values(open_data(section(tmp_path), "train"))) >= 50 and len(walked) == 2
    for index in (cache / "shards").iterdir():
        index.write_bytes(b"{")  # a damaged index is made again
    assert len(open_data(section(tmp_path), "train")) == 43 and len(walked) == 3


def test_what_is_missing_is_skipped_and_counted(tmp_path: Path) -> None:
    files = [
        ("good.png", picture(1)),
        ("good.cls", b"0\n"),
        ("lone.png", picture(2)),
        ("label.cls", b"1"),
        ("bad.jpg", b"no picture"),
        ("bad.cls", b"1"),
        ("good.json", b"{}"),
        ("readme", b"passed over"),
        ("folder/.hidden.png", picture(3)),
        ("twice.png", picture(4)),
        ("twice.png", picture(5)),
        ("twice.cls", b"1"),
        ("../up/path.png", picture(6)),  # a name is only a name
        ("../up/path.cls", b"1"),
    ]
    put(tmp_path / "a.tar", files)
    data = open_data(section(tmp_path, max_skipped=0.9, validation=0, test=0), "train")
    assert values(data) == [1, 6] and labels(data) == [0, 1]
    assert {name: reason.split(";")[0] for name, reason in data.skipped} == {
        "a.tar/lone": "its .cls is missing beside its picture",
        "a.tar/label": "its picture is missing beside its .cls",
        "a.tar/bad": "its format is not accepted (JPEG, PNG, WebP, BMP, GIF, TIFF and PPM are)",
        "a.tar/twice": "it occurs twice in a.tar",
    }
    assert not (tmp_path.parent / "up").exists()


def test_a_shard_that_is_cut_off(tmp_path: Path) -> None:
    put(tmp_path / "a.tar", pairs(range(10)))
    data = (tmp_path / "a.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        place = tar.getmember("000007.png").offset_data
    (tmp_path / "a.tar").write_bytes(data[: place + 20])
    found = open_data(section(tmp_path, max_skipped=0.2, validation=0, test=0), "train")
    assert values(found) == list(range(7))
    assert len(found.skipped) == 1 and "damaged or cut off" in found.skipped[0][1]
    with pytest.raises(InputError, match=r"1 of 8 images cannot be used"):
        open_data(section(tmp_path, validation=0, test=0), "train")


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([("a.png", picture(1)), ("a.cls", b"seven")], r"a\.tar: a\.cls holds b'seven', not a class index"),
        ([("a.png", picture(1)), ("a.cls", b"-1")], r"a\.cls holds -1, which is no class index"),
        ([("a.png", picture(1)), ("a.cls", b"9" * 5000)], "not a class index"),
        ([("a.png", picture(1)), ("a.cls", b"123456")], r"a\.cls holds 123456"),
    ],
)
def test_labels_that_are_none(tmp_path: Path, files: list[tuple[str, bytes]], sentence: str) -> None:
    put(tmp_path / "a.tar", files)
    with pytest.raises(InputError, match=sentence) as error:
        data_info(section(tmp_path))
    assert error.value.exit_code == 3 and str(tmp_path / "a.tar") in error.value.message


def test_a_label_beyond_the_list_of_classes(tmp_path: Path) -> None:
    put(tmp_path / "a.tar", pairs(range(9)))
    (tmp_path / "classes.txt").write_text("ape\nbee\n")
    with pytest.raises(InputError, match=r"classes\.txt: row 2 has the label 2, which is not in 0\.\.1"):
        data_info(section(tmp_path))
    (tmp_path / "classes.txt").write_text("ape\nbee\nape\n")
    with pytest.raises(InputError, match=r"classes\.txt: line 3 is empty or repeats a name"):
        data_info(section(tmp_path))


@pytest.mark.parametrize("data", [b"\x1f\x8b compressed", b"", b"text" * 300])
def test_no_tar_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.tar"):
        open_data(section(tmp_path), "train")


def test_no_shards(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no \.tar files"):
        data_info(section(tmp_path))
    with pytest.raises(InputError, match=r"nowhere cannot be opened \(No such file"):
        data_info(section(tmp_path / "nowhere"))
    put(tmp_path / "a-train.tar", pairs(range(3)))
    put(tmp_path / "b.tar", pairs(range(3)))
    with pytest.raises(InputError, match=r"b\.tar names no split, but others do"):
        data_info(section(tmp_path))
