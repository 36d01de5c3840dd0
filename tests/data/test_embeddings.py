"""What a frozen encoder makes of a data set is kept on disk: made once, whole, and anew where anything differs."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from condgen.condition import Batch, Condition, DataInfo, Encoder, Options
from condgen.data import Dataset, open_data
from condgen.data.embeddings import with_conditions
from condgen.data.pairs import Pairs
from condgen.errors import MachineError, ModelError
from condgen.recipe.schema import DataSection

COUNT, DEVICE = 75, torch.device("cpu")


class Frozen(Encoder):
    """Projects an image onto three directions, and gives it back as a map; counts the images it sees."""

    reads = ("image",)
    vector_size = 3
    map_channels = 1
    frozen = True
    directions: torch.Tensor

    def __init__(self, info: DataInfo, seed: int = 0, **options: Any) -> None:
        super().__init__(Options(), info)
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("directions", torch.randn(info.dimensions, 3, generator=generator))
        self.seen = 0
        self.freeze()

    def encode(self, batch: Batch) -> Condition:
        x = batch["image"].to(self.directions.dtype)
        self.seen += len(x)
        return Condition(x.flatten(1) @ self.directions, x)


@pytest.fixture
def images(tmp_path: Path) -> Dataset:
    folder = tmp_path / "data"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 4, 5), dtype=np.uint8)
    np.savez(folder / "train.npz", x=pixels, y=np.arange(COUNT) // 3)
    section = {"source": "npz", "root": str(folder), "image_size": [4, 5], "channels": 1, "bit_depth": 3}
    return open_data(DataSection.model_validate(section | {"validation": 0.0, "test": 0.0}), "train")


def entries(cache: Path) -> list[Path]:
    return [path for path in (cache / "embeddings").iterdir() if not path.name.startswith(".")]


def test_made_once_and_equal_to_what_the_encoder_says(images: Dataset, cache: Path) -> None:
    encoder = Frozen(images.info)
    embedded = with_conditions(images, encoder, DEVICE)
    assert encoder.seen == 96  # three batches of 32, the last one filled up
    again = with_conditions(images, encoder, DEVICE)
    assert encoder.seen == 96 and len(entries(cache)) == 1
    batch = again.batch(np.array([74, 3, 3]))
    found, said = encoder(batch), encoder(images.batch(np.array([74, 3, 3])))
    assert encoder.seen == 96 + 3  # only where the batch did not bring the condition along
    assert torch.equal(found.map, said.map)
    torch.testing.assert_close(found.vector, said.vector)
    assert found.vector.dtype == torch.float32 and torch.equal(
        batch["image"], images.batch(batch["index"].numpy())["image"]
    )
    assert torch.equal(embedded.batch(np.arange(COUNT))["h.vector"], again.batch(np.arange(COUNT))["h.vector"])


def test_the_same_numbers_however_many_images_there_are(images: Dataset) -> None:
    encoder = Frozen(images.info)
    few = replace(images, rows=images.rows[:33], stamp="fewer")
    whole = with_conditions(images, encoder, DEVICE).batch(np.arange(33))
    assert torch.equal(with_conditions(few, encoder, DEVICE).batch(np.arange(33))["h.vector"], whole["h.vector"])


def test_anything_else_is_another_entry(images: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_conditions(images, Frozen(images.info), DEVICE)
    others: list[tuple[Dataset, Encoder]] = [
        (images, Frozen(images.info, seed=1)),
        (images, Frozen(images.info).double()),
        (replace(images, stamp="of files that were changed"), Frozen(images.info)),
    ]
    for number, (data, encoder) in enumerate(others, 2):
        with_conditions(data, encoder, DEVICE)
        assert len(entries(cache)) == number
    monkeypatch.setattr(Frozen, "version", 2)
    with_conditions(images, Frozen(images.info), DEVICE)
    assert len(entries(cache)) == len(others) + 2


def test_files_that_were_changed_are_encoded_anew(images: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "data" / "train.npz"
    data = np.load(path)
    np.savez(path, x=data["x"][::-1], y=data["y"])  # the same names and sizes
    section = {"source": "npz", "root": str(path.parent), "image_size": [4, 5], "channels": 1, "bit_depth": 3}
    changed = open_data(DataSection.model_validate(section | {"validation": 0.0, "test": 0.0}), "train")
    assert changed.fingerprint == images.fingerprint and changed.stamp != images.stamp


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "index"])
def test_a_damaged_entry_is_made_anew(images: Dataset, cache: Path, damage: str) -> None:
    encoder = Frozen(images.info)
    good = with_conditions(images, encoder, DEVICE).batch(np.arange(COUNT))
    (entry,) = entries(cache)
    path = entry / ("index.json" if damage == "index" else "vector.npy")
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "flipped":
        data[-3] ^= 4
        path.write_bytes(data)
    else:
        path.write_bytes(data[:-7])
    (entry.parent / f".{entry.name}-1-0").mkdir()  # of a process that died while it wrote
    anew = with_conditions(images, encoder, DEVICE).batch(np.arange(COUNT))
    assert encoder.seen == 2 * 96 and torch.equal(good["h.vector"], anew["h.vector"])
    assert sorted(path.name for path in (cache / "embeddings").iterdir()) == [f".{entry.name}.lock", entry.name]


def test_a_full_disk_is_a_sentence(images: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    encoder = Frozen(images.info)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(MachineError, match=r"encoder Frozen makes cannot be kept .*No space left.*XDG_CACHE_HOME"):
            with_conditions(images, encoder, DEVICE)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 20}))
        with pytest.raises(MachineError, match=r"1 MiB free, but the conditions that .* take 64 MiB") as caught:
            with_conditions(images, encoder, DEVICE)
    assert caught.value.exit_code == 6 and not entries(cache)
    with_conditions(images, encoder, DEVICE)
    assert len(entries(cache)) == 1


def test_an_interruption_leaves_nothing(images: Dataset, cache: Path) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        with_conditions(images, Frozen(images.info), DEVICE, between=stop)
    assert not entries(cache) and not list((cache / "embeddings").glob(".*-*"))


def test_the_image_that_becomes_nan_is_named(images: Dataset, cache: Path) -> None:
    class Odd(Frozen):
        def encode(self, batch: Batch) -> Condition:
            condition = super().encode(batch)
            x = batch["image"].float().flatten(1)[:, :3]
            return Condition(torch.where(batch["index"][:, None] == 41, torch.nan, x), condition.map)

    with pytest.raises(ModelError, match="Odd makes NaN or infinity of image 41 of the train split"):
        with_conditions(images, Odd(images.info), DEVICE)
    assert not entries(cache)


def test_pairs_look_up_the_condition_of_the_source(images: Dataset) -> None:
    encoder = Frozen(images.info)
    plain = with_conditions(images, encoder, DEVICE)
    paired = replace(images, pairs=Pairs(images.identities))
    embedded = with_conditions(paired, encoder, DEVICE)
    assert encoder.seen == 96  # the entry is of images, whoever is paired with whom
    batch = embedded.batch(np.arange(COUNT))
    assert not (batch["source"] == batch["index"]).any() and torch.equal(batch["source"] // 3, batch["index"] // 3)
    assert torch.equal(batch["h.vector"], plain.batch(batch["source"].numpy())["h.vector"])
    assert "source.image" not in batch
    encoder(batch)
    assert encoder.seen == 96


def test_an_encoder_that_learns_keeps_nothing(images: Dataset, cache: Path) -> None:
    class Learning(Frozen):
        def freeze(self) -> None:
            pass

    assert with_conditions(images, Learning(images.info), DEVICE) is images
    assert not (cache / "embeddings").exists()


def test_what_the_entry_was_made_of_is_written_beside_it(images: Dataset, cache: Path) -> None:
    with_conditions(images, Frozen(images.info), DEVICE)
    index = json.loads((entries(cache)[0] / "index.json").read_bytes())
    assert index["encoder"].endswith(":Frozen") and index["images"] == images.fingerprint
    assert set(index["sha256"]) == {"vector", "map"}
