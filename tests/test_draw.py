"""Pictures for people: the pixels are where and what they should be."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from condgen import draw
from condgen.errors import MachineError, RecipeError


def noisy(n: int, channels: int, height: int, width: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=n)).integers(0, 256, (n, channels, height, width)).astype(np.uint8)


def contains(picture: Image.Image, part: np.ndarray) -> bool:
    """Whether ``part`` (h, w, 3) lies somewhere in the picture, by looking at every place."""
    pixels = np.asarray(picture)
    h, w = part.shape[:2]
    corners = np.argwhere((pixels == part[0, 0]).all(-1))
    return any(np.array_equal(pixels[y : y + h, x : x + w], part) for y, x in corners)


def enlarged(image: np.ndarray, scale: int) -> np.ndarray:
    """(3, H, W) -> (scale H, scale W, 3), pixel by pixel."""
    _, H, W = image.shape
    out = np.zeros((H * scale, W * scale, 3), dtype=np.uint8)
    for r in range(H * scale):
        for c in range(W * scale):
            out[r, c] = image[:, r // scale, c // scale]
    return out


@pytest.mark.parametrize("bit_depth", range(1, 9))
def test_values_are_spread_over_the_whole_range_and_rounded(bit_depth: int) -> None:
    top = 2**bit_depth - 1
    values = torch.arange(top + 1, dtype=torch.uint8).view(1, 1, 1, -1)
    shown = draw.displayable(values, bit_depth)
    assert shown.dtype == np.uint8 and shown.shape == (1, 1, 1, top + 1)
    assert shown.flatten().tolist() == [math.floor(Fraction(255 * v, top) + Fraction(1, 2)) for v in range(top + 1)]
    assert np.array_equal(draw.displayable(values.numpy(), bit_depth), shown)


def test_a_grid_holds_every_image_in_reading_order() -> None:
    images = noisy(5, 3, 4, 6)
    picture = np.asarray(draw.grid(images, columns=3, scale=2, gap=1))
    assert picture.shape == (2 * (8 + 1) + 1, 3 * (12 + 1) + 1, 3)
    for i, image in enumerate(images):
        y, x = 1 + i // 3 * 9, 1 + i % 3 * 13
        assert np.array_equal(picture[y : y + 8, x : x + 12], enlarged(image, 2))
    assert (picture[10:18, 27:] == 255).all()  # the sixth place is empty


def test_a_grid_chooses_a_square_and_a_comfortable_size() -> None:
    assert draw.grid(noisy(16, 1, 32, 32)).size == (4 * (96 + 4) + 4,) * 2
    assert draw.comfortable_scale(200, 200) == 1
    assert draw.comfortable_scale(8, 8) == 12
    assert draw.comfortable_scale(32, 32, columns=40) == 1


def test_grey_is_grey_and_transparency_lies_over_paper() -> None:
    grey = np.asarray(draw.grid(np.full((1, 1, 2, 2), 77, dtype=np.uint8), scale=1, gap=0))
    assert (grey == 77).all()
    rgba = np.array([[10], [200], [0], [255]], dtype=np.uint8).reshape(1, 4, 1, 1)
    see_through = rgba.copy()
    see_through[0, 3] = 0
    half = rgba.copy()
    half[0, 3] = 51  # a fifth
    pixels = [np.asarray(draw.grid(image, scale=1, gap=0))[0, 0].tolist() for image in (rgba, see_through, half)]
    assert pixels == [[10, 200, 0], [255, 255, 255], [206, 244, 204]]


def test_a_sheet_shows_its_rows_with_their_labels() -> None:
    images = noisy(5, 3, 8, 8)
    picture = draw.sheet([("smile", images[:3]), ("no hat", images[3:])], title="Samples", columns=["a", "b", "c"])
    bare = draw.sheet([("", images[:3]), ("", images[3:])])
    for image in images:
        assert contains(picture, enlarged(image, 12))
        assert contains(bare, enlarged(image, 12))
    assert picture.width > bare.width and picture.height > bare.height
    pixels = np.asarray(picture).astype(int)
    left = pixels[:, : picture.width - bare.width]
    assert (left < 100).any() and (left == 255).mean() > 0.8  # ink on paper
    # each row's label stands beside it: there is ink at the height of both
    bottom = picture.height - draw.MARGIN
    for low, high in ((bottom - 96, bottom), (bottom - 96 - 8 - 96, bottom - 96 - 8)):
        assert (left[low:high] < 100).any()


@pytest.mark.parametrize(
    "label", ["x" * 500, "word " * 200, "\x1b[31mred\n\x00", "Ünïcödé 中文 \ud800", " ", "a\u0301" * 50]
)
def test_any_label_can_be_drawn(label: str) -> None:
    picture = draw.sheet([(label, noisy(1, 1, 2, 2))], title="t" + label[:20], columns=[label])
    assert picture.width < 2000 and picture.height < 400


def test_labels_are_wrapped_and_cut() -> None:
    font = draw._font(15)
    lines = draw._wrapped("one two three four five six seven", font, 100)
    assert " ".join(lines) == "one two three four five six seven" and len(lines) > 1
    assert all(font.getlength(line) <= 100 for line in lines)
    assert len(draw._wrapped("word " * 100, font, 100)) == 4
    assert draw._wrapped("word " * 100, font, 100)[-1].endswith("...")
    assert draw._wrapped("x" * 99, font, 100)[0].endswith("x...")
    assert draw._plain("Müller\n") == "Muller\\n"


def test_heat_grows_darker_with_the_bits() -> None:
    shares = np.linspace(0, 1, 101)[None]
    colours = draw._heat(shares)[:, 0].astype(int)  # (3, 101)
    luma = 0.299 * colours[0] + 0.587 * colours[1] + 0.114 * colours[2]
    assert (np.diff(luma) < 0).all()
    odd = draw._heat(np.array([[2.0, math.inf, math.nan, -1.0]]))[:, 0].T.tolist()
    assert odd == [list(draw.HEAT[-1])] * 3 + [list(draw.HEAT[0])]


def test_a_heat_map_stands_beside_its_image_on_one_scale() -> None:
    images = noisy(2, 3, 16, 16)
    bits = [np.full((16, 16), 10.0), np.zeros((16, 16))]
    picture = draw.heat_maps([("a: 3.1 bits/dim", images[0], bits[0]), ("b: 0.0 bits/dim", images[1], bits[1])])
    assert contains(picture, enlarged(images[0], 12)) and contains(picture, enlarged(images[1], 12))
    for colour in (draw.HEAT[0], draw.HEAT[-1]):
        assert contains(picture, np.broadcast_to(np.array(colour, dtype=np.uint8), (192, 192, 3)))


@pytest.mark.parametrize("bits", [np.zeros((3, 5)), np.full((3, 5), math.inf), np.full((3, 5), 1e-9)])
def test_a_heat_map_of_any_values_can_be_drawn(bits: np.ndarray) -> None:
    draw.heat_maps([("", noisy(1, 1, 3, 5)[0], bits)])


@pytest.mark.parametrize(("value", "above"), [(13.27, 14), (1.0, 1.0), (0.0912, 0.092), (99.5, 100), (7.0, 7.0)])
def test_the_scale_ends_at_a_round_number(value: float, above: float) -> None:
    assert draw._rounded_up(value) == above


def test_ticks_are_round_and_enclose_the_values() -> None:
    assert draw._ticks([0.13, 2.9]) == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert draw._ticks([4.81, 5.93]) == [4.8, 5, 5.2, 5.4, 5.6, 5.8, 6]
    for values in ([], [0.0], [3.0, 3.0], [-5.0], [1e-12, 1e12], [7, 7 + 1e-7]):
        ticks = draw._ticks(values)
        assert 2 <= len(ticks) <= 12 and ticks == sorted(set(ticks))
        assert all(ticks[0] <= value <= ticks[-1] for value in values)


def test_a_curve_passes_where_it_should() -> None:
    picture = np.asarray(draw.curve({"loss": ([0, 5, 10], [0.0, 10.0, 0.0])}, y_label="bits/dim"))
    ink = np.argwhere((picture == draw.SERIES[0]).all(-1))
    top, leftmost, rightmost = ink[ink[:, 0].argmin()], ink[ink[:, 1].argmin()], ink[ink[:, 1].argmax()]
    assert abs(top[1] - (leftmost[1] + rightmost[1]) / 2) <= 3  # the peak is in the middle
    assert abs(leftmost[0] - rightmost[0]) <= 2 and leftmost[0] > top[0] + 200


def test_a_curve_is_interrupted_where_there_is_no_value() -> None:
    def columns(values: list[float]) -> np.ndarray:
        series = {"a": (list(range(5)), values), "b": ([0, 4], [0.0, 0.0]), "c": ([0, 4], [6.0, 6.0])}
        picture = np.asarray(draw.curve(series, title="t", x_label="steps"))
        ink = (picture[100:300] == draw.SERIES[0]).all(-1).any(0)  # below the legend, which has the colour too
        return np.flatnonzero(ink)

    whole, broken = columns([3, 3, 3, 3, 3]), columns([3, 3, math.nan, 3, 3])
    assert len(broken) < 0.6 * len(whole) and broken[-1] == whole[-1]


def test_panels_lie_side_by_side_in_rows() -> None:
    sizes = [(30, 20), (10, 40), (50, 10)]  # width, height
    pictures = [Image.new("RGB", size, (i, 0, 0)) for i, size in enumerate(sizes)]
    whole = np.asarray(draw.panels(pictures, columns=2))
    assert whole.shape == (40 + 10, 50 + 10, 3)
    for i, (x, y) in enumerate([(0, 0), (50, 0), (0, 40)]):
        width, height = sizes[i]
        assert (whole[y : y + height, x : x + width] == (i, 0, 0)).all()
    assert (whole[:, :, 0] > 2).sum() == whole[:, :, 0].size - sum(w * h for w, h in sizes)  # the rest is paper


@pytest.mark.parametrize("series", [{}, {"a": ([], [])}, {"a": ([1], [2])}, {"a": ([1, 2], [math.inf, math.nan])}])
def test_a_curve_of_little_can_be_drawn(series: dict[str, tuple[list[float], list[float]]]) -> None:
    draw.curve(series, title="t", x_label="x", y_label="y")


def test_a_png_appears_whole_and_replaces_nothing_unasked(tmp_path: Path) -> None:
    picture = draw.grid(noisy(2, 3, 4, 4))
    path = tmp_path / "sheet.png"
    draw.save_png(path, picture)
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(picture))
    before = path.read_bytes()
    with pytest.raises(RecipeError, match=r"sheet\.png exists; choose another name or add --force"):
        draw.save_png(path, draw.grid(noisy(3, 3, 4, 4)))
    assert path.read_bytes() == before
    draw.save_png(path, picture, force=True)
    assert path.read_bytes() == before  # the same picture is the same file
    with pytest.raises((RecipeError, MachineError)):
        draw.save_png(tmp_path / "nowhere" / "sheet.png", picture)
    assert [entry.name for entry in tmp_path.iterdir()] == ["sheet.png"]
