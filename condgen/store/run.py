"""A run folder while it is written: locked, of one recipe, with its checkpoints, metrics and pictures.

runs/NAME/  recipe.yaml  config.json  checkpoints/  metrics.jsonl  samples/  tensorboard/  status.json
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from condgen.condition import DataInfo
from condgen.errors import ModelError, shown
from condgen.files import ASIDE, sync_folder, unwritable, write_whole
from condgen.recipe import Recipe, recipe_text
from condgen.store.checkpoints import Checkpoint, Checkpoints
from condgen.store.config import CONFIG, config_of, parse_config, read_config
from condgen.store.frozen import write_frozen
from condgen.store.lock import Lock
from condgen.store.sealed import seal, to_json

FREE = {
    "description": None,
    "data": {"root", "download", "max_skipped"},
    "train": {
        *("micro_batch", "max_steps", "max_minutes", "compile", "evaluate_images", "evaluate_every"),
        *("checkpoint_every", "keep_every", "on_nonfinite", "skip_steps", "deterministic", "tensorboard"),
    },
    "sample": None,
}
"""The fields (None: all of a section) that may change when a run goes on; every other one is part of what it is."""


class Run:
    """Opens (or makes) ``folder`` for writing and holds its lock until ``close``.

    Args:
        folder: the run.
        recipe: as resolved now; in a run that exists it may differ in ``FREE`` fields alone.
        info: the data's shape and names.
        fingerprint: identifies the images and their order.
        origin: what the weights were initialised from (``--init-from``), or None.
        warn: told one line about each damaged checkpoint that is passed over.

    Raises:
        MachineError: the run is being written by somebody else, or the disk refuses.
        ModelError: the run belongs to another recipe or other data; the sentence names field, old and new value.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        info: DataInfo,
        fingerprint: str,
        *,
        origin: str | None = None,
        warn: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = {**config_of(recipe, info), "fingerprint": fingerprint, "origin": origin}
        self.checkpoints = Checkpoints(folder / "checkpoints", warn)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / CONFIG).exists() and any(not name.startswith(".") for name in os.listdir(folder)):
                raise ModelError(f"{shown(folder)} holds other files than a run; choose another folder.", file=folder)
            self._lock = Lock(folder / ".lock")
        except (OSError, ValueError) as error:
            raise unwritable(folder, error) from error
        try:
            self._check_belongs()
            self._make(recipe)
            self._metrics = _open_log(folder / "metrics.jsonl")
        except BaseException:
            self._lock.close()
            raise

    def _make(self, recipe: Recipe) -> None:
        """What a killed writer left goes, what a run consists of comes."""
        self.checkpoints.clean()
        write_whole(self.folder / CONFIG, seal(self.facts), force=True)
        write_whole(self.folder / "recipe.yaml", recipe_text(recipe).encode(), force=True)
        try:
            for name in os.listdir(self.folder):
                if ASIDE.fullmatch(name):
                    (self.folder / name).unlink()
            (self.folder / "samples").mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the lock back."""
        os.close(self._metrics)
        self._lock.close()

    def _check_belongs(self) -> None:
        """Judged by the newest manifest that can be read (its big files are not touched yet), else by the config."""
        if not (self.folder / CONFIG).exists():
            return
        found, source = None, self.folder / CONFIG
        for step in reversed(self.checkpoints.steps()):
            try:
                source = self.checkpoints.folder / f"step-{step:08d}"
                found = Checkpoint(source).manifest
                break
            except ModelError:
                continue  # `newest` will say why
        found = found or read_config(self.folder / CONFIG)[2]
        recipe, _ = parse_config(found, source)  # fields that are newer than the run get their defaults
        self.facts["origin"] = self.facts["origin"] or found.get("origin")  # need not be said again
        changed = _first_change(_fixed({**found, "recipe": recipe.model_dump(mode="json")}), _fixed(self.facts))
        if changed:
            field, old, new = changed
            raise ModelError(
                f"{shown(self.folder)} is a run with {field} = {shown(old)[:200]}, not {shown(new)[:200]}; "
                "set it back, or choose another folder (--out).",
                file=self.folder,
                field=field,
            )

    def keep_frozen(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts the weights of frozen encoders into the run, before its first checkpoint."""
        self.facts["frozen"] = write_frozen(self.folder, tensors)

    def save(
        self,
        step: int,
        size: int,
        files: Iterable[tuple[str, bytes]],
        facts: dict[str, Any],
        *,
        replace: bool = False,
    ) -> None:
        """Writes the checkpoint of ``step``; the log is on the disk first, so that no checkpoint knows more than it.

        ``facts``: further keys of the manifest. See ``Checkpoints.write`` for the rest and what is raised.
        """
        try:
            os.fsync(self._metrics)
        except OSError as error:
            raise unwritable(self.folder / "metrics.jsonl", error) from error
        self.checkpoints.write(step, size, files, {**self.facts, **facts}, replace=replace)

    def log(self, line: dict[str, Any]) -> None:
        """Appends one object to ``metrics.jsonl``; numbers keep all their digits."""
        data = json.dumps(line, allow_nan=False).encode() + b"\n"
        try:
            if os.write(self._metrics, data) != len(data):
                raise OSError(28, "No space left on device")
        except OSError as error:
            raise unwritable(self.folder / "metrics.jsonl", error) from error

    def cut_log(self, step: int) -> None:
        """Keeps the lines of ``metrics.jsonl`` up to ``step``; a torn last line goes too."""
        path = self.folder / "metrics.jsonl"
        os.close(self._metrics)
        try:
            kept = [json.dumps(line).encode() + b"\n" for line in read_log(path) if line["step"] <= step]
            write_whole(path, b"".join(kept), force=True)
        finally:
            self._metrics = _open_log(path)

    def note(self, **facts: Any) -> None:
        """Replaces ``status.json``, for schedulers: what the run is doing, its step, exit code and last sentence."""
        write_whole(self.folder / "status.json", to_json(facts), force=True)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a ``metrics.jsonl``; reading ends at the first that is none (a writer was killed there)."""
    lines = []
    for text in path.read_bytes().splitlines(keepends=True):
        try:
            line = json.loads(text)
        except ValueError:
            break
        if not (text.endswith(b"\n") and isinstance(line, dict) and isinstance(line.get("step"), int)):
            break
        lines.append(line)
    return lines


def _open_log(path: Path) -> int:
    new = not path.exists()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        if new:
            sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    return descriptor


def _fixed(facts: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that makes a run what it is."""
    recipe = facts.get("recipe")
    kept: dict[str, Any] = {key: facts.get(key) for key in ("info", "fingerprint", "origin")}
    for section, fields in (recipe if isinstance(recipe, dict) else {}).items():
        free = FREE.get(section, set())
        if free is not None:
            kept[section] = {k: v for k, v in fields.items() if k not in free} if isinstance(fields, dict) else fields
    return kept


def _first_change(old: Any, new: Any, field: str = "") -> tuple[str, Any, Any] | None:
    """(field, old, new) of the first difference, or None."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            changed = _first_change(old.get(key), new.get(key), f"{field}.{key}".lstrip("."))
            if changed:
                return changed
        return None
    return None if old == new else (field, old, new)
