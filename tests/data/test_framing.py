"""A picture brought to size and channels, beside a slow witness that averages by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from picture_bytes import gradient, saved
from PIL import Image

from condgen.data import open_image
from condgen.data.framing import Framing, framed, luma
from condgen.errors import InputError


def shaped(pixels: np.ndarray, **options: object) -> np.ndarray:
    """(H, W) or (H, W, C) in, (C, H, W) out."""
    return framed(Image.fromarray(pixels), Framing(**options))[0]  # type: ignore[arg-type]


def random_picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(("height", "width", "factor"), [(8, 8, 2), (12, 20, 4), (15, 9, 3)])
def test_shrinking_by_a_whole_factor_takes_the_mean_of_each_block(height: int, width: int, factor: int) -> None:
    picture = random_picture(height, width, 3)
    found = shaped(picture, channels=3, height=height // factor, width=width // factor)
    for row in range(height // factor):
        for column in range(width // factor):
            block = picture[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
            mean = block.reshape(-1, 3).mean(axis=0)
            assert np.abs(found[:, row, column] - mean).max() <= 0.6  # rounded once; a division is a shift


def test_shrinking_by_any_factor_averages_the_area() -> None:
    """A fine chessboard becomes gray, not another chessboard."""
    board = (np.indices((97, 97)).sum(axis=0) % 2 * 255).astype(np.uint8)
    found = shaped(board, channels=1, height=10, width=10)
    assert np.abs(found.astype(int) - 127).max() <= 16


@pytest.mark.parametrize(("height", "width"), [(12, 30), (30, 12), (12, 31), (31, 12)])
def test_crop_cuts_the_middle(height: int, width: int) -> None:
    picture = random_picture(height, width, 3)
    found = shaped(picture, channels=3, height=12, width=12)
    top, left = (height - 12) // 2, (width - 12) // 2
    assert np.array_equal(found.transpose(1, 2, 0), picture[top : top + 12, left : left + 12])


def test_crop_to_an_oblong() -> None:
    picture = random_picture(40, 40)
    found = shaped(picture, channels=1, height=12, width=20)
    assert np.abs(found[0] - picture[8:32].reshape(12, 2, 20, 2).mean(axis=(1, 3))).max() <= 0.5001


def test_pad_never_enlarges() -> None:
    picture = random_picture(4, 6)
    found = shaped(picture, channels=1, height=8, width=8, fit="pad", background=(10, 20, 30))
    assert np.array_equal(found[0, 2:6, 1:7], picture)
    border = np.ones((8, 8), bool)
    border[2:6, 1:7] = False
    assert (found[0][border] == luma(10, 20, 30)).all()


def test_pad_shrinks_what_is_too_large() -> None:
    picture = random_picture(16, 8, 3)
    found = shaped(picture, channels=3, height=8, width=8, fit="pad", background=(1, 2, 3))
    assert (
        np.abs(found[:, :, 2:6] - picture.reshape(8, 2, 4, 2, 3).mean(axis=(1, 3)).transpose(2, 0, 1)).max() <= 0.5001
    )
    assert (found[:, :, :2] == np.array([1, 2, 3])[:, None, None]).all()


@pytest.mark.parametrize(("size", "fits"), [((4, 3), True), ((5, 9), True), ((4, 2), False), ((3, 9), False)])
def test_a_picture_below_the_smallest_size_is_refused(tmp_path: Path, size: tuple[int, int], fits: bool) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[274] = 6  # upright it is as high as the file is wide
    Image.new("RGB", size, (9, 9, 9)).save(path, exif=exif)
    assert open_image(path, 3, 32, 32)[1]
    if fits:
        assert open_image(path, 3, 32, 32, smallest=(4, 3))[0].shape == (3, 32, 32)
        return
    with pytest.raises(InputError) as error:
        open_image(path, 3, 32, 32, smallest=(4, 3))
    sizes = f"it is {size[1]}x{size[0]} where at least 3x4 is wanted; give a larger one."
    assert error.value.message == f"{path} is no usable picture: {sizes}"


def test_exact_refuses_another_size(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(saved(gradient(12, 10), "PNG"))
    assert not open_image(path, 3, 12, 10, fit="exact")[1]
    with pytest.raises(InputError, match=r"10x12 where 32x32 is wanted; set data.fit"):
        open_image(path, 3, 32, 32, fit="exact")


def test_luma_is_that_of_bt_601() -> None:
    colours = random_picture(50, 50, 3)
    found = shaped(colours, channels=1, height=50, width=50)[0]
    assert np.abs(found - colours @ [0.299, 0.587, 0.114]).max() <= 0.51
    assert np.array_equal(found, luma(*colours.astype(np.int32).transpose(2, 0, 1)))


def test_gray_fills_all_colours_and_alpha_is_opaque() -> None:
    picture = random_picture(5, 5)
    assert np.array_equal(shaped(picture, channels=3, height=5, width=5), np.stack([picture] * 3))
    assert np.array_equal(shaped(picture, channels=4, height=5, width=5)[3], np.full((5, 5), 255))


def test_alpha_is_composited_for_three_channels_and_kept_for_four() -> None:
    picture = random_picture(6, 6, 4)
    background = np.array([40, 90, 200])
    alpha = picture[..., 3:] / 255
    expected = picture[..., :3] * alpha + background * (1 - alpha)
    options = {"height": 6, "width": 6, "background": tuple(background.tolist())}
    assert np.abs(shaped(picture, channels=3, **options).transpose(1, 2, 0) - expected).max() <= 1
    assert np.abs(shaped(picture, channels=1, **options)[0] - expected @ [0.299, 0.587, 0.114]).max() <= 2
    assert np.array_equal(shaped(picture, channels=4, **options).transpose(1, 2, 0), picture)


def test_hidden_colours_do_not_bleed_when_alpha_is_kept() -> None:
    """Transparent red beside opaque blue, shrunk: half-transparent blue, no purple."""
    picture = np.zeros((2, 2, 4), np.uint8)
    picture[:, 0] = (255, 0, 0, 0)
    picture[:, 1] = (0, 0, 255, 255)
    red, green, blue, alpha = shaped(picture, channels=4, height=1, width=1)[:, 0, 0]
    assert (red, green, blue) == (0, 0, 255) and alpha in (127, 128)


def test_a_border_with_alpha_composites_to_the_background() -> None:
    picture = random_picture(4, 8, 3)
    options = {"height": 8, "width": 8, "fit": "pad", "background": (7, 8, 9)}
    four = shaped(picture, channels=4, **options)
    assert not four[3, :2].any() and (four[3, 2:6] == 255).all()
    again = framed(Image.fromarray(four.transpose(1, 2, 0)), Framing(3, 8, 8, background=(7, 8, 9)))[0]
    assert np.array_equal(again, shaped(picture, channels=3, **options))


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_bit_depth_keeps_the_upper_bits(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(saved(np.arange(256, dtype=np.uint8).reshape(16, 16), "PNG"))
    image, _ = open_image(path, 1, 16, 16, bit_depth=bits)
    assert image.dtype == torch.uint8
    assert image.flatten().tolist() == [value // 2 ** (8 - bits) for value in range(256)]


def test_enlarging_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(saved(np.full((2, 2, 3), 99, np.uint8), "PNG"))
    image, resized = open_image(path, 3, 16, 16)
    assert resized and (image == 99).all()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.png cannot be opened \(No such file or directory\)") as error:
        open_image(tmp_path / "nowhere.png", 3, 8, 8)
    assert error.value.exit_code == 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_become_the_upper_eight(tmp_path: Path, kind: str) -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    path = tmp_path / "a.img"
    path.write_bytes(saved(values, kind))
    assert np.array_equal(open_image(path, 1, 64, 64)[0][0], values >> 8)
