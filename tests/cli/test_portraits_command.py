"""``condgen portraits``, and the model that ships: likeness against a slow witness, ends of walks, bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import save_tiny_models

from condgen.cli.app import app
from condgen.cli.outcome import run
from condgen.condition import DataInfo
from condgen.data.portraits import draw
from condgen.recipe import recipe_from_dict
from condgen.recipe.build import build_embedding, build_model
from condgen.store import load, save_model
from condgen.store.shipped import shipped

Call = Callable[..., Any]
SIDE = 16


def _drawing(identity: int, view: int, side: int = SIDE) -> np.ndarray:
    return draw(0, np.array([identity]), np.array([view]), side, side, 0.0)[0][0]


def _save(folder: Path, objective: str = "likelihood") -> None:
    recipe = recipe_from_dict(
        {
            "data": {"source": "portraits", "image_size": SIDE, "identities": 4},
            "encoder": {"type": "face", "size": 4, "colours": objective == "likelihood"},
            "model": {
                "filters": 4,
                "layers": 2,
                "kernel_size": 3,
                "likelihood": "logistic_mixture",
                "mixtures": 2,
                "conditioning": "both",
                "map_channels": 3,
            },
            "train": {"max_steps": 1, "objective": objective},
            "sample": {"temperature": 0.7},
        },
        "tests",
    )
    info = DataInfo(3, SIDE, SIDE)
    model: Any = build_embedding(recipe, info) if objective == "triplet" else build_model(recipe, info)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.core.parameters() if objective == "likelihood" else ():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    save_model(model, recipe, folder, "A test.\n")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "runs"
    save_tiny_models(folder)
    _save(folder / "faces")
    _save(folder / "embedding", "triplet")
    return folder


@pytest.fixture(autouse=True)
def home(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``runs`` with the models, ``a.png`` and ``b.png``, drawings of two people, and a picture that is none."""
    monkeypatch.chdir(tmp_path)
    Path("runs").symlink_to(models)
    for name, identity in (("a", 0), ("b", 1)):
        Image.fromarray(np.moveaxis(_drawing(identity, 0), 0, -1)).save(f"{name}.png")
    Path("broken.png").write_bytes(Path("a.png").read_bytes()[:60])


@pytest.fixture
def condgen(capsys: pytest.CaptureFixture[str]) -> Call:
    """The JSON object that a command prints, its exit code in it."""

    def call(*arguments: object) -> Any:
        capsys.readouterr()
        code = run(app(), [*map(str, arguments), "--json", "--quiet"])
        return {"code": code} | json.loads(capsys.readouterr().out)

    return call


def _pixels(path: str) -> np.ndarray:
    return np.moveaxis(np.asarray(Image.open(path)), -1, 0)


def _identity(model: Any, picture: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        batch = {"image": torch.from_numpy(picture.copy())[None]}
        vector: np.ndarray = model.encoder.network(batch["image"] / 255)[0].double().numpy()
    return vector / np.linalg.norm(vector)


def test_sheet_pictures_and_likeness(condgen: Call) -> None:
    result = condgen("portraits", "--source", "a.png", "--aligned", "--model", "faces", "--count", 10, "--seed", 3)
    assert result["code"] == 0
    assert result["model"] == "faces" and result["sheet"] == "a-portraits.png" and Path(result["sheet"]).is_file()
    assert result["files"] == [f"a-portraits/{k}.png" for k in range(10)]
    model = load("faces")
    source = _drawing(0, 0)
    condition = model.encode(image=torch.from_numpy(source)[None])
    expected = model.sample(condition, 10, seed=3, temperature=0.7).numpy()
    found = np.stack([_pixels(file) for file in result["files"]])
    np.testing.assert_array_equal(found, expected)
    who = _identity(model, source)
    np.testing.assert_allclose(result["similarities"], [_identity(model, x) @ who for x in found], atol=1e-5)
    assert np.std(result["similarities"]) > 0
    # 64 people of the validation data, whose numbers begin at 2^40
    others = [_identity(model, _drawing_with_grain(2**40 + k)) for k in range(64)]
    strange = [np.mean([_identity(model, x) @ other for other in others]) for x in found]
    np.testing.assert_allclose(result["stranger_similarities"], strange, atol=1e-5)
    assert result["stranger_similarity"] == pytest.approx(np.mean(strange), abs=1e-5)
    assert result["strangers"] == "drawn people" and result["trained_on"].startswith("drawn portraits alone")


def _drawing_with_grain(identity: int) -> np.ndarray:
    return draw(0, np.array([identity]), np.array([0]), SIDE, SIDE, 2.0)[0][0]


def test_the_sheet_has_the_source_at_its_left(condgen: Call) -> None:
    condgen("portraits", "--source", "a.png", "--aligned", "--model", "faces", "--count", 1, "--out", "P.png")
    sheet = np.asarray(Image.open("P.png"))
    assert _left_of(sheet, _drawing(0, 0)) < _left_of(sheet, _pixels("P/0.png"))


def _left_of(sheet: np.ndarray, picture: np.ndarray, scale: int = 6) -> int:
    """Where the picture, enlarged to 96 pixels, stands on the sheet."""
    large = np.moveaxis(picture, 0, -1).repeat(scale, 0).repeat(scale, 1)
    height, width = large.shape[:2]
    (place,) = [
        column
        for row in range(len(sheet) - height + 1)
        for column in range(sheet.shape[1] - width + 1)
        if (sheet[row, column] == large[0, 0]).all()
        and (sheet[row : row + height, column : column + width] == large).all()
    ]
    return place


def test_the_ends_of_a_walk_are_portraits_bit_for_bit(condgen: Call) -> None:
    options = ("--model", "faces", "--aligned", "--seed", 5)
    walk = condgen("interpolate", "a.png", "b.png", "--steps", 3, "--rows", 2, "--out", "walk.png", *options)
    assert walk["code"] == 0
    for end, name in ((0, "a"), (2, "b")):
        # another count of portraits: neither it nor the tile's other pictures change one
        ours = condgen("portraits", "--source", f"{name}.png", "--count", 9, "--out", f"{name}{name}.png", *options)
        for row in range(2):
            np.testing.assert_array_equal(_pixels(f"walk/{row}-{end}.png"), _pixels(ours["files"][row]))
    assert (_pixels("walk/0-0.png") != _pixels("walk/1-0.png")).any()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--source", "missing.png"], 3, ["missing.png"]),
        (["--source", "broken.png"], 3, ["broken.png"]),
        (["--source", "blank.png"], 3, ["no face", "--box", "--aligned"]),
        ([], 2, ["--source"]),
        (["--source", "a.png", "--aligned", "--model", "pets"], 4, ["does not know faces", "labels"]),
        (["--source", "a.png", "--aligned", "--model", "embedding"], 4, ["no likelihood", "triplet"]),
        (["--source", "a.png", "--aligned", "--model", "nobody"], 4, ["nobody", "portraits"]),
        (["--source", "a.png", "--aligned", "--box", "1,2,3,4"], 2, ["--aligned"]),
        (["--source", "a.png", "--box", "1,2,3"], 2, ["--box"]),
        (["--source", "a.png", "--aligned", "--out", "a.png"], 2, ["a.png exists"]),
        (["--source", "a.png", "--aligned", "--out", "P.jpg"], 2, [".png"]),
        (["--source", "a.png", "--aligned", "model.filters=3"], 2, ["model.filters"]),
    ],
)
def test_bad_input_is_one_sentence(condgen: Call, arguments: list[str], code: int, words: list[str]) -> None:
    Image.new("RGB", (96, 80), (90, 120, 150)).save("blank.png")
    before = set(Path().iterdir())
    model = [] if "--model" in arguments else ["--model", "faces"]
    result = condgen("portraits", *arguments, *model)
    assert result["code"] == code
    assert all(word in result["message"] for word in words), result["message"]
    assert set(Path().iterdir()) == before


def test_without_a_model_it_is_the_shipped_one_whatever_runs_there_are(
    condgen: Call, models: Path, tmp_path: Path
) -> None:
    Path("runs").unlink()
    Path("runs").mkdir()
    Path("runs/portraits").symlink_to(models / "faces")
    ours = shipped("portraits")
    assert ours is not None
    of_it = condgen("portraits", "--source", "a.png", "--aligned", "--count", 1, "--out", "P.png")
    assert of_it["code"] == 0 and of_it["model"] == "portraits"
    model = load(ours)
    assert _pixels("P/0.png").shape == (3, model.info.height, model.info.width)
    walk = condgen("interpolate", "a.png", "b.png", "--aligned", "--steps", 2, "--rows", 1, "--out", "W.png")
    assert walk["model"] == "portraits"
    np.testing.assert_array_equal(_pixels("W/0-0.png"), _pixels("P/0.png"))
    named = condgen(
        "portraits", "--source", "a.png", "--aligned", "--count", 1, "--model", "portraits", "--out", "Q.png"
    )
    assert _pixels("Q/0.png").shape == (3, SIDE, SIDE), named  # a name is that of a run first


def test_a_face_is_found_in_a_photograph(condgen: Call) -> None:
    data = pytest.importorskip("skimage.data")
    Image.fromarray(data.astronaut()).save("astronaut.png")
    result = condgen("portraits", "--source", "astronaut.png", "--model", "faces", "--count", 1)
    assert result["code"] == 0 and len(result["similarities"]) == 1
    boxed = condgen(
        *("portraits", "--source", "astronaut.png", "--model", "faces", "--count", 1),
        *("--box", "170,65,275,180", "--out", "boxed.png"),
    )
    assert boxed["code"] == 0
    many = condgen("portraits", "--source", "astronaut.png", "--model", "faces", "--face", 9, "--out", "n.png")
    assert many["code"] == 2 and "--face 9" in many["message"]
