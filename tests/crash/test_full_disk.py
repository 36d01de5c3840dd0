"""A disk that fills up: exit 6, the checkpoints that were there stay good, and with room it goes on to the same end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_run import StopAfter, contents, tiny_recipe

from condgen.errors import Interrupted, MachineError
from condgen.store import checkpoints
from condgen.store.checkpoints import Checkpoints
from condgen.train.run import run_training


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_full_disk(small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe = tiny_recipe(tmp_path)
    run_training(recipe, out=tmp_path / "whole", quiet=True)
    run = small_disk / "run"
    monkeypatch.setattr(checkpoints, "_SPARE", -1 << 40)  # leave it to the system calls
    with pytest.raises(Interrupted):
        run_training(tiny_recipe(tmp_path), out=run, quiet=True, signals=StopAfter(3))
    with monkeypatch.context() as normal:
        normal.setattr(checkpoints, "_SPARE", 1 << 26)
        with pytest.raises(MachineError, match="64 MiB are needed, 1 are free"):  # noticed beforehand
            run_training(recipe, out=run, quiet=True)
    for room in (0, 4096, 20_000, 60_000):
        free = os.statvfs(small_disk)
        (small_disk / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize - room))
        with pytest.raises(MachineError, match="No space left on device") as caught:
            run_training(recipe, out=run, quiet=True)
        assert caught.value.exit_code == 6
        (small_disk / "ballast").unlink()
        newest = Checkpoints(run / "checkpoints", print).newest()
        assert newest is not None and newest.step >= 3
        assert len(list((run / "checkpoints").glob("step-*"))) <= 3
    run_training(recipe, out=run, quiet=True)
    assert contents(run) == contents(tmp_path / "whole")
    assert not [name for name in os.listdir(run / "checkpoints") if name.startswith(".")]
