"""Baselines are real files that decode to the very images, over one mosaic."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from condgen.evaluate import baselines as public_baselines
from condgen.evaluate.baselines import baselines, encoded, mosaics

DATA = Path(__file__).parents[3] / "shared" / "data"


def noisy(n: int, channels: int, height: int, width: int, levels: int = 256) -> np.ndarray:
    shape = (n, channels, height, width)
    return np.random.Generator(np.random.Philox(key=n)).integers(0, levels, shape).astype(np.uint8)


@pytest.mark.parametrize(
    ("n", "height", "width", "rows", "columns"),
    [(9, 4, 4, 3, 3), (10, 4, 4, 3, 4), (1, 4, 4, 1, 1), (8, 2, 8, 4, 2), (8, 8, 2, 2, 6),
     (2000, 4, 4, 45, 45), (3, 9, 1, 1, 3)],
)  # fmt: skip
def test_the_mosaic_is_as_square_as_possible_and_in_order(
    n: int, height: int, width: int, rows: int, columns: int
) -> None:
    images = noisy(n, 3, height, width)
    (mosaic,) = mosaics(images)
    assert mosaic.shape == (rows * height, columns * width, 3)
    for i in range(n):  # the slow witness: cut every tile out again
        r, c = divmod(i, columns)
        tile = mosaic[r * height : (r + 1) * height, c * width : (c + 1) * width]
        assert np.array_equal(tile.transpose(2, 0, 1), images[i])
    assert int(mosaic.astype(int).sum()) == int(images.astype(int).sum())  # the rest is blank


def test_more_mosaics_only_where_webp_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    images = noisy(26, 1, 4, 6)
    assert len(mosaics(images)) == 1
    monkeypatch.setattr(sys.modules[mosaics.__module__], "WEBP_SIDE", 17)  # room for 4 rows of 2
    several = mosaics(images)
    assert len(several) == 4
    assert all(max(mosaic.shape[:2]) <= 17 for mosaic in several)
    assert sum(int(mosaic.astype(int).sum()) for mosaic in several) == int(images.astype(int).sum())


@pytest.mark.parametrize("kind", ["png", "webp"])
@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
@pytest.mark.parametrize("bit_depth", [1, 3, 8])
def test_the_files_are_lossless(kind: str, channels: int, mode: str, bit_depth: int) -> None:
    images = noisy(7, channels, 5, 6, 2**bit_depth)
    if channels == 4:
        images[:, 3] *= images[:, 0] > 0  # colours under a transparent pixel count too
    (mosaic,) = mosaics(images)
    picture = Image.open(io.BytesIO(encoded(mosaic, kind, bit_depth)))
    values = np.asarray(picture.convert(mode) if kind == "webp" else picture).reshape(mosaic.shape)
    assert picture.format == kind.upper()
    assert np.array_equal(values.astype(np.uint8), mosaic)


def test_bits_are_those_of_the_files_over_the_images_alone() -> None:
    images = noisy(5, 3, 8, 8)  # a mosaic of 2 x 3, one place blank
    found = baselines(images)
    for kind in ("png", "webp"):
        (mosaic,) = mosaics(images)
        assert found[kind] == 8 * len(encoded(mosaic, kind, 8)) / (5 * 3 * 8 * 8)
        assert (found[kind] or 0) > 7.9  # noise cannot be compressed


def test_binary_grey_gets_a_png_of_one_bit() -> None:
    noise_bits = baselines(noisy(400, 1, 8, 8, 2), bit_depth=1)
    assert noise_bits["png"] == pytest.approx(1, abs=0.1)  # header and a byte a row beside them
    assert noise_bits["webp"] == pytest.approx(1, abs=0.1)
    (mosaic,) = mosaics(noisy(400, 1, 8, 8, 2))
    assert Image.open(io.BytesIO(encoded(mosaic, "png", 1))).mode == "1"


def test_what_the_formats_cannot_hold_has_no_figure() -> None:
    assert baselines(noisy(4, 2, 4, 4)) == {"png": None, "webp": None}
    assert public_baselines is baselines


def test_known_figures_of_real_images() -> None:
    """The first 200 test images, with Pillow 13 and libwebp 1.6. All 10,000: PNG 4.16, WebP 4.04; 2,000: WebP 3.96."""
    file = DATA / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    if not file.exists():
        pytest.skip(f"Fashion-MNIST is not at {file}")
    images = np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:200]
    found = baselines(images)
    assert found["png"] == pytest.approx(4.08, abs=0.05)
    assert found["webp"] == pytest.approx(3.73, abs=0.05)


@pytest.mark.slow  # WebP's greatest effort
def test_known_figures_of_real_photographs() -> None:
    """The last 500 of the 4,000 CIFAR-10 images, in their own order."""
    file = DATA / "cifar10-lossless" / "cifar10-train-003.webp"
    if not file.exists():
        pytest.skip(f"cifar10-lossless is not at {file}")
    pixels = np.asarray(Image.open(file).convert("RGB"))
    tiles = pixels.reshape(pixels.shape[0] // 32, 32, pixels.shape[1] // 32, 32, 3).transpose(0, 2, 4, 1, 3)
    images = tiles.reshape(-1, 3, 32, 32)[-500:]
    found = baselines(images)
    assert found["png"] == pytest.approx(5.65, abs=0.1)
    assert found["webp"] == pytest.approx(4.32, abs=0.1)
