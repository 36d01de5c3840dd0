"""Faces in photographs of every kind end at their places in the frame, or in one sentence."""

from __future__ import annotations

import io
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from photos import BOX, astronaut, group, head, saved
from picture_bytes import exif
from PIL import Image

from condgen.data import open_face, photographs
from condgen.data.alignment import MEAN_BOX, MEAN_POINTS, aligned
from condgen.data.faces import Face, find_faces
from condgen.errors import InputError, MachineError, RecipeError


def put(folder: Path, data: bytes, name: str = "photo") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def crop_of(path: Path, side: int = 32, **options: object) -> np.ndarray:
    """float (H, W, C)."""
    image, _ = open_face(path, 3, side, side, **options)  # type: ignore[arg-type]
    return image.numpy().transpose(1, 2, 0).astype(float)


def inner(crop: np.ndarray) -> np.ndarray:
    """The head in 5x4 blocks: what one crop shares with another in which the face lies a pixel beside."""
    side = len(crop) // 8
    return crop.reshape(8, side, 8, side, -1).mean((1, 3))[2:7, 2:6]


def far(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference of two crops, in levels: below 8 for the same view of a face, above 20 for another."""
    return float(np.abs(inner(a) - inner(b)).mean())


def map_of_places(width: int, height: int) -> Image.Image:
    """A picture whose red and green say where a pixel is."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return Image.fromarray((np.stack([x, y, 0 * x], -1) * 255).round().astype(np.uint8))


@pytest.mark.parametrize("angle", [0.0, 0.6, -1.9])
@pytest.mark.parametrize("scale", [0.4, 1.0, 3.3, 11.0])
@pytest.mark.parametrize(("height", "width"), [(24, 24), (20, 32)])
def test_a_crop_shows_what_its_similarity_says(angle: float, scale: float, height: int, width: int) -> None:
    """The witness: every pixel's place in the picture, computed one by one with sine and cosine."""
    side = min(height, width)

    def place(x: float, y: float) -> tuple[float, float]:
        x, y = scale * (x - width / 2), scale * (y - height / 2)
        return 300 + math.cos(angle) * x - math.sin(angle) * y, 260 + math.sin(angle) * x + math.cos(angle) * y

    points = [(width / 2 + (u - 0.5) * side, height / 2 + (v - 0.5) * side) for u, v in MEAN_POINTS]
    face = Face((0, 0, 1, 1), np.array([place(x, y) for x, y in points]))
    crop, beyond = aligned(map_of_places(640, 560), face, height, width)
    assert crop.size == (width, height) and beyond == 0
    seen = np.asarray(crop).astype(float)
    for row in range(height):
        for column in range(width):
            x, y = place(column + 0.5, row + 0.5)
            assert abs(seen[row, column, 0] - 255 * x / 640) < 1.3, (row, column)
            assert abs(seen[row, column, 1] - 255 * y / 560) < 1.3, (row, column)


def test_beyond_the_edge_the_edge_is_repeated() -> None:
    points = np.array(MEAN_POINTS) * 20 + [-10, 0]  # the frame reaches from -10 to 10 across, from 0 to 20 down
    picture = map_of_places(40, 40)
    crop, beyond = aligned(picture, Face((0, 0, 1, 1), points), 20, 20)
    assert beyond == 0.5
    seen, there = np.asarray(crop).astype(int), np.asarray(picture).astype(int)[:20]
    assert np.abs(seen[:, 10:] - there[:, :10]).max() <= 1  # half a pixel would be 3
    assert np.abs(seen[:, :10] - there[:, :1]).max() <= 1


def test_points_land_on_their_mean_positions() -> None:
    picture = astronaut()
    (face,) = find_faces(picture)
    assert face.probability > 0.999 and np.allclose(face.box, BOX, atol=1)
    crop, _ = aligned(picture, face, 160, 160)
    (again,) = find_faces(crop)
    assert again.points is not None
    assert np.abs(again.points / 160 - MEAN_POINTS).max() < 0.06  # a face is not the mean face
    assert np.abs((again.points / 160 - MEAN_POINTS).mean(0)).max() < 0.03
    assert np.abs(np.array(again.box) / 160 - MEAN_BOX).max() < 0.06


@pytest.mark.parametrize("angle", [-25, 15, 25])
def test_a_tilted_and_enlarged_photograph_gives_the_same_crop(tmp_path: Path, angle: int) -> None:
    tilted = astronaut().resize((700, 700), Image.Resampling.BICUBIC).rotate(angle, Image.Resampling.BICUBIC)
    straight = crop_of(put(tmp_path, saved(astronaut(), "PNG")), 64)
    crop = crop_of(put(tmp_path, saved(tilted, "PNG"), "tilted"), 64)
    turned = np.asarray(Image.fromarray(straight.astype(np.uint8)).rotate(angle), dtype=float)
    assert far(crop, straight) < 8 < far(turned, straight)


ORIENTED = {"upside down": (3, Image.Transpose.ROTATE_180), "camera on its side": (6, Image.Transpose.ROTATE_90)}


def photo_of(kind: str) -> bytes:
    picture = astronaut()
    if kind in ORIENTED:
        orientation, turn = ORIENTED[kind]
        return saved(picture.transpose(turn), "JPEG", quality=92, exif=exif(orientation))
    if kind == "CMYK":
        return saved(picture.convert("CMYK"), "JPEG", quality=92)
    if kind == "palette":
        return saved(picture.quantize(256), "PNG")
    if kind == "GIF":
        return saved(picture, "GIF")
    if kind == "WebP":
        return saved(picture, "WEBP", quality=90)
    if kind == "HEIC":
        return heic(picture)
    if kind == "transparent":  # hidden under it lies noise
        noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
        pixels = np.dstack([noise, np.zeros((512, 512), np.uint8)])
        pixels[20:260, 100:340] = np.dstack([np.asarray(picture)[20:260, 100:340], np.full((240, 240), 255, np.uint8)])
        return saved(Image.fromarray(pixels), "PNG")
    return saved(picture, "PNG")


def heic(picture: Image.Image) -> bytes:
    library = pytest.importorskip("pillow_heif", reason="HEIF is an extra")
    file = library.from_pillow(picture)
    out = io.BytesIO()
    try:
        file.save(out, quality=90)
    except RuntimeError:
        pytest.skip("this build of libheif cannot write HEIC")
    return out.getvalue()


@pytest.mark.parametrize("kind", [*ORIENTED, "CMYK", "palette", "GIF", "WebP", "HEIC", "transparent"])
def test_photographs_of_every_kind_give_the_same_face(tmp_path: Path, kind: str) -> None:
    plain = crop_of(put(tmp_path, photo_of("plain")))
    crop = crop_of(put(tmp_path, photo_of(kind), "other"))
    assert far(crop, plain) < 8 and far(crop[::-1], plain) > 20 and far(crop[:, ::-1], plain) > 10, kind


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_of_8_and_16_bits(tmp_path: Path, bits: int) -> None:
    grey = astronaut().convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if bits == 16 else grey
    plain = crop_of(put(tmp_path, photo_of("plain")))
    crop = crop_of(put(tmp_path, saved(deep, "PNG"), "grey"))
    assert np.array_equal(crop[..., 0], crop[..., 2])
    assert far(crop[..., :1], (plain @ [0.299, 0.587, 0.114])[..., None]) < 8
    one, _ = open_face(tmp_path / "grey", 1, 32, 32, bit_depth=5)
    assert one.shape == (1, 32, 32) and np.array_equal(one[0].numpy(), crop[..., 0].astype(np.uint8) >> 3)


def test_the_largest_face_is_taken_and_the_others_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = put(tmp_path, saved(group(), "PNG"), "group.png")
    crops = {number: crop_of(path, face=number) for number in (1, 2, 3)}
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"condgen: warning: {path} has 3 faces; the largest is taken; others: --face 2 at ")
    assert "; --face 3 at " in said[0] and "number 3 is taken; others: --face 1 at " in said[2]
    _, boxes = open_face(path, 3, 32, 32)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in boxes]
    assert areas == sorted(areas, reverse=True) and [round(box[0] / 100) for box in boxes] == [4, 2, 0]
    sharpness = {number: np.abs(np.diff(crop, axis=0)).mean() for number, crop in crops.items()}
    assert sharpness[1] > sharpness[3] and far(crops[1], crops[2]) < 8
    with pytest.raises(RecipeError, match=r"--face 4: .* has 3 faces; the largest is number 1\."):
        open_face(path, 3, 32, 32, face=4)


def test_a_box_says_where_the_face_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, saved(astronaut(), "PNG"))
    found = crop_of(path)
    monkeypatch.setattr(photographs, "find_faces", lambda picture: pytest.fail("a face was sought"))
    assert far(crop_of(path, box=BOX), found) < 8 < 20 < far(crop_of(path, box=(300, 62, 387, 172)), found)
    assert crop_of(path, box=(-200, 62, 100, 172)).shape == (32, 32, 3)
    for box in ((10, 10, 10, 40), (10, 40, 50, 10), (600, 10, 700, 60), (math.nan, 0, 5, 5), (0, 0, 1e9, 5)):
        with pytest.raises(RecipeError, match=r"is no box in .*, which has 512x512 pixels; give left,top,right,bottom"):
            crop_of(path, box=box)


@pytest.mark.parametrize("size", [(300, 200), (40, 40), (12, 300), (1, 1), (3000, 20)])
def test_without_a_face_there_is_a_hint(tmp_path: Path, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    path = put(tmp_path, saved(Image.fromarray(noise), "PNG"))
    with pytest.raises(InputError, match=r"no face was found; mark it by --box x0,y0,x1,y1 .* add --aligned") as caught:
        open_face(path, 3, 32, 32)
    assert caught.value.exit_code == 3 and str(path) in caught.value.message


def test_a_face_that_the_edge_cuts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = crop_of(put(tmp_path, saved(astronaut(), "PNG")))
    path = put(tmp_path, saved(astronaut().crop((195, 20, 400, 260)), "PNG"), "cut")  # through the cheek
    assert far(crop_of(path), whole) < 8
    assert "the face is cut by the edge, or close to it; " in capsys.readouterr().err


def test_heif_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = put(tmp_path, b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "photo.heic")
    with pytest.raises(MachineError, match="HEIC and HEIF need the package pillow-heif; run pip install") as caught:
        open_face(path, 3, 32, 32)
    assert caught.value.exit_code == 6


def test_a_damaged_heif(tmp_path: Path) -> None:
    data = heic(head())
    for broken in (data[: len(data) // 2], data[:40]):
        with pytest.raises(InputError, match="is damaged or cut off"):
            open_face(put(tmp_path, broken), 3, 32, 32)
