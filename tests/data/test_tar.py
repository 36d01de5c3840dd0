"""Our reading of tar headers beside the standard library's, on files of its making, whole and damaged."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from condgen.data.tar import Damaged, members


@contextmanager
def descriptor_of(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def listed(path: Path) -> list[tuple[str, int, int]]:
    with descriptor_of(path) as descriptor:
        return [(member.name, member.offset, member.size) for member in members(descriptor)]


def add(tar: tarfile.TarFile, name: str, data: bytes, kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    tar.addfile(info, io.BytesIO(data))


NAMES = ["a.png", "deep/er/b.cls", "x" * 99, "y" * 100, "z" * 101, "w" * 150 + "/" + "v" * 90, "caf\u00e9.png", "../x"]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_same_members_as_the_standard_library(tmp_path: Path, form: int) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=form) as tar:
        for number, name in enumerate(NAMES):
            if form != tarfile.USTAR_FORMAT or len(name) <= 100:
                add(tar, name, bytes([number]) * (300 * number))
        add(tar, "folder", b"", tarfile.DIRTYPE)
        add(tar, "link", b"", tarfile.SYMTYPE, "/etc/passwd")
        add(tar, "long link", b"", tarfile.LNKTYPE, "t" * 150 if form != tarfile.USTAR_FORMAT else "a.png")
        link = tarfile.TarInfo("link with a size")
        link.size, link.type, link.linkname = 700, tarfile.LNKTYPE, "a.png"
        tar.addfile(link)  # a header alone: whatever it says, nothing follows
        add(tar, "next", b"next")
        add(tar, "device", b"", tarfile.CHRTYPE)
        add(tar, "pipe", b"", tarfile.FIFOTYPE)
        add(tar, "last", b"last")
    with tarfile.open(path, "r:") as tar:
        expected = [(info.name, info.offset_data, info.size) for info in tar if info.isreg()]
    found = listed(path)
    assert found == expected and found[-1][0] == "last"
    data = path.read_bytes()
    assert data[found[-1][1] :][:4] == b"last"


def test_a_size_in_base_256_and_in_a_pax_record(tmp_path: Path) -> None:
    big = 9 << 30  # beyond eleven octal digits
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"{form}.tar"
        info = tarfile.TarInfo("big")
        info.size = big
        header = info.tobuf(form)
        with open(path, "wb") as file:
            file.write(header)
            file.truncate(len(header) + big + 1024)  # sparse
        assert listed(path) == [("big", len(header), big)]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_cut_anywhere_gives_the_members_before_the_cut(tmp_path: Path, form: int) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=form) as tar:
        for number in range(4):
            add(tar, f"{number}" * 120, bytes([number]) * 700)
    whole = listed(path)
    data = path.read_bytes()
    for cut in range(0, len(data), 97):
        path.write_bytes(data[:cut])
        found = []
        with descriptor_of(path) as descriptor:
            try:
                for member in members(descriptor):
                    found.append((member.name, member.offset, member.size))
            except Damaged:
                pass
        assert found == whole[: sum(offset + size <= cut for _, offset, size in whole)]


def test_damaged_bytes_end_in_damaged_or_in_members_within_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for _ in range(3):
            add(tar, "caf\u00e9" * 30, bytes(600))
    data = path.read_bytes()
    chance = np.random.default_rng(0)
    started = time.monotonic()
    for _ in range(600):
        bad = bytearray(data)
        for _ in range(chance.choice([1, 1, 8])):
            bad[chance.integers(len(bad))] = chance.integers(256)
        path.write_bytes(bad)
        with descriptor_of(path) as descriptor:
            try:
                for member in members(descriptor):
                    assert 0 <= member.offset and 0 <= member.size and member.offset + member.size <= len(bad)
            except Damaged:
                pass
    assert time.monotonic() - started < 20


def test_a_record_that_claims_gigabytes_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.size, info.type = 8 << 30, tarfile.XHDTYPE
    path = tmp_path / "a.tar"
    with open(path, "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(9 << 30)
    with pytest.raises(Damaged, match="a header of 8,589,934,592 bytes"):
        listed(path)
