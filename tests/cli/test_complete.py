"""``condgen complete``: known pixels stay and are seen, and every way to say what is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import HEIGHT, WIDTH, save_tiny_models
from torch import Tensor

from condgen import draw
from condgen.cli.app import app
from condgen.cli.outcome import run
from condgen.data import open_mask
from condgen.store import load

Call = Callable[..., Any]
KNOWN = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]], dtype=bool)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny models, ``image.png``, and ``mask.png`` of KNOWN: white is drawn."""
    monkeypatch.chdir(tmp_path)
    save_tiny_models(Path("runs"))
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("image.png")
    Image.fromarray(np.where(KNOWN, 0, 255).astype(np.uint8)).save("mask.png")


@pytest.fixture
def condgen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """The JSON object that a command prints, its exit code in it, and the rows of the sheet that it draws."""
    rows: list[Any] = []
    real = draw.sheet

    def sheet(given: Any, **named: Any) -> Image.Image:
        rows[:] = given
        return real(given, **named)

    monkeypatch.setattr(draw, "sheet", sheet)

    def call(*arguments: object) -> Any:
        capsys.readouterr()
        code = run(app(), ["complete", *map(str, arguments), "--json", "--quiet"])
        return {"code": code, "rows": rows} | json.loads(capsys.readouterr().out)

    return call


def pixels_of_the_image() -> Tensor:
    return torch.from_numpy(np.array(Image.open("image.png"))).permute(2, 0, 1) >> 5


@pytest.mark.parametrize("sampler", ["auto", "fixed_point", "naive"])
def test_the_sheet_shows_the_image_what_is_known_and_completions_that_keep_it(condgen: Call, sampler: str) -> None:
    words = ("--label", "cat", "--label", "a/dog", "--count", 3, "--seed", 2, "--sampler", sampler)
    found = condgen("image.png", "--mask", "mask.png", "--model", "pets", *words, "--out", "done.png")
    assert (found["code"], found["file"], found["count"], found["known"]) == (0, "done.png", 3, 10)
    assert found["resized"] is False and found["seeds"] == [[2, 0], [2, 1], [2, 2]]
    model, image = load("pets"), pixels_of_the_image()
    h = model.encode(label=["cat", "a/dog"])
    expected, nats = model.sample_and_log_prob(
        h, 3, seed=2, sampler="naive", known=image[None], mask=torch.from_numpy(KNOWN), tile=4
    )
    assert [label for label, _ in found["rows"]] == ["cat", "a/dog"]
    for row, (_, pictures) in enumerate(found["rows"]):
        original, given, *completed = pictures
        assert np.array_equal(original >> 5, image) and np.array_equal(given[:, KNOWN], original[:, KNOWN])
        assert not np.array_equal(given, original)
        assert np.array_equal(np.stack(completed) >> 5, expected[3 * row : 3 * row + 3])
        assert all(np.array_equal(picture[:, KNOWN], original[:, KNOWN]) for picture in completed)
    assert np.allclose(np.ravel(found["log_prob"]), nats, rtol=1e-5)
    assert np.allclose(nats, model.log_prob(expected, h.repeat(3)).detach(), rtol=1e-5)
    with Image.open("done.png") as picture:
        assert picture.width > 5 * WIDTH and picture.height > 2 * HEIGHT


def test_what_the_model_sees_is_said_in_one_sentence(condgen: Call, capsys: pytest.CaptureFixture[str]) -> None:
    start = "The model draws in raster order and sees only those known pixels that come earlier; "
    found = condgen("image.png", "--mask", "mask.png", "--model", "plain")
    assert found["note"] == start + "2 of 10 come after the first pixel drawn."
    found = condgen("image.png", "--rows", 3, "--model", "plain")
    assert found["note"] == start + "here all 12 do." and found["file"] == "image-completed-2.png"
    assert run(app(), ["complete", "image.png", "--rows", "1", "--model", "plain", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert out == f"4 completions: image-completed-3.png\n{start}here all 4 do.\n"


@pytest.mark.parametrize(
    ("choice", "known"),
    [
        (("--rows", 2), np.s_[:2]),
        (("--region", "top"), np.s_[:2]),
        (("--region", "bottom"), np.s_[3:]),
        (("--region", "left"), np.s_[:, :2]),
        (("--region", "right"), np.s_[:, 2:]),
    ],
)
def test_rows_and_halves_are_known(condgen: Call, choice: tuple[Any, ...], known: Any) -> None:
    found = condgen("image.png", *choice, "--model", "plain", "--count", 2)
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[known] = True
    original, given, *completed = found["rows"][0][1]
    assert np.array_equal((given == original).all(0), expected) and len(completed) == 2
    assert all(np.array_equal(picture[:, expected], original[:, expected]) for picture in completed)


def test_an_image_of_another_size_is_framed_and_that_is_said(condgen: Call) -> None:
    Image.open("image.png").resize((40, 50)).save("large.png")
    found = condgen("large.png", "--mask", "mask.png", "--model", "plain", "data.fit=pad")
    assert found["code"] == 0 and found["resized"] is True


def save(name: str, mode: str, **options: Any) -> None:
    """KNOWN as a picture of another kind."""
    grey = Image.fromarray(np.where(KNOWN, 0, 255).astype(np.uint8))
    grey.convert(mode).save(name, **options)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("a.png", "1"),
        ("a.png", "RGB"),
        ("a.png", "RGBA"),
        ("a.png", "P"),
        ("a.gif", "P"),
        ("a.bmp", "L"),
        ("a.png", "LA"),
    ],
)
def test_any_plain_black_and_white_is_a_mask(name: str, mode: str) -> None:
    save(name, mode)
    assert np.array_equal(open_mask(name, HEIGHT, WIDTH), KNOWN)


def test_a_jpeg_is_a_mask_too() -> None:
    large = np.kron(KNOWN, np.ones((8, 8), bool))
    Image.fromarray(np.where(large, 0, 255).astype(np.uint8)).convert("RGB").save("a.jpg", quality=60)
    assert np.array_equal(open_mask("a.jpg", 8 * HEIGHT, 8 * WIDTH), large)


def bad_masks() -> None:
    grey = np.where(KNOWN, 0, 255).astype(np.uint8)
    Image.fromarray(np.stack([grey, 0 * grey, 0 * grey], -1)).save("red.png")
    palette = Image.fromarray(KNOWN.astype(np.uint8), "P")
    palette.putpalette([0, 0, 128, 255, 255, 0])
    palette.save("palette.png")
    Image.fromarray(np.stack([0 * grey] * 3 + [grey], -1)).save("alpha.png")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    palette.save("holes.png", transparency=0)
    Image.new("L", (HEIGHT, WIDTH)).save("turned.png")
    Image.new("L", (WIDTH, HEIGHT), 0).save("black.png")
    Image.new("L", (WIDTH, HEIGHT), 255).save("white.png")
    Path("text.png").write_text("no picture")
    Path("cut.png").write_bytes(Path("mask.png").read_bytes()[:40])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--mask", "red.png"], 3, "red.png has colours; save the mask as plain black (known) and white"),
        (["--mask", "palette.png"], 3, "palette.png has colours"),
        (["--mask", "alpha.png"], 3, "alpha.png has transparent places"),
        (["--mask", "holes.png"], 3, "holes.png has transparent places"),
        (["--mask", "turned.png"], 3, "turned.png is 5x4 and the model's images are 4x5; give a mask of their size."),
        (["--mask", "black.png"], 3, "black.png leaves nothing to draw of 4x5 pixels"),
        (["--mask", "white.png"], 3, "white.png keeps none of 4x5 pixels"),
        (["--mask", "text.png"], 3, "text.png is no usable picture"),
        (["--mask", "cut.png"], 3, "cut.png is no usable picture"),
        (["--mask", "none.png"], 3, "none.png cannot be opened"),
        (["--mask", "runs"], 3, "runs is not a regular file"),
        (["--rows", "5"], 3, "--rows 5 leaves nothing to draw"),
        (["--rows", "0"], 2, "Invalid value for '--rows'"),
        (["--region", "tpo"], 2, "--region: there is no 'tpo'; did you mean top?"),
        ([], 2, "Say what is known by one of --mask, --rows and --region."),
        (["--rows", "1", "--mask", "mask.png"], 2, "Say what is known by one of"),
        (["--rows", "1", "--count", "0"], 2, "Invalid value for '--count'"),
        (["--rows", "1", "more.png"], 2, "There are 2 images to complete; name one."),
        (["--rows", "1", "--out", "x.jpg"], 2, "x.jpg: a picture is written as PNG"),
        (["--rows", "1", "--out", "image.png"], 2, "image.png exists"),
        (["--rows", "1", "--label", "cat"], 2, "--label: no option, and no word of this encoder (it has none)"),
        (["--rows", "1", "--mas", "cat"], 2, "--mas: no option, and no word of this encoder (it has none); did you"),
        (["--rows", "1", "model.filters=3"], 2, "model.filters: a model that is trained takes fields of data and"),
        (["--rows", "1", "--sampler", "fast"], 2, "There is no sampler 'fast'"),
    ],
    ids=str,
)
def test_complete_refuses(condgen: Call, arguments: list[str], code: int, message: str) -> None:
    bad_masks()
    before = set(Path().iterdir())
    found = condgen("image.png", *arguments, "--model", "plain")
    assert found["code"] == code and found["message"].startswith(message), found["message"]
    assert found["message"].count(". ") == 0 and set(Path().iterdir()) == before


def test_an_image_that_cannot_be_read_and_a_model_that_is_not_there(condgen: Call) -> None:
    Path("text.png").write_text("no picture")
    found = condgen("text.png", "--rows", 1, "--model", "plain")
    assert found["code"] == 3 and found["message"].startswith("text.png is no usable picture")
    assert condgen("image.png", "--rows", 1, "--model", "none")["code"] == 4
    assert condgen("image.png", "--rows", 1)["code"] == 2
