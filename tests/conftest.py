"""Every test computes with one thread and decodes into a cache folder of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before torch is imported, and for the processes that tests start: bit for bit equality is promised for equal numbers
# of threads, and tiny models are faster with one.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of this test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "condgen"
