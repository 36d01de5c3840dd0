"""Photographs named on the command line: which face is meant, or one sentence with its exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from photos import BOX, astronaut, group
from picture_bytes import exif
from PIL import Image
from torch import Tensor

from condgen import open_face, open_image
from condgen.cli.app import app
from condgen.cli.outcome import run
from condgen.condition import DataInfo
from condgen.recipe import recipe_from_dict
from condgen.recipe.build import build_model
from condgen.store import load, save_model

Call = Callable[..., Any]
SIDE = 16


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of faces with random weights."""
    recipe = recipe_from_dict(
        {
            "data": {"image_size": SIDE},
            "encoder": {"type": "face", "size": 8},
            "model": {"filters": 6, "layers": 2, "kernel_size": 3, "likelihood": "logistic_mixture", "mixtures": 2},
            "train": {"max_steps": 1},
        },
        "tests",
    )
    folder = tmp_path_factory.mktemp("faces") / "model"
    save_model(build_model(recipe, DataInfo(3, SIDE, SIDE)), recipe, folder, "A test.\n")
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    astronaut().save("astronaut.png")
    astronaut().transpose(Image.Transpose.ROTATE_90).save("turned.jpg", quality=95, exif=exif(6))
    group().save("group.png")
    Image.new("RGB", (90, 60), (90, 120, 40)).save("garden.png")
    Path("photo.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64)
    Path("cut.png").write_bytes(Path("astronaut.png").read_bytes()[:5000])
    Path("notes.txt").write_text("no picture")


@pytest.fixture
def embed(model: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """The exit code of ``condgen embed`` with what it printed on stdout (JSON) and stderr."""

    def call(*arguments: object) -> tuple[int, dict[str, Any], str]:
        capsys.readouterr()
        code = run(app(), ["embed", *map(str, arguments), "--model", str(model), "--json", "--quiet", "--force"])
        printed = capsys.readouterr()
        return code, json.loads(printed.out), printed.err

    return call


def vector(embed: Call, *arguments: object) -> Tensor:
    code, found, _ = embed(*arguments, "--out", "v.safetensors")
    assert code == 0, found
    return safetensors.torch.load_file("v.safetensors")["vector"]


def of_image(model: Path, image: Tensor) -> Tensor:
    found = load(model).encode(image=image[None]).vector
    assert found is not None
    return found


def test_a_photograph_is_aligned_and_embedded(embed: Call, model: Path) -> None:
    expected = of_image(model, open_face("astronaut.png", 3, SIDE, SIDE)[0])
    assert expected.shape == (1, 8 + 9) and torch.equal(vector(embed, "astronaut.png"), expected)
    assert (vector(embed, "turned.jpg")[:, 8:] - expected[:, 8:]).abs().max() < 0.1  # the same colours, upright


def test_which_face_is_meant(embed: Call, model: Path) -> None:
    code, _, said = embed("group.png", "--out", "v.npz")
    assert code == 0 and "group.png has 3 faces; the largest is taken; others: --face 2 at " in said
    second = of_image(model, open_face("group.png", 3, SIDE, SIDE, face=2)[0])
    assert torch.equal(vector(embed, "group.png", "--face", 2), second)
    assert not torch.equal(vector(embed, "group.png"), second)


def test_a_box_and_a_picture_that_is_aligned(embed: Call, model: Path) -> None:
    box = ",".join(map(str, BOX))
    boxed = of_image(model, open_face("astronaut.png", 3, SIDE, SIDE, box=BOX)[0])
    assert torch.equal(vector(embed, "astronaut.png", "--box", box), boxed)
    whole = of_image(model, open_image("garden.png", 3, SIDE, SIDE)[0])
    assert torch.equal(vector(embed, "garden.png", "--aligned"), whole)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["garden.png"], 3, "garden.png: no face was found; mark it by --box x0,y0,x1,y1 (in pixels), or add "),
        (["group.png", "--face", 9], 2, "--face 9: group.png has 3 faces; the largest is number 1."),
        (["group.png", "--face", 0], 2, "--face"),
        (["garden.png", "--box", "0,0,50"], 2, "--box: expected four numbers, left,top,right,bottom, found '0,0,50'."),
        (["garden.png", "--box", "0,0,x,9"], 2, "--box: expected four numbers"),
        (["garden.png", "--box", "9,9,0,0"], 2, "--box: 9,9,0,0 is no box in garden.png, which has 90x60 pixels; give"),
        (["garden.png", "--box", "nan,0,9,9"], 2, "is no box in garden.png"),
        (["garden.png", "--box", "0,0,inf,9"], 2, "is no box in garden.png"),
        (["garden.png", "--box", "0,0,1e9,9"], 2, "is no box in garden.png"),
        (["garden.png", "--face", 1, "--aligned"], 2, "--face, --box and --aligned each say where the face is; "),
        (["cut.png"], 3, "cut.png is no usable picture: it is "),
        (["photo.heic"], 3, "photo.heic is no usable picture: it is damaged or cut off"),
        (["notes.txt"], 3, "notes.txt is no usable picture: its format is not accepted"),
        (["missing.jpg"], 3, "missing.jpg cannot be opened (No such file or directory); check the path."),
    ],
)  # fmt: skip
def test_sentences_and_exit_codes(embed: Call, arguments: list[object], code: int, sentence: str) -> None:
    if "photo.heic" in arguments:
        pytest.importorskip("pillow_heif", reason="HEIF is an extra")
    found, printed, _ = embed(*arguments)
    assert found == code and sentence in printed["message"], printed


def test_heif_without_its_package(embed: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    code, printed, _ = embed("photo.heic")
    assert code == 6 and "pip install pillow-heif, or save it as JPEG or PNG" in printed["message"]


def test_a_walk_between_two_photographs(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    walk = ["interpolate", "astronaut.png", "group.png", "--model", str(model), "--steps", "2", "--rows", "1"]
    assert run(app(), [*walk, "--out", "w.png", "--face", "1", "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = load(model).sample(load(model).encode(image="astronaut.png"), count=1, seed=0)[0]
    with Image.open(found["files"][0]) as picture:
        assert np.array_equal(np.moveaxis(np.asarray(picture), -1, 0), expected)
