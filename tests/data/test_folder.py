"""Folders of pictures: layouts, classes, splits, the cache, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from picture_bytes import saved
from PIL import Image

from condgen.data import SPLITS, data_info, data_sizes, open_data
from condgen.data import cache as cache_module
from condgen.data.dataset import Dataset
from condgen.data.framing import Framing, framed
from condgen.errors import InputError, MachineError
from condgen.progress import Progress
from condgen.recipe.schema import DataSection


def put(path: Path, value: int) -> None:
    """A picture whose every pixel is ``value``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(saved(np.full((4, 4, 3), value, np.uint8), "PNG"))


def section(root: Path, **fields: object) -> DataSection:
    return DataSection.model_validate({"source": "folder", "root": str(root), "image_size": 4, **fields})


def values(data: Dataset) -> list[int]:
    return data.batch(np.arange(len(data)))["image"][:, 0, 0, 0].tolist()


def labels(data: Dataset) -> list[int]:
    return data.batch(np.arange(len(data)))["label"].tolist()


def test_splits_and_classes_on_disk(tmp_path: Path) -> None:
    for split, shift in (("train", 0), ("val", 100), ("test", 200)):
        for number in range(3):
            put(tmp_path / split / "cat" / f"{number}.png", shift + number)
            put(tmp_path / split / "Dog" / "deeper" / f"{number}.png", shift + 10 + number)
    for split, shift in (("train", 0), ("validation", 100), ("test", 200)):
        data = open_data(section(tmp_path), split)  # type: ignore[arg-type]
        assert data.info.classes == ("Dog", "cat")  # by bytes: capitals first
        assert values(data) == [shift + v for v in (10, 11, 12, 0, 1, 2)]
        assert labels(data) == [0, 0, 0, 1, 1, 1]
        assert data.split == split


def test_class_folders_without_splits(tmp_path: Path) -> None:
    for number in range(100):
        put(tmp_path / "ab"[number % 2] / f"{number:03d}.png", number)
    found = {split: open_data(section(tmp_path), split) for split in SPLITS}
    assert {split: len(data) for split, data in found.items()} == {"train": 85, "validation": 5, "test": 10}
    together = [value for data in found.values() for value in values(data)]
    assert sorted(together) == list(range(100))  # disjoint, and nothing lost
    for data in found.values():
        assert labels(data) == [value % 2 for value in values(data)]
    again = {split: values(open_data(section(tmp_path), split)) for split in SPLITS}
    assert again == {split: values(data) for split, data in found.items()}
    assert values(open_data(section(tmp_path, split_seed=1), "test")) != again["test"]
    # one share does not move the other
    assert values(open_data(section(tmp_path, validation=0.3), "test")) == again["test"]
    assert values(open_data(section(tmp_path, test=0.3), "validation")) == again["validation"]


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for number in range(20):
        put(tmp_path / f"{number}.png", number)
    data = open_data(section(tmp_path), "train")
    assert data.info.classes == () and "label" not in data.batch(np.arange(3))
    assert data_sizes(section(tmp_path)) == {"train": 17, "validation": 1, "test": 2}


def test_a_flat_folder_with_splits_draws_what_is_missing(tmp_path: Path) -> None:
    for number in range(40):
        put(tmp_path / "train" / f"{number}.png", number)
    put(tmp_path / "test" / "x.png", 200)
    assert values(open_data(section(tmp_path), "test")) == [200]
    validation = values(open_data(section(tmp_path), "validation"))
    train = values(open_data(section(tmp_path), "train"))
    assert len(validation) == 2 and sorted(train + validation) == list(range(40))


def test_classes_of_all_splits_are_joined(tmp_path: Path) -> None:
    """As sets of people are: nobody is in both splits."""
    put(tmp_path / "train" / "ann" / "0.png", 1)
    put(tmp_path / "train" / "cyd" / "0.png", 2)
    put(tmp_path / "test" / "bob" / "0.png", 3)
    train = open_data(section(tmp_path, validation=0), "train")
    test = open_data(section(tmp_path, validation=0), "test")
    assert train.info.classes == test.info.classes == ("ann", "bob", "cyd")
    assert labels(train) == [0, 2] and labels(test) == [1]


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([], "holds no images"),
        (["a.txt"], "holds no images"),
        (["a/1.png", "b/readme.txt"], r"class folder .*b holds no images; remove it"),
        (["1.png", "a/2.png"], r"holds both pictures \(1\.png\) and folders of pictures \(a\)"),
        (["train/a/1.png", "val/a/1.png", "validation/a/1.png"], "has both val and validation"),
        (["train/a/1.png", "test/1.png"], "one split has class folders and another has none"),
    ],
)
def test_layouts_that_are_refused(tmp_path: Path, files: list[str], sentence: str) -> None:
    for file in files:
        put(tmp_path / file, 1)
    for ask in (lambda: open_data(section(tmp_path), "train"), lambda: data_info(section(tmp_path))):
        with pytest.raises(InputError, match=sentence) as error:
            ask()
        assert error.value.exit_code == 3 and error.value.message.endswith(".")


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.root: .*nowhere is no folder"):
        data_info(section(tmp_path / "nowhere"))


def test_a_root_that_is_not_named() -> None:
    nameless = DataSection(source="folder")
    assert data_info(nameless) is None and data_sizes(nameless) is None
    with pytest.raises(InputError, match=r"needs data\.root"):
        open_data(nameless, "train")


def test_only_a_test_split(tmp_path: Path) -> None:
    put(tmp_path / "test" / "a" / "1.png", 5)
    assert values(open_data(section(tmp_path), "test")) == [5]
    with pytest.raises(InputError, match="has no training images"):
        open_data(section(tmp_path), "train")
    with pytest.raises(InputError, match="to draw a validation split from"):
        open_data(section(tmp_path), "validation")


def test_a_share_of_nothing_and_of_all(tmp_path: Path) -> None:
    for number in range(10):
        put(tmp_path / f"{number}.png", number)
    with pytest.raises(InputError, match=r"has no test split; set data\.test above 0"):
        open_data(section(tmp_path, test=0), "test")
    assert len(open_data(section(tmp_path, test=0, validation=0), "train")) == 10
    with pytest.raises(InputError, match="10 training images, of which 10 would be kept"):
        open_data(section(tmp_path, test=0.5, validation=0.5), "train")


def test_the_cache_is_written_once_and_found_again(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        put(tmp_path / f"{number}.png", number)
    first = open_data(section(tmp_path), "train")
    decoded: list[Framing] = []

    def counted(image: Image.Image, framing: Framing) -> tuple[np.ndarray, bool]:
        decoded.append(framing)
        return framed(image, framing)

    monkeypatch.setattr(cache_module, "framed", counted)
    again = open_data(section(tmp_path), "train")
    assert not decoded
    assert values(again) == values(first) and again.fingerprint == first.fingerprint
    assert isinstance(again.pixels, np.memmap)  # not in memory
    # another depth needs no other entry; another size does
    assert open_data(section(tmp_path, bit_depth=2), "train").batch(np.arange(2))["image"].max() <= 3
    assert not decoded
    open_data(section(tmp_path, image_size=2), "train")
    assert len(decoded) == 10
    assert len(list((cache / "images").glob("[!.]*"))) == 2


def test_a_changed_file_is_decoded_again(tmp_path: Path) -> None:
    for number in range(10):
        put(tmp_path / f"{number}.png", number)
    kept = section(tmp_path, test=0, validation=0)
    assert values(open_data(kept, "train")) == list(range(10))
    before = os.stat(tmp_path / "3.png")
    put(tmp_path / "3.png", 203)
    assert os.stat(tmp_path / "3.png").st_size == before.st_size
    os.utime(tmp_path / "3.png", ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copying tool may do
    assert values(open_data(kept, "train"))[3] == 203


def test_the_fingerprint_is_of_names_and_sizes_not_of_the_place(tmp_path: Path) -> None:
    for number in range(10):
        put(tmp_path / "here" / f"{number}.png", number)
        put(tmp_path / "there" / f"{number}.png", number)
    here = open_data(section(tmp_path / "here"), "train")
    assert open_data(section(tmp_path / "there"), "train").fingerprint == here.fingerprint
    assert open_data(section(tmp_path / "here"), "test").fingerprint != here.fingerprint
    assert open_data(section(tmp_path / "here", split_seed=3), "train").fingerprint != here.fingerprint
    assert open_data(section(tmp_path / "here", bit_depth=1), "train").fingerprint != here.fingerprint
    (tmp_path / "there" / "5.png").rename(tmp_path / "there" / "55.png")
    assert open_data(section(tmp_path / "there"), "train").fingerprint != here.fingerprint


@pytest.mark.parametrize("damage", ["no index", "short pixels", "another shape", "empty"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, cache: Path, damage: str) -> None:
    for number in range(10):
        put(tmp_path / f"{number}.png", number)
    first = values(open_data(section(tmp_path), "train"))
    (entry,) = (cache / "images").glob("[!.]*")
    if damage == "no index":
        (entry / "index.json").unlink()
    elif damage == "short pixels":
        data = (entry / "pixels.npy").read_bytes()
        (entry / "pixels.npy").write_bytes(data[:-7])
    elif damage == "another shape":
        np.save(entry / "pixels.npy", np.zeros((9, 3, 4, 4), np.uint8))
    else:
        (entry / "pixels.npy").write_bytes(b"")
    (entry.parent / f".{entry.name}-1-0").mkdir()  # of a process that died while it wrote
    assert values(open_data(section(tmp_path), "train")) == first
    assert [path.name for path in (cache / "images").glob("[!.]*")] == [entry.name]
    assert not list((cache / "images").glob(f".{entry.name}-*"))


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        put(tmp_path / f"{number}.png", number)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(MachineError, match=r"No space left on device.*XDG_CACHE_HOME"):
            open_data(section(tmp_path), "train")
    assert not [path for path in (cache / "images").iterdir() if path.suffix != ".lock"]
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 20}))
        with pytest.raises(MachineError, match=r"1 MiB free, but the decoded images of .* take 64 MiB"):
            open_data(section(tmp_path), "train")
    assert len(open_data(section(tmp_path), "train")) == 9 - 1


def test_a_cache_folder_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "photos" / "a.png", 1)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(MachineError, match="set XDG_CACHE_HOME") as error:
        open_data(section(tmp_path / "photos", test=0, validation=0), "train")
    assert error.value.exit_code == 6


def test_unusable_pictures_are_listed_once_and_move_no_other(
    tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(100):
        put(tmp_path / f"{number:03d}.png", number)
    before = {split: values(open_data(section(tmp_path), split)) for split in SPLITS}
    (tmp_path / "042.png").write_bytes(b"no picture")
    assert capsys.readouterr().err == ""
    after = {split: open_data(section(tmp_path), split) for split in SPLITS}
    assert {split: values(data) for split, data in after.items()} == {
        split: [value for value in kept if value != 42] for split, kept in before.items()
    }
    assert [name for data in after.values() for name, _ in data.skipped] == ["042.png"]
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "1 of 100 images" in said and "042.png: its format is not accepted" in said
    listed = [json.loads(path.read_text()) for path in cache.glob("images/*/index.json")]
    assert next(entry["skipped"] for entry in listed if entry["skipped"])[0][:2] == [42, "042.png"]


def test_how_many_were_resized(tmp_path: Path, cache: Path) -> None:
    """Told by the cache too; an entry that does not know is made anew."""
    for number in range(5):
        put(tmp_path / f"{number}.png", number)
    usual = open_data(section(tmp_path), "train").info
    Image.new("RGB", (usual.width + 1, usual.height)).save(tmp_path / "wide.png")
    for _ in range(2):
        assert open_data(section(tmp_path), "train").resized == 1
    (entry,) = (path for path in cache.glob("images/*/index.json") if json.loads(path.read_text())["resized"] == 1)
    entry.write_text(json.dumps({"images": "", "skipped": []}))
    assert open_data(section(tmp_path), "train").resized == 1


def test_too_many_unusable_pictures(tmp_path: Path, cache: Path) -> None:
    for number in range(98):
        put(tmp_path / f"{number}.png", number)
    for number in range(2):
        (tmp_path / f"bad{number}.png").write_bytes(b"no picture")
    with pytest.raises(
        InputError, match=r"2 of 100 images cannot be used, more than data\.max_skipped \(0\.01\)"
    ) as error:
        open_data(section(tmp_path), "train")
    assert "the first is bad0.png" in error.value.message
    (listed,) = cache.glob("images/*/index.json")
    assert str(listed) in error.value.message
    # the answer may be to allow it: nothing is decoded for that
    assert len(open_data(section(tmp_path, max_skipped=0.02, test=0, validation=0), "train")) == 98


def test_none_usable(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(InputError, match="1 of 1 images cannot be used"):
        open_data(section(tmp_path, max_skipped=0.99, test=0, validation=0), "train")


def test_exact_size_refuses_the_folder(tmp_path: Path) -> None:
    put(tmp_path / "a.png", 1)
    with pytest.raises(InputError, match="it is 4x4 where 8x8 is wanted"):
        open_data(section(tmp_path, image_size=8, fit="exact", test=0, validation=0), "train")


def test_a_lone_byte_order_of_names(tmp_path: Path) -> None:
    """Sorted by bytes, whatever the locale: capitals, then small letters, then what is not ASCII."""
    for value, name in enumerate(["B.png", "Z.png", "a.png", "z.png", "\u00e4.png", "\U0001f600.png"]):
        put(tmp_path / name, value)
    assert values(open_data(section(tmp_path, test=0, validation=0), "train")) == list(range(6))


def test_several_processes_decode_once(tmp_path: Path, cache: Path) -> None:
    """As the ranks of one training do: one decodes, the others wait and find it."""
    for number in range(100):
        put(tmp_path / f"{number:03d}.png", number)
    program = """
import sys, time
from condgen.data import cache, open_data
from condgen.recipe.schema import DataSection
calls = []
write = cache._write
cache._write = lambda *a: (calls.append(1), time.sleep(1), write(*a))
print("ready", flush=True)
sys.stdin.read()  # all start at once
data = open_data(DataSection(source="folder", root=sys.argv[1], image_size=4), "train")
print(len(data), len(calls))
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    said = []
    for process in processes:
        assert process.stdout is not None
        with process.stdout:
            said.append(process.stdout.read().split())
        assert process.wait() == 0
    assert [count for count, _ in said] == ["85", "85"]
    assert sorted(calls for _, calls in said) == ["0", "1"]


def test_an_interruption_leaves_nothing_behind(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(100):
        put(tmp_path / f"{number:03d}.png", number)

    def interrupted(self: object, n: int = 1, **facts: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "advance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_data(section(tmp_path), "train")
    assert not [path for path in (cache / "images").iterdir() if path.suffix != ".lock"]
    assert len(open_data(section(tmp_path), "train")) == 85


def test_a_folder_as_deep_as_paths_can_be(tmp_path: Path) -> None:
    working = os.getcwd()
    put(tmp_path / "photos" / "a" / "good.png", 7)
    try:
        os.chdir(tmp_path / "photos" / "a")
        for _ in range(90):  # 90 x 60 bytes: longer than a path may be
            os.mkdir("d" * 59)
            os.chdir("d" * 59)
        Path("lost.png").write_bytes(b"")
    finally:
        os.chdir(working)
    data = open_data(section(tmp_path / "photos", test=0, validation=0, max_skipped=0.6), "train")
    assert values(data) == [7]
    assert len(data.skipped) == 1 and "File name too long" in data.skipped[0][1]
    subprocess.run(["rm", "-rf", str(tmp_path / "photos")], check=True)  # shutil's own cleaning would not reach


def test_links_that_go_round_inside_a_class(tmp_path: Path) -> None:
    put(tmp_path / "a" / "1.png", 1)
    put(tmp_path / "b" / "deeper" / "2.png", 2)
    (tmp_path / "b" / "deeper" / "back").symlink_to("..")
    (tmp_path / "b" / "up").symlink_to("..")
    data = open_data(section(tmp_path, test=0, validation=0), "train")
    assert values(data) == [1, 2] and labels(data) == [0, 1]


@pytest.mark.parametrize("shown", [1, 3])
def test_pictures_that_come_or_go_while_they_are_read(cache: Path, shown: int) -> None:
    """Two were listed."""
    pictures = [(str(n), lambda: Image.new("L", (4, 4))) for n in range(shown)]
    part = cache_module.PicturePart("a set", 2, lambda: iter(pictures), "", "")
    with pytest.raises(InputError, match=f"a set held 2 images when it was listed and {shown} when it was read"):
        part.load(Framing(1, 4, 4), 0.0)
    assert not [path for path in (cache / "images").iterdir() if path.suffix != ".lock"]
