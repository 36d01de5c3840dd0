"""Every test computes with one thread and decodes into a cache folder of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from condgen import progress

# Before torch is imported, and for the processes that tests start: bit for bit equality is promised for equal numbers
# of threads, and tiny models are faster with one.
os.environ["OMP_NUM_THREADS"] = "1"

# A shell has what it starts behind an & ignore interrupts; tests that send them expect what a terminal's programs do.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def loud() -> Iterator[None]:
    """What a command with --quiet leaves behind in this process is put back."""
    yield
    progress.set_quiet(False)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of this test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "condgen"
