"""What a drawn split consists of: any images, the same share of every class, or whole people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from condgen.data import SPLITS, Dataset, data_sizes, open_data
from condgen.errors import InputError, RecipeError
from condgen.recipe import DataSection

PEOPLE, PICTURES = 20, 6


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(path: Path, people: np.ndarray, first: int = 0) -> None:
    """Pictures of a single value each, so that they can be recognised."""
    values = np.arange(first, first + len(people), dtype=np.uint8)
    np.savez(path, x=np.broadcast_to(values[:, None, None], (len(people), 4, 4)), y=people)


def opened(root: Path, **fields: object) -> list[Dataset]:
    section = DataSection.model_validate(
        {"source": "npz", "root": str(root), "image_size": 4, "channels": 1, "validation": 0.2, "test": 0.3, **fields}
    )
    return [open_data(section, split) for split in SPLITS]


def values(data: Dataset) -> set[int]:
    return set(data.batch(np.arange(len(data)))["image"][:, 0, 0, 0].tolist())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "all.npz", np.random.default_rng(0).permutation(np.repeat(np.arange(PEOPLE), PICTURES)))
    return tmp_path / "all.npz"


def test_whole_people(root: Path) -> None:
    parts = opened(root, split_by="identity")
    people = [set(part.identities.tolist()) for part in parts]
    assert [len(part) for part in people] == [10, 4, 6]
    assert len(set.union(*people)) == PEOPLE  # nobody on two sides
    assert set.union(*map(values, parts)) == set(range(PEOPLE * PICTURES))
    again = opened(root, split_by="identity", split_seed=1)
    assert set(again[2].identities.tolist()) != people[2]


def test_the_same_share_of_every_class(root: Path) -> None:
    parts = opened(root, split_by="class")
    for part, share in zip(parts, (3, 1, 2), strict=True):
        assert np.bincount(part.identities, minlength=PEOPLE).tolist() == [share] * PEOPLE
    assert set.union(*map(values, parts)) == set(range(PEOPLE * PICTURES))


def test_any_images_as_before(root: Path) -> None:
    parts = opened(root)
    assert [len(part) for part in parts] == [60, 24, 36]
    assert max(np.bincount(parts[2].identities)) > 2  # not the same of every class


def test_own_splits_are_kept_or_pooled(tmp_path: Path) -> None:
    folder = tmp_path / "two"
    folder.mkdir()
    write(folder / "train.npz", np.repeat(np.arange(12), 4))
    write(folder / "test.npz", np.repeat(np.arange(12, 20), 4), first=48)
    kept = opened(folder, split_by="identity")
    assert values(kept[2]) == set(range(48, 80)) and len(set(kept[1].identities.tolist())) == 2
    pooled = opened(folder, split_by="identity", own_splits=False)
    assert [len(set(part.identities.tolist())) for part in pooled] == [10, 4, 6]
    assert set.union(*map(values, pooled)) == set(range(80))
    assert any(value < 48 for value in values(pooled[2])) and any(value >= 48 for value in values(pooled[0]))
    assert len({part.fingerprint for part in (*kept, *pooled)}) == 6


def test_columns_follow_their_images_into_the_pool(tmp_path: Path) -> None:
    folder = tmp_path / "two"
    folder.mkdir()
    write(folder / "train.npz", np.repeat(np.arange(12), 4))
    write(folder / "test.npz", np.repeat(np.arange(8), 4), first=48)
    np.savez(tmp_path / "columns.npz", place=np.arange(80, dtype=np.float32)[:, None])
    for part in opened(folder, own_splits=False, columns=str(tmp_path / "columns.npz")):
        batch = part.batch(np.arange(len(part)))
        assert batch["place"][:, 0].tolist() == batch["image"][:, 0, 0, 0].tolist()


def test_without_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "bare.npz", x=np.zeros((30, 4, 4), np.uint8))
    with pytest.raises(InputError, match=r"data\.split_by: .* does not say what or who") as caught:
        opened(tmp_path / "bare.npz", split_by="identity")
    assert caught.value.exit_code == 3
    with pytest.raises(InputError, match="does not say who is in its images"):
        _ = opened(tmp_path / "bare.npz")[0].identities


def test_too_few_people(tmp_path: Path) -> None:
    write(tmp_path / "few.npz", np.repeat(np.arange(2), 20))
    with pytest.raises(InputError, match="has 2 training people, of which 2 would be kept"):
        opened(tmp_path / "few.npz", split_by="identity")


def test_portraits_have_people_of_their_own_in_every_split() -> None:
    section = DataSection.model_validate({"image_size": 16, "identities": 70, "views": 2, "split_by": "identity"})
    assert data_sizes(section) == {"train": 140, "validation": 128, "test": 128}
    with pytest.raises(RecipeError, match="cannot be pooled"):
        open_data(section.model_copy(update={"own_splits": False}), "train")
