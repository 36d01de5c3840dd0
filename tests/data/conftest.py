"""Every test decodes into a cache of its own; real sets are found beside the repository, or the test is skipped."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of this test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "condgen"


@pytest.fixture
def real_data() -> Path:
    """The folder of packed real sets."""
    folder = Path(__file__).parents[2].resolve().parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data sets beside the repository (../shared/data)")
    return folder
