from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import pytest

from condgen.errors import InputError, MachineError, ModelError, RecipeError
from condgen.files import ASIDE, aside_of, read_regular, write_whole


def test_written_whole_and_never_over_another(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_whole(path, b"one")
    with pytest.raises(RecipeError, match="exists; choose another name or add --force"):
        write_whole(path, b"two")
    assert path.read_bytes() == b"one"
    write_whole(path, b"two", force=True)
    assert path.read_bytes() == b"two" and os.listdir(tmp_path) == ["a.bin"]
    assert ASIDE.fullmatch(aside_of(path).name)


def test_umask_decides_the_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_whole(path, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # one short write, then EFBIG
    try:
        with pytest.raises(MachineError, match="cannot be written"):
            write_whole(path, bytes(200_000), force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("name", ["no/such/folder/a", "b/a", "x" * 300, "a\0b"])
def test_impossible_paths(tmp_path: Path, name: str) -> None:
    (tmp_path / "b").write_text("a file, not a folder")
    with pytest.raises(RecipeError):
        write_whole(tmp_path / name, b"")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is a folder"):
        write_whole(tmp_path, b"", force=True)


def test_a_lying_disk_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "write", lambda descriptor, data: len(data))
    with pytest.raises(MachineError, match="other bytes"):
        write_whole(tmp_path / "a", b"content")
    assert not os.listdir(tmp_path)


def test_a_failing_flush_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(MachineError, match="Input/output error"):
        write_whole(tmp_path / "a", b"content")
    assert len(calls) == 1 and not os.listdir(tmp_path)


def test_reading_refuses_what_is_no_plain_small_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(InputError, match="5 bytes, more than the 4"):
        read_regular(path, 4)
    os.mkfifo(tmp_path / "pipe")
    os.symlink(path, tmp_path / "link")
    for strange in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(InputError, match="not a regular file"):
            read_regular(strange, 100)
    assert read_regular(tmp_path / "link", 5) == b"12345"
    with pytest.raises(ModelError, match="a link"):
        read_regular(tmp_path / "link", 5, error=ModelError, follow_links=False)
    for missing in (tmp_path / "none", Path("a\0b")):
        with pytest.raises(InputError, match="cannot be opened"):
            read_regular(missing, 5)
