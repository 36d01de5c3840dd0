"""What the tests share: portraits described without drawing them, a small run, condgen's command in a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import condgen
import pytest

SMALL = {
    "data.identities": 24,
    "data.views": 2,
    "model.filters": 8,
    "model.layers": 2,
    "model.first_kernel_size": 3,
    "model.map_channels": 4,
    "train.max_steps": 3,
    "train.evaluate_images": 0,
    "sample.count": 2,
}
"""Makes a recipe of minutes one of seconds."""

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def portraits() -> condgen.DataInfo:
    names = ("glasses", "beard", "bald", "long hair", "fringe", "dark hair", "red hair", "blond hair", "grey hair",
             "dark skin", "hat", "smile", "open mouth", "looking left", "looking right")  # fmt: skip
    return condgen.DataInfo(3, 16, 16, attributes=names)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of captions, trained by the recipe's name for three steps."""
    return condgen.train("captions-portraits", SMALL, out=tmp_path_factory.mktemp("runs") / "captions", quiet=True)


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Runs ``python -m MODULE ARGUMENTS`` in a new process, in an empty folder."""

    def started(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", module, *map(str, arguments)]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=os.environ.copy())

    return started
