"""What the tests share: portraits described without drawing them, a small run, condgen's command in a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import condgen
import pytest
from small import SMALL, Command


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
