"""The checkpoints of a run: folders ``step-00012000`` that exist whole or not at all.

Everything is written into a hidden folder beside its final place, flushed, read back, sealed by ``manifest.json``, and
only then renamed. There is no pointer to the newest: it is the highest number whose files fit its manifest.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from condgen.errors import CondgenError, MachineError, ModelError, shown
from condgen.files import read_regular, sync_folder, unwritable, write_new
from condgen.store.sealed import read_sealed, seal

FILES = ("model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json")
MANIFEST = "manifest.json"
FORMAT = 1
_STEP = re.compile(r"step-(\d{8,18})")
_LEFT_OVER = re.compile(r"\.(tmp|trash|old)-(step-\d{8,18})-\d+-[0-9a-f]{8}")
_FILE_LIMIT = 1 << 40
_SPARE = 64 * 2**20


class Checkpoint:
    """A finished checkpoint. Its files are believed only as far as they fit the manifest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.step = int(folder.name.removeprefix("step-"))
        if folder.is_symlink() or not folder.is_dir():
            raise ModelError(f"{shown(folder)} is not a folder of its own.", file=folder)
        path = folder / MANIFEST
        self.manifest = read_sealed(path)
        files = self.manifest.get("files")
        if self.manifest.get("format") != FORMAT:
            raise ModelError(
                f"{shown(path)} has the format {shown(self.manifest.get('format'))}, this condgen reads {FORMAT}; "
                "use the condgen that wrote it.",
                file=path,
            )
        if self.manifest.get("step") != self.step or not isinstance(files, dict) or set(files) != set(FILES):
            raise ModelError(f"{shown(path)} is not the manifest of this checkpoint.", file=path)

    def read(self, name: str) -> bytes:
        """The content of one of ``FILES``.

        Raises:
            ModelError: it is missing, a link, or has another size or hash than the manifest says.
        """
        entry, path = self.manifest["files"][name], self.folder / name
        data = read_regular(path, _FILE_LIMIT, error=ModelError, follow_links=False)
        if {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} != entry:
            raise ModelError(f"{shown(path)} is damaged: its content does not fit {MANIFEST}.", file=path)
        return data

    def verify(self) -> None:
        """Reads every file. Raises ModelError as ``read`` does."""
        for name in FILES:
            self.read(name)


class Checkpoints:
    """The folder ``checkpoints`` of a run.

    Args:
        folder: need not exist; ``write`` makes it.
        warn: told one line about each checkpoint that is passed over.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self.folder = folder
        self._warn = warn
        self._verified: set[int] = set()

    def steps(self) -> list[int]:
        """The steps with a finished checkpoint, damaged or not, rising."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ModelError(f"{shown(self.folder)} cannot be read ({error.strerror}).", file=self.folder) from error
        return sorted(int(match[1]) for name in names if (match := _STEP.fullmatch(name)))

    def open(self, step: int) -> Checkpoint:
        """The checkpoint of ``step``, verified.

        Raises:
            ModelError: there is none, or it is damaged.
        """
        if step not in self.steps():
            known = ", ".join(map(str, self.steps())) or "none"
            raise ModelError(f"{shown(self.folder)} has no checkpoint of step {step} (there is: {known}).")
        checkpoint = Checkpoint(self._place(step))
        checkpoint.verify()
        self._verified.add(step)
        return checkpoint

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that verifies; None where none was ever finished.

        Raises:
            ModelError: there are checkpoints but every one is damaged.
        """
        reasons: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                checkpoint = self.open(step)
            except ModelError as error:
                if os.path.lexists(self._place(step)):  # else a writer has pruned it meanwhile
                    reasons[step] = error.message
                continue
            for damaged, reason in reasons.items():
                self._warn(f"checkpoint {damaged} is passed over: {reason}")
            return checkpoint
        if reasons:
            step, reason = max(reasons.items())
            raise ModelError(
                f"{shown(self.folder)} holds no checkpoint that can be used (of step {step}: {reason.rstrip('.')}); "
                "restore one, or choose another folder to start anew.",
                file=self.folder,
            )
        return None

    def write(
        self,
        step: int,
        size: int,
        files: Iterable[tuple[str, bytes]],
        facts: dict[str, Any],
        *,
        replace: bool = False,
    ) -> None:
        """Makes the checkpoint of ``step``. When it returns, the checkpoint outlives a power cut.

        Args:
            size: bytes of all files, roughly.
            files: (name, content) of every one of ``FILES``.
            facts: further keys of the manifest.
            replace: the place of a good checkpoint of this step is taken; else it is left as it is.

        Raises:
            MachineError: disk full, read-only or broken; the checkpoints that were there are untouched.
        """
        place = self._place(step)
        try:
            if not self.folder.is_dir():
                self.folder.mkdir()
                sync_folder(self.folder.parent)
            good = False
            if os.path.lexists(place):
                try:
                    self.open(step)
                    good = True
                except ModelError as error:
                    self._warn(f"checkpoint {step} is set aside as .broken: {error.message}")
                    os.rename(place, self._unused(f"{place.name}.broken"))
            if good and not replace:
                return  # the same run, step and seed: the same state
            self._check_room(size)
            aside = self._hidden("tmp", step)
            aside.mkdir()
            try:
                entries = {}
                for name, data in files:
                    write_new(aside / name, data)
                    entries[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                write_new(aside / MANIFEST, seal({"format": FORMAT, "step": step, **facts, "files": entries}))
                sync_folder(aside)
                old = self._hidden("old", step)
                if good:
                    os.rename(place, old)  # `clean` brings it back if the process dies here
                try:
                    os.rename(aside, place)
                except OSError:
                    if good:
                        os.rename(old, place)
                    raise
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise
            sync_folder(self.folder)
            if good:
                shutil.rmtree(old)
        except OSError as error:
            raise _unsaved(place, error) from error
        self._verified.add(step)  # every file was read back

    def prune(self, best: int | None, keep_every: int | None) -> None:
        """Removes all but the two newest that verify, ``best``, and the multiples of ``keep_every``."""
        newest: list[int] = []
        for step in reversed(self.steps()):
            if len(newest) < 2 and self._verifies(step):
                newest.append(step)
        if len(newest) == 2:
            kept: Collection[int | None] = {*newest, best}
            self._remove(s for s in self.steps() if s not in kept and not (keep_every and s % keep_every == 0))

    def clean(self) -> None:
        """Removes what a killed writer left half made or half removed. Only under the run's lock."""
        try:
            for name in os.listdir(self.folder):
                if (match := _LEFT_OVER.fullmatch(name)) is None:
                    continue
                if match[1] == "old" and not os.path.lexists(self.folder / match[2]):
                    os.rename(self.folder / name, self.folder / match[2])
                else:
                    shutil.rmtree(self.folder / name)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def _place(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def _hidden(self, kind: str, step: int) -> Path:
        return self.folder / f".{kind}-step-{step:08d}-{os.getpid()}-{secrets.token_hex(4)}"

    def _unused(self, name: str) -> Path:
        path, number = self.folder / name, 1
        while os.path.lexists(path):
            number += 1
            path = self.folder / f"{name}-{number}"
        return path

    def _verifies(self, step: int) -> bool:
        if step not in self._verified:
            try:
                self.open(step)
            except ModelError:
                return False
        return True

    def _remove(self, steps: Iterable[int]) -> None:
        """Out of sight first: a half-removed folder never looks like a checkpoint."""
        try:
            for step in list(steps):
                trash = self._hidden("trash", step)
                os.rename(self._place(step), trash)
                sync_folder(self.folder)
                shutil.rmtree(trash)
                self._verified.discard(step)
        except OSError as error:
            raise _unsaved(self.folder, error) from error

    def _check_room(self, size: int) -> None:
        room = os.statvfs(self.folder)
        needed = int(1.2 * size) + _SPARE
        # some file systems count no inodes: they say 0 of 0
        if room.f_bavail * room.f_frsize < needed or (room.f_files and room.f_favail < 32):
            raise OSError(
                errno.ENOSPC, f"{needed >> 20} MiB are needed, {room.f_bavail * room.f_frsize >> 20} are free"
            )


def _unsaved(path: Path, error: OSError) -> CondgenError:
    return MachineError(
        f"{shown(path)} cannot be saved ({error.strerror or error}); earlier checkpoints are untouched: "
        "make room or mend the disk, and run the same command again.",
        file=path,
    )
