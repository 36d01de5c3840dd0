"""Entries of the cache folder: folders that appear whole, by a rename, and that one process makes for all."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from condgen.errors import MachineError, shown
from condgen.files import sync_folder

_SPARE_BYTES = 64 << 20


@contextmanager
def one_process(folder: Path) -> Iterator[None]:
    """Of several processes that want the entry ``folder`` one is inside, the others wait and then find it.

    Raises:
        MachineError: the cache folder cannot be written.
    """
    lock = folder.parent / f".{folder.name}.lock"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise MachineError(
            f"{shown(lock)} cannot be made ({error.strerror}); set XDG_CACHE_HOME to a folder that can be written.",
            file=lock,
        ) from error
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: then two may make the same, and the rename decides
            pass
        yield
    finally:
        os.close(descriptor)


@contextmanager
def new_entry(folder: Path, size: int, what: str) -> Iterator[Path]:
    """A folder aside, to be filled; then it takes the place of ``folder``, which may hold a damaged entry.

    Under ``one_process``: what a process that died has left is removed.

    Args:
        size: bytes that it will take.
        what: what is kept there, e.g. ``The decoded images of set``.

    Raises:
        MachineError: no room, or the disk refuses; nothing is left behind.
    """
    aside = folder.parent / f".{folder.name}-{os.getpid()}-{secrets.token_hex(4)}"
    needed = size + _SPARE_BYTES
    try:
        for left in folder.parent.glob(f".{folder.name}-*"):
            shutil.rmtree(left, ignore_errors=True)
        free = shutil.disk_usage(folder.parent).free
        if free < needed:
            raise MachineError(
                f"{shown(folder.parent)} has {free >> 20:,} MiB free, but {what[0].lower()}{what[1:]} take "
                f"{needed >> 20:,} MiB; make room or set XDG_CACHE_HOME to a larger disk.",
                file=folder.parent,
            )
        aside.mkdir()
        try:
            yield aside
            sync_folder(aside)
            if folder.exists():
                os.rename(folder, aside / "old")
            os.rename(aside, folder)
            shutil.rmtree(folder / "old", ignore_errors=True)
            sync_folder(folder.parent)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    except OSError as error:
        raise MachineError(
            f"{what} cannot be kept in {shown(folder.parent)} ({error.strerror}); make room or set XDG_CACHE_HOME to "
            "another folder.",
            file=folder.parent,
        ) from error
