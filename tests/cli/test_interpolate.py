"""``condgen interpolate`` and ``condgen embed``: of any encoder that embeds images, ends bit for bit, and bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from tiny_models import save_tiny_models

from condgen import draw
from condgen.cli.app import app
from condgen.cli.outcome import run
from condgen.condition import DataInfo
from condgen.data.columns import read_columns
from condgen.evaluate.smoothness import walk_distances
from condgen.recipe import recipe_from_dict
from condgen.recipe.build import build_model
from condgen.store import load, save_model

Call = Callable[..., Any]
SIDE = 6


def save_model_of_images(folder: Path, encoder: dict[str, Any], **overrides: Any) -> None:
    recipe = recipe_from_dict(
        {
            "data": {"source": "npz", "image_size": SIDE, "channels": 3, "bit_depth": 5},
            "encoder": encoder,
            "model": {"filters": 6, "layers": 2, "kernel_size": 3, "likelihood": "logistic_mixture", "mixtures": 2},
            "train": {"max_steps": 1},
        }
        | overrides,
        "tests",
    )
    if recipe.train.objective != "likelihood":
        from condgen.recipe.build import build_trained

        model: Any = build_trained(recipe, DataInfo(3, SIDE, SIDE, 5))
    else:
        model = build_model(recipe, DataInfo(3, SIDE, SIDE, 5))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in model.core.parameters():
                weight += 0.1 * torch.randn(weight.shape, generator=generator)
    save_model(model, recipe, folder, "A test.\n")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "runs"
    save_tiny_models(folder)
    save_model_of_images(folder / "short", {"type": "autoencoder", "size": 3, "filters": 4, "range": "unit"})
    save_model_of_images(folder / "grey", {"type": "grey"})
    save_model_of_images(
        folder / "error", {"type": "autoencoder", "size": 3, "filters": 2},
        train={"max_steps": 1, "objective": "squared_error"},
    )  # fmt: skip
    return folder


@pytest.fixture(autouse=True)
def home(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``runs`` with the models, ``a.png`` and ``b.png``, and a picture that is none."""
    monkeypatch.chdir(tmp_path)
    Path("runs").symlink_to(models)
    generator = np.random.default_rng(0)
    for name, size in (("a", SIDE), ("b", 2 * SIDE)):
        Image.fromarray(generator.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(f"{name}.png")
    Path("broken.png").write_bytes(Path("a.png").read_bytes()[:60])


@pytest.fixture
def condgen(capsys: pytest.CaptureFixture[str]) -> Call:
    """The JSON object that a command prints, its exit code in it."""

    def call(*arguments: object) -> Any:
        capsys.readouterr()
        code = run(app(), [*map(str, arguments), "--json", "--quiet"])
        return {"code": code} | json.loads(capsys.readouterr().out)

    return call


def pixels(path: str) -> np.ndarray:
    with Image.open(path) as picture:
        return np.moveaxis(np.asarray(picture), -1, 0)


WALK = ("interpolate", "a.png", "b.png", "--steps", 4, "--rows", 3, "--seed", 7)


@pytest.mark.parametrize("name", ["short", "grey"])
@pytest.mark.parametrize("curve", ["lerp", "slerp"])
def test_the_ends_are_the_samples_of_both_images_bit_for_bit(condgen: Call, name: str, curve: str) -> None:
    found = condgen(*WALK, "--model", name, "--curve", curve, "--out", "walk.png")
    assert (found["code"], found["sheet"], found["steps"], found["rows"]) == (0, "walk.png", 4, 3)
    assert found["files"] == [f"walk/{row}-{step}.png" for row in range(3) for step in range(4)]
    assert found["gif"] is None and pixels("walk.png").shape[2] > 4 * SIDE
    model = load(name)
    for step, end in ((0, "a.png"), (3, "b.png")):
        samples = draw.displayable(model.sample(model.encode(image=end), count=3, seed=7), 5)
        for row in range(3):
            assert np.array_equal(pixels(f"walk/{row}-{step}.png"), samples[row])
    middle = model.encode(image="a.png").interpolate(model.encode(image="b.png"), 4, curve)[2]
    assert np.array_equal(pixels("walk/1-2.png"), draw.displayable(model.sample(middle, count=3, seed=7), 5)[1])


def test_neighbours_of_a_long_walk_are_nearer_than_rows(condgen: Call) -> None:
    found = condgen("interpolate", "a.png", "b.png", "--model", "short", "--steps", 65, "--rows", 2, "--out", "w.png")
    assert found["files"][64] == "w/0-64.png" and found["files"][65] == "w/1-00.png"
    walk = np.stack([pixels(file) for file in found["files"]]).reshape(2, 65, 3, SIDE, SIDE)
    along, across = walk_distances(walk)
    assert across is not None and found["smoothness"] == {"neighbours": along, "rows": across}
    assert 0 < along < across / 2


def test_distances_against_loops() -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 4, 1, 2, 2), dtype=np.uint8)
    along, across = [], []
    for row in range(3):
        for step in range(4):
            if step:
                along.append(abs(images[row, step].astype(int) - images[row, step - 1].astype(int)).mean())
            across += [abs(images[row, step].astype(int) - images[k, step].astype(int)).mean() for k in range(row)]
    found = walk_distances(images)
    assert found[0] == pytest.approx(np.mean(along)) and found[1] == pytest.approx(np.mean(across))
    assert walk_distances(images[:1])[1] is None


def test_a_film_goes_there_and_back(condgen: Call) -> None:
    found = condgen(*WALK, "--model", "short", "--gif", "--out", "walk.png")
    lengths, frames = [], []
    with Image.open(found["gif"]) as film:
        assert (found["gif"], film.format, getattr(film, "n_frames", 0)) == ("walk.gif", "GIF", 6)
        assert film.info["loop"] == 0
        for number in range(6):
            film.seek(number)
            lengths.append(film.info["duration"])
            frames.append(np.asarray(film.convert("RGB")))
    assert lengths == [640, 80, 80, 640, 80, 80]
    assert np.array_equal(frames[1], frames[5]) and not np.array_equal(frames[0], frames[3])
    assert not list(Path().glob(".condgen-*"))


def test_names_that_are_taken_are_left_alone(condgen: Call) -> None:
    assert condgen(*WALK, "--model", "short")["sheet"] == "a-b.png"
    assert condgen(*WALK, "--model", "short")["sheet"] == "a-b-2.png"
    before = Path("a-b/0-0.png").read_bytes()
    refused = condgen(*WALK, "--model", "short", "--out", "a-b.png")
    assert refused["code"] == 2 and "--force" in refused["message"]
    Path("a-b.png").unlink()
    assert "a-b exists" in condgen(*WALK, "--model", "short", "--out", "a-b.png")["message"]
    again = condgen("interpolate", "a.png", "b.png", "--model", "short", "--steps", 2, "--rows", 1, "--out", "a-b.png",
                    "--force", "--seed", 7)  # fmt: skip
    assert again["smoothness"]["rows"] is None and sorted(path.name for path in Path("a-b").iterdir()) == [
        "0-0.png", "0-1.png",
    ]  # fmt: skip
    assert Path("a-b/0-0.png").read_bytes() == before  # the same sample, however long and many the rows
    Path("a-b/mine.txt").write_text("mine")
    refused = condgen(*WALK, "--model", "short", "--out", "a-b.png", "--force")
    assert refused["code"] == 2 and "other files" in refused["message"] and Path("a-b/mine.txt").exists()


def test_a_film_does_not_stay_behind_as_if_it_were_the_new_sheet_s(condgen: Call) -> None:
    words = ("interpolate", "a.png", "b.png", "--model", "short", "--steps", 2, "--rows", 1, "--out", "w.png")
    assert condgen(*words, "--gif")["gif"] == "w.gif"
    film = Path("w.gif").read_bytes()
    Path("w.png").unlink()
    (Path("w") / "0-0.png").unlink()
    (Path("w") / "0-1.png").unlink()
    Path("w").rmdir()
    refused = condgen(*words)  # nothing but the film is there
    assert refused["code"] == 2 and refused["message"] == "w.gif exists; choose another name or add --force."
    assert Path("w.gif").read_bytes() == film and not Path("w.png").exists()
    again = condgen(*words, "--force", "--seed", 3)
    assert again["code"] == 0 and again["gif"] is None and Path("w.png").exists() and not Path("w.gif").exists()
    assert condgen(*words, "--force")["code"] == 0  # without one too
    Path("w.gif").mkdir()
    for more in ((), ("--gif",)):
        refused = condgen(*words, "--force", *more)
        assert refused["code"] == 2 and "w.gif is a folder" in refused["message"] and Path("w.gif").is_dir()


def test_a_failed_walk_leaves_the_old_film(condgen: Call) -> None:
    words = ("interpolate", "a.png", "b.png", "--model", "short", "--steps", 2, "--rows", 1, "--out", "w.png")
    assert condgen(*words, "--gif")["code"] == 0
    before = {path: path.read_bytes() for path in Path().glob("w*") if path.is_file()}
    assert condgen(*words, "--force", "--temperature", 0)["code"] == 2
    assert {path: path.read_bytes() for path in Path().glob("w*") if path.is_file()} == before


def test_the_same_picture_twice_is_said(condgen: Call, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(app(), ["interpolate", "a.png", "a.png", "--model", "short", "--rows", "1", "--quiet"])
    printed = capsys.readouterr()
    assert code == 0 and "the same condition" in printed.err and "Neighbours differ by 0.00" in printed.out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("a.png", "--model", "short"), 2, "There are 1 images; name two"),
        (("a.png", "b.png", "a.png", "--model", "short"), 2, "There are 3 images"),
        (("a.png", "none.png", "--model", "short"), 3, "none.png cannot be opened"),
        (("a.png", "broken.png", "--model", "short"), 3, "broken.png is no usable picture"),
        (("a.png", "b.png", "--model", "pets"), 4, "runs/pets does not embed images (encoder.type=labels)"),
        (("a.png", "b.png", "--model", "plain"), 4, "does not embed images"),
        (("a.png", "b.png", "--model", "error"), 4, "train.objective"),
        (("a.png", "b.png", "--model", "nothing"), 4, "no run or model nothing"),
        (("a.png", "b.png", "--model", "short", "--steps", 1), 2, "--steps"),
        (("a.png", "b.png", "--model", "short", "--rows", 0), 2, "--rows"),
        (("a.png", "b.png", "--model", "short", "--steps", 600), 2, "beyond the 2,048 allowed"),
        (("a.png", "b.png", "--model", "short", "--curve", "slrp"), 2, "did you mean slerp?"),
        (("a.png", "b.png", "--model", "short", "--temperature", 0), 2, "temperature"),
        (("a.png", "b.png", "--model", "short", "--out", "walk.jpg"), 2, "ends in .png"),
        (("a.png", "b.png", "--model", "short", "--hat", "red"), 2, "--hat: no option"),
        (("a.png", "b.png", "--model", "short", "model.layers=3"), 2, "model.layers"),
    ],
    ids=str,
)
def test_bad_input_is_a_sentence(condgen: Call, arguments: tuple[object, ...], code: int, words: str) -> None:
    before = sorted(Path().rglob("*"))
    found = condgen("interpolate", *arguments)
    assert found["code"] == code and words in found["message"]
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("kind", ["safetensors", "npz", "csv"])
def test_embeddings_are_a_row_for_each_picture_by_itself(condgen: Call, kind: str) -> None:
    files = ["a.png", "b.png", "a.png"]
    found = condgen("embed", *files, "--model", "short", "--out", f"e.{kind}")
    assert found == {"code": 0, "file": f"e.{kind}", "images": files, "parts": {"vector": [3]}}
    model = load("short")
    each = torch.cat([model.encode(image=file).vector for file in files]).numpy()
    assert np.array_equal(read_columns(Path(f"e.{kind}"))["vector"], each)  # as data.columns takes it
    assert condgen("embed", *files, "--model", "short", "--out", f"e.{kind}")["code"] == 2
    assert condgen("embed", "b.png", "--model", "short", "--out", f"e.{kind}", "--force")["code"] == 0
    assert np.array_equal(read_columns(Path(f"e.{kind}"))["vector"], each[1:2])


def test_maps_are_embedded_too(condgen: Call) -> None:
    found = condgen("embed", "a.png", "b.png", "--model", "grey")
    channels = load("grey").encoder.map_channels
    assert (found["file"], found["parts"]) == ("embeddings.safetensors", {"map": [channels, SIDE, SIDE]})
    kept = safetensors.torch.load_file("embeddings.safetensors")["map"]
    assert torch.equal(kept[1:], load("grey").encode(image="b.png").map)
    refused = condgen("embed", "a.png", "--model", "grey", "--out", "e.csv")
    assert refused["code"] == 2 and "a csv cannot hold" in refused["message"] and not Path("e.csv").exists()


def test_an_autoencoder_embeds_as_well(condgen: Call) -> None:
    assert condgen("embed", "a.png", "--model", "error")["parts"] == {"vector": [3]}
    vector = safetensors.torch.load_file("embeddings.safetensors")["vector"]
    assert torch.equal(vector, load("error").encode(image="a.png").vector)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("none.png", "--model", "short"), 3, "none.png cannot be opened"),
        (("a.png", "broken.png", "--model", "short"), 3, "broken.png"),
        (("a.png", "--model", "pets"), 4, "does not embed images"),
        (("a.png", "--model", "short", "--out", "e.npy"), 2, "ends in .safetensors, .npz, .csv"),
        (("a.png", "--model", "short", "--out", "no/e.npz"), 2, "there is no folder no"),
        (("a.png", "--model", "short", "sample.tile=3"), 2, "takes no overrides"),
    ],
    ids=str,
)
def test_embed_refuses(condgen: Call, arguments: tuple[object, ...], code: int, words: str) -> None:
    found = condgen("embed", *arguments)
    assert found["code"] == code and words in found["message"]
    assert not list(Path().glob("e*"))
