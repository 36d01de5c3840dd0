"""Real sets, where they lie beside the repository."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from condgen.data import SPLITS, open_data
from condgen.data.dataset import Dataset
from condgen.recipe.schema import DataSection


def shared_data() -> Path:
    """The folder of packed real sets beside the repository."""
    folder = Path(__file__).parents[2].resolve().parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real data sets beside the repository (../shared/data)")
    return folder


def section(**fields: object) -> DataSection:
    return DataSection.model_validate({"validation": 0.1, **fields})


def all_images(data: Dataset) -> np.ndarray:
    return data.batch(np.arange(len(data)))["image"].numpy()


@pytest.mark.parametrize("name", ["FashionMNIST", "MNIST"])
def test_idx_sets(tmp_path: Path, name: str) -> None:
    (tmp_path / name / "raw").mkdir(parents=True)
    for path in (shared_data() / name / "raw").glob("*.gz"):
        (tmp_path / name / "raw" / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    source = {"FashionMNIST": "fashion_mnist", "MNIST": "mnist"}[name]
    found = {
        split: open_data(section(source=source, root=str(tmp_path), image_size=28, channels=1), split)
        for split in SPLITS
    }
    assert {split: len(data) for split, data in found.items()} == {"train": 54_000, "validation": 6000, "test": 10_000}
    theirs = getattr(datasets, name)(tmp_path, train=False)
    chosen = np.arange(0, 10_000, 997)
    batch = found["test"].batch(chosen)
    for image, label, index in zip(batch["image"], batch["label"], chosen, strict=True):
        picture, target = theirs[int(index)]
        assert np.array_equal(image[0], np.asarray(picture)) and label == target
    assert found["train"].info.classes == tuple(theirs.classes)
    everything = np.concatenate([all_images(found["train"]), all_images(found["validation"])])
    assert (
        everything.astype(np.uint64).sum() == np.asarray(getattr(datasets, name)(tmp_path).data).astype(np.uint64).sum()
    )


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4,000 genuine CIFAR-10 images as a folder, as shards and as arrays."""
    packed = shared_data()
    folder = tmp_path_factory.mktemp("cifar")
    formats = ["folder", "webdataset", "npz"]
    command = [
        sys.executable,
        str(packed / "unpack.py"),
        str(folder),
        "--only",
        "cifar10-lossless",
        "--formats",
        *formats,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "cifar10-lossless"


def test_the_same_photographs_in_three_formats(cifar: Path) -> None:
    roots = {"npz": cifar, "shards": cifar / "webdataset", "folder": cifar}
    for split, count in zip(SPLITS, (3150, 350, 500), strict=True):
        found = {name: open_data(section(source=name, root=str(root)), split) for name, root in roots.items()}
        batches = {name: data.batch(np.arange(len(data))) for name, data in found.items()}
        images, labels = batches["npz"]["image"], batches["npz"]["label"]
        assert len(images) == len(found["folder"]) == count
        assert torch.equal(batches["shards"]["image"], images) and torch.equal(batches["shards"]["label"], labels)
        if split == "test":  # a folder goes class by class, so its drawn splits are others
            order = np.argsort(labels.numpy(), kind="stable")
            assert torch.equal(batches["folder"]["image"], images[order])
            assert torch.equal(batches["folder"]["label"], labels[order])
        assert found["npz"].info == found["shards"].info == found["folder"].info


def test_photographs_are_shrunk_by_area(tmp_path: Path) -> None:
    """The JPEGs of Tiny ImageNet, 64x64, some of them gray: halved, each pixel is the mean of four."""
    with tarfile.open(shared_data() / "tinyimagenet30" / "tinyimagenet30.tar.xz", "r|xz") as tar:
        pictures = []
        for member in tar:
            file = tar.extractfile(member)
            if file is not None and member.name.endswith(".JPEG"):
                pictures.append(file.read())
            if len(pictures) == 300:
                break
    for number, data in enumerate(pictures):
        (tmp_path / f"{number:03d}.jpg").write_bytes(data)
    found = all_images(open_data(section(source="folder", root=str(tmp_path), test=0, validation=0), "train"))
    for image, data in zip(found, pictures, strict=True):
        whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(float)
        mean = whole.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3)).transpose(2, 0, 1)
        assert np.abs(image - mean).max() <= 0.5001
