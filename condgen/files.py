"""Files on disk: written whole or not at all, and read without trusting what lies there.

A file appears under its name only after its bytes were written aside, flushed to the disk and read back.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

from condgen.errors import CondgenError, InputError, MachineError, RecipeError, shown

_THE_NAME = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EISDIR, errno.EEXIST, errno.ELOOP}
"""Errors of a path that a person gave; every other one is the machine's."""


ASIDE = re.compile(r"\.condgen-\d+-[0-9a-f]{8}\.tmp")
"""The names under which files are written before they get their own: what a killed process may leave behind."""


def aside_of(path: Path) -> Path:
    """An unused name in the folder of ``path``, so that the rename to it cannot cross file systems."""
    return path.parent / f".condgen-{os.getpid()}-{secrets.token_hex(4)}.tmp"


def unwritable(path: Path, error: OSError | ValueError) -> CondgenError:
    """The sentence for a failed write at ``path``; a ValueError is a NUL in the name."""
    if isinstance(error, ValueError):
        return RecipeError(f"{shown(path)} is not a possible name; choose another.", file=path)
    reason = error.strerror or type(error).__name__
    if error.errno in _THE_NAME:
        return RecipeError(f"{shown(path)} cannot be written ({reason}); check the folder and the name.", file=path)
    return MachineError(f"{shown(path)} cannot be written ({reason}); make room or choose another folder.", file=path)


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/condgen``, or ``~/.cache/condgen``; made where it is missing.

    Raises:
        MachineError: it cannot be made.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "condgen"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: no home
        reason = getattr(error, "strerror", None) or str(error)
        raise MachineError(
            f"The cache folder cannot be made ({reason}); set XDG_CACHE_HOME to a folder that can be written."
        ) from error
    return folder


def write_new(path: Path, data: bytes) -> None:
    """Creates ``path`` with ``data``, on the disk before it returns, and reads it back.

    Raises:
        OSError: as the system says, ``FileExistsError`` included; EIO when the file holds other bytes than were
            written (a disk that lies about a write leaves no other trace).
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)  # never retried: after a failure the kernel may call lost pages clean
        os.lseek(descriptor, 0, os.SEEK_SET)
        if _read_all(descriptor, len(data)) != data:
            raise OSError(errno.EIO, "other bytes were found than were written", str(path))
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Brings the names in ``folder`` to the disk: a rename is durable only after this.

    Raises:
        OSError: as the system says.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, data: bytes, *, force: bool = False) -> None:
    """``path`` holds ``data`` in the end, or what it held before; never a part.

    Raises:
        RecipeError: ``path`` exists and ``force`` is off, or the path cannot be one (no such folder).
        MachineError: the disk is full, read-only or broken, or permission is missing.
    """
    if os.path.lexists(path) and not force:
        raise RecipeError(f"{shown(path)} exists; choose another name or add --force.", file=path)
    if os.path.isdir(path):
        raise RecipeError(f"{shown(path)} is a folder; choose the name of a file.", file=path)
    aside = aside_of(path)
    try:
        try:
            write_new(aside, data)
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except (OSError, ValueError) as error:
        raise unwritable(path, error) from error


def remove(path: Path) -> None:
    """Removes a file where it is there.

    Raises:
        MachineError: it cannot be removed, e.g. as permission is missing.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def write_folder(
    folder: Path, files: Iterable[tuple[str, bytes]], ours: re.Pattern[str], *, force: bool = False
) -> None:
    """``folder`` holds ``files`` (name, content) in the end, or what it held before.

    Args:
        ours: what such a folder's files are called: with ``force`` one that holds nothing else is replaced.

    Raises:
        RecipeError: see ``check_folder``.
        MachineError: the disk is full, read-only or broken, or permission is missing.
    """
    check_folder(folder, ours, force=force)
    aside, old = aside_of(folder), aside_of(folder)
    try:
        aside.mkdir()
        try:
            for name, data in files:
                write_new(aside / name, data)
            sync_folder(aside)
            if os.path.lexists(folder):
                os.rename(folder, old)
            os.rename(aside, folder)
        except BaseException:
            if os.path.lexists(old) and not os.path.lexists(folder):
                os.rename(old, folder)
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        sync_folder(folder.parent)
    except (OSError, ValueError) as error:
        raise unwritable(folder, error) from error


def check_folder(folder: Path, ours: re.Pattern[str], *, force: bool = False) -> None:
    """Raises:
    RecipeError: ``folder`` exists, and ``force`` is off or it holds other files than ``ours``.
    """
    if not os.path.lexists(folder):
        return
    if not force:
        raise RecipeError(f"{shown(folder)} exists; choose another name or add --force.", file=folder)
    if folder.is_symlink() or not folder.is_dir() or not all(map(ours.fullmatch, os.listdir(folder))):
        raise RecipeError(
            f"{shown(folder)} holds other files than pictures of this kind; choose another name.", file=folder
        )


def open_regular(path: Path, *, error: type[CondgenError] = InputError, follow_links: bool = True) -> int:
    """A descriptor, for reading, of a regular file; a pipe, device or folder is refused, not waited for.

    Raises:
        InputError: (or ``error``) the file is missing, unreadable or not regular; with ``follow_links`` off also when
            it is a link.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as problem:  # ValueError: a NUL in the name
        link = isinstance(problem, OSError) and problem.errno == errno.ELOOP
        reason = "a link" if link else getattr(problem, "strerror", None) or "not a possible name"
        raise error(f"{shown(path)} cannot be opened ({reason}); check the path.", file=path) from problem
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise error(f"{shown(path)} is not a regular file; give the path of one.", file=path)
    return descriptor


def read_regular(path: Path, limit: int, *, error: type[CondgenError] = InputError, follow_links: bool = True) -> bytes:
    """The bytes of a regular file of at most ``limit`` bytes.

    Raises:
        InputError: (or ``error``) as ``open_regular``; the file is too large, or changed while it was read.
    """
    descriptor = open_regular(path, error=error, follow_links=follow_links)
    try:
        size = os.fstat(descriptor).st_size
        if size > limit:
            raise error(
                f"{shown(path)} has {size:,} bytes, more than the {limit:,} allowed; give a smaller file.", file=path
            )
        data = _read_all(descriptor, size)
    except OSError as problem:
        raise error(f"{shown(path)} cannot be read ({problem.strerror}); check the disk.", file=path) from problem
    finally:
        os.close(descriptor)
    if len(data) != size:
        raise error(f"{shown(path)} changed while it was read; try again when it is finished.", file=path)
    return data


def _read_all(descriptor: int, size: int) -> bytes:
    """Up to ``size`` + 1 bytes: one more than expected shows that the file has grown."""
    parts = []
    left = size + 1
    while left > 0 and (part := os.read(descriptor, min(left, 1 << 24))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
