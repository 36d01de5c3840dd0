"""The lock of a run folder: one writer at a time, decided by the kernel alone.

A POSIX record lock (``lockf``) dies with its process and is not inherited, so nothing ever goes stale. Its trap:
closing *any* descriptor of the file in the same process drops it; so the file is opened here and nowhere else.
"""

from __future__ import annotations

import datetime
import fcntl
import os
import socket
from pathlib import Path

from condgen.errors import MachineError, shown
from condgen.files import unwritable

_held: set[tuple[int, int]] = set()
"""(device, inode) of the locks of this process, against which a record lock does not protect."""


class Lock:
    """Held from construction to ``close``.

    Raises:
        MachineError: another process (or this one) writes the run; the sentence says who, where and since when.
    """

    def __init__(self, path: Path) -> None:
        busy = f"{shown(path.parent)} is being written by {{}}; wait for it or choose another folder."
        try:
            known = path.stat()
            if (known.st_dev, known.st_ino) in _held:
                raise MachineError(busy.format("this very process"), file=path.parent)
        except FileNotFoundError:
            pass
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise unwritable(path, error) from error
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(self._descriptor, 500).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise MachineError(busy.format(shown(owner) or "another process"), file=path.parent) from error
        since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        text = f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text, 0)  # for people; the kernel's lock is what counts
        found = os.fstat(self._descriptor)
        self._identity = (found.st_dev, found.st_ino)
        _held.add(self._identity)

    def close(self) -> None:
        if self._identity in _held:
            _held.remove(self._identity)
            os.close(self._descriptor)
