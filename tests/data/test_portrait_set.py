"""The portraits as a data set: who is in which split, and pictures that do not depend on when they are drawn."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from condgen.data import SPLITS, data_info, data_sizes, open_data, portrait_set
from condgen.data.framing import luma
from condgen.data.portraits import ATTRIBUTES, draw
from condgen.errors import RecipeError
from condgen.recipe.schema import DataSection


def section(**fields: object) -> DataSection:
    return DataSection.model_validate({"image_size": 16, "identities": 80, "views": 3, **fields})


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each call of ``draw`` made."""
    drawn: list[int] = []

    def counting(seed: int, identities: np.ndarray, *rest: Any) -> tuple[np.ndarray, np.ndarray]:
        drawn.append(len(identities))
        return draw(seed, identities, *rest)

    monkeypatch.setattr(portrait_set, "draw", counting)
    return drawn


def test_sizes_and_names_without_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("drawn")

    monkeypatch.setattr(portrait_set, "draw", forbidden)
    info = data_info(section())
    assert info is not None and info.attributes == tuple(ATTRIBUTES) and info.classes == ()
    assert data_sizes(section()) == {"train": 240, "validation": 192, "test": 192}
    assert data_sizes(section(identities=1000))["test"] == 375  # type: ignore[index]
    assert len(open_data(section(), "train")) == 240


def test_identities_do_not_cross_splits() -> None:
    people = [
        set(data.batch(np.arange(len(data)))["label"].tolist())
        for data in (open_data(section(), split) for split in SPLITS)
    ]
    assert [len(part) for part in people] == [80, 64, 64]
    assert len(set.union(*people)) == 208


def test_a_picture_is_what_draw_says_whatever_else_is_drawn() -> None:
    data = open_data(section(split_seed=5), "test")
    indices = np.array([100, 7, 8, 7, 191])
    batch = data.batch(indices)
    for image, attributes, label, index in zip(
        batch["image"], batch["attributes"], batch["label"], indices, strict=True
    ):
        identity, view = (1 << 41) + index // 3, index % 3
        alone, named = draw(5, np.array([identity]), np.array([view]), 16, 16, 2.0)
        assert np.array_equal(image, alone[0]) and np.array_equal(attributes, named[0]) and label == identity


def test_a_second_epoch_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = counted(monkeypatch)
    data = open_data(section(), "train")
    first = data.batch(np.arange(0, 240, 2))
    data.batch(np.arange(240))
    assert drawn == [120, 120]
    again = data.batch(np.arange(0, 240, 2))
    assert drawn == [120, 120]
    for name, value in first.items():
        assert torch.equal(value, again[name])


def test_a_set_too_large_to_keep_is_drawn_anew_and_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = open_data(section(), "train").batch(np.arange(50))
    monkeypatch.setattr(portrait_set, "_KEPT_BYTES", 1000)
    drawn = counted(monkeypatch)
    data = open_data(section(), "train")
    for _ in range(2):
        for name, value in data.batch(np.arange(50)).items():
            assert torch.equal(value, kept[name])
    assert drawn == [50, 50]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels(channels: int) -> None:
    colour = open_data(section(), "train").batch(np.arange(20))["image"].numpy()
    found = open_data(section(channels=channels), "train").batch(np.arange(20))["image"].numpy()
    assert found.shape == (20, channels, 16, 16)
    if channels == 1:
        assert np.array_equal(found[:, 0], luma(*colour.astype(np.int32).transpose(1, 0, 2, 3)))
    else:
        assert np.array_equal(found[:, :3], colour) and (found[:, 3:] == 255).all()


def test_several_threads_get_the_same() -> None:
    expected = open_data(section(), "train").batch(np.arange(240))
    data = open_data(section(), "train")
    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(lambda seed: data.batch(np.random.default_rng(seed).permutation(240)[:60]), range(12)))
    for batch in batches:
        for name, value in batch.items():
            assert torch.equal(value, expected[name][batch["index"]])


def test_the_fingerprint_knows_what_decides_the_pictures() -> None:
    changes: list[dict[str, object]] = [
        {},
        {"split_seed": 1},
        {"identities": 81},
        {"views": 4},
        {"grain": 1.0},
        {"image_size": 20},
    ]
    prints = [open_data(section(**change), "train").fingerprint for change in changes]
    assert len(set(prints)) == len(prints)
    assert open_data(section(), "train").fingerprint == prints[0]


def test_more_pictures_than_there_can_be() -> None:
    with pytest.raises(RecipeError, match=r"data\.identities x data\.views is 8,000,000,000"):
        open_data(section(identities=10**9, views=8), "train")
