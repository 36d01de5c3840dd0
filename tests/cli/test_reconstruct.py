"""``condgen reconstruct``: the sheet of originals, reconstructions and samples, its figures, its refusals."""

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
from condgen.condition import DataInfo
from condgen.evaluate.sharpness import sharpness
from condgen.recipe import recipe_from_dict
from condgen.recipe.build import build_trained
from condgen.store import load, save_model

Call = Callable[..., Any]


def save(name: str, size: int, objective: str, height: int = HEIGHT, **encoder: object) -> None:
    recipe = recipe_from_dict(
        {
            "data": {"source": "npz", "image_size": [height, WIDTH], "channels": 3, "bit_depth": 3},
            "encoder": encoder or {"type": "autoencoder", "size": size, "filters": 3},
            "model": {"filters": 3, "layers": 2, "kernel_size": 3, "likelihood": "logistic_mixture", "mixtures": 2},
            "train": {"max_steps": 1, "objective": objective},
            "sample": {"tile": 4},
        },
        "tests",
    )
    model = build_trained(recipe, DataInfo(3, height, WIDTH, 3))
    generator = torch.Generator().manual_seed(size)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.2)
    save_model(model, recipe, Path("runs") / name, "A test.\n")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of m = 2 and 5, autoencoders of the same, pictures ``a.png`` and ``b.png``, and a data set."""
    monkeypatch.chdir(tmp_path)
    save_tiny_models(Path("runs"))
    for size in (2, 5):
        save(f"bits-{size}", size, "likelihood")
        save(f"error-{size}", size, "squared_error")
    pixels = np.random.default_rng(0).integers(0, 256, (40, HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels[0]).save("a.png")
    Image.fromarray(pixels[1]).save("b.png")
    np.savez("data.npz", x=pixels)


@pytest.fixture
def condgen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """The JSON object that a command prints, its exit code in it, and what was asked of its sheet."""
    rows: list[Any] = []
    real = draw.sheet

    def sheet(given: Any, **named: Any) -> Image.Image:
        rows[:] = [*given, named["columns"]]
        return real(given, **named)

    monkeypatch.setattr(draw, "sheet", sheet)

    def call(*arguments: object) -> Any:
        capsys.readouterr()
        code = run(app(), ["reconstruct", *map(str, arguments), "--json", "--quiet"])
        return {"code": code, "rows": rows[:-1], "columns": rows[-1:]} | json.loads(capsys.readouterr().out)

    return call


def pixels_of(name: str) -> Tensor:
    return torch.from_numpy(np.array(Image.open(name))).permute(2, 0, 1)[None] >> 5


def test_the_sheet_of_files(condgen: Call) -> None:
    pairs = ("--model", "bits-2", "--model", "bits-5", "--baseline", "error-2", "--baseline", "error-5")
    found = condgen("a.png", "b.png", *pairs, "--count", 3, "--seed", 4, "--out", "sheet.png")
    assert (found["code"], found["file"], found["images"]) == (0, "sheet.png", ["a.png", "b.png"])
    labels = [label for label, _ in found["rows"]]
    assert labels == ["a.png, m = 2", "a.png, m = 5", "b.png, m = 2", "b.png, m = 5"]
    assert found["columns"] == [["original", "squared error", "sample", "sample", "sample"]]
    images = {name: pixels_of(name) for name in ("a.png", "b.png")}
    samples: dict[int, dict[str, np.ndarray]] = {}
    for size in (2, 5):
        model, error = load(f"bits-{size}"), load(f"error-{size}")
        samples[size] = {}
        for name, x in images.items():
            row = dict(found["rows"])[f"{name}, m = {size}"] >> 5
            h = model.encode(image=x)
            expected, nats = model.sample_and_log_prob(h, 3, seed=4, tile=4, sampler="naive")
            assert np.array_equal(row[0], x[0])
            assert np.array_equal(row[1], error.reconstruct(error.encode(image=x))[0])
            assert np.array_equal(row[2:], expected)
            samples[size][name] = draw.displayable(expected, 3)
            figures = found["models"][0 if size == 2 else 1]
            assert figures["log_prob"][0 if name == "a.png" else 1] == pytest.approx(nats.tolist(), rel=1e-5)
            assert figures["vector_size"] == size and figures["seeds"] == [[4, 0], [4, 1], [4, 2]]
    originals = draw.displayable(torch.cat(list(images.values())), 3)
    for k, size in enumerate((2, 5)):
        drawn = np.concatenate(list(samples[size].values()))
        assert found["models"][k]["sharpness"] == pytest.approx(sharpness(drawn, originals), rel=1e-9)
        error = load(f"error-{size}")
        copies = draw.displayable(torch.cat([error.reconstruct(error.encode(image=x)) for x in images.values()]), 3)
        facts = found["baselines"][k]
        assert facts["sharpness"] == pytest.approx(sharpness(copies, originals), rel=1e-9)
        assert facts["squared_error"] == pytest.approx(np.mean((copies / 255.0 - originals / 255.0) ** 2), rel=1e-9)
    with Image.open("sheet.png") as picture:
        assert picture.width > 5 * WIDTH and picture.height > 4 * HEIGHT


def test_files_are_named_as_they_were_given(condgen: Call) -> None:
    Path("deep").mkdir()
    for name in ("deep/a.png", "b.png"):
        Path(name).write_bytes(Path("a.png").read_bytes())
    files = ["deep/a.png", "./b.png", str(Path("a.png").absolute())]
    found = condgen(*files, "--model", "bits-2", "--count", 1)
    assert found["images"] == files
    assert [label for label, _ in found["rows"]] == ["a.png", "b.png", "a.png"]


def test_held_out_images_of_the_models_own_data(condgen: Call, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("--data-split", "test", "data.root=data.npz", "data.test=0.5")
    found = condgen(*data, "--model", "bits-2", "--images", 3, "--count", 1)
    assert found["code"] == 0, found["message"]
    assert found["file"] == "reconstructions.png" and found["baselines"] == []
    assert len(found["images"]) == 3 and all(name.startswith("test ") for name in found["images"])
    assert found["columns"] == [["original", "sample"]]
    again = condgen(*data, "--model", "bits-2", "--images", 3, "--count", 1)
    assert again["images"] == found["images"] and again["file"] == "reconstructions-2.png"
    for (_, one), (_, other) in zip(found["rows"], again["rows"], strict=True):
        assert np.array_equal(one, other)
    # how many others are on the sheet changes no picture
    more = condgen(*data, "--model", "bits-2", "--images", 20, "--count", 2)
    rows = dict(more["rows"])
    assert all(np.array_equal(rows[label][:2], row) for label, row in found["rows"] if label in rows)
    assert run(app(), ["reconstruct", "a.png", "--model", "bits-2", "--baseline", "error-2", "--quiet"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "4 samples: reconstructions-4.png"
    assert [line.split()[0] for line in out[1:]] == ["sharpness", "sharpness"] and "runs/error-2 (m = 2)" in out[2]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["a.png"], 2, "There is no model; name a run by --model."),
        (["--model", "bits-2"], 2, "Name image files, or a part of the model's own data by --data-split, not"),
        (["a.png", "--images", "3", "--model", "bits-2"], 2, "--images is how many of --data-split are taken"),
        (["a.png", "--data-split", "test", "--model", "bits-2"], 2, "Name image files, or"),
        (["--data-split", "tset", "--model", "bits-2"], 2, "did you mean test?"),
        (["a.png", "--modle", "bits-2"], 2, "--modle"),
        (["a.png", "--model", "bits-2", "--out", "sheet.jpg"], 2, "ends in .png"),
        (["a.png", "--model", "bits-2", "--out", "a.png"], 2, "--force"),
        (["a.png", "--model", "bits-2", "model.filters=4"], 2, "model.filters"),
        (["a.png", *["--model", "bits-2"] * 3, *["--baseline", "error-2"] * 2], 2, "once or as often as --model (3)"),
        (["--data-split", "test", "--images", "1000", "--count", "9", "--model", "bits-2"], 2, "beyond the 2,048"),
        (["none.png", "--model", "bits-2"], 3, "none.png"),
        (["broken.png", "--model", "bits-2"], 3, "broken.png"),
        (["--data-split", "test", "--model", "bits-2"], 3, "data.root"),
        (["a.png", "--model", "nowhere"], 4, "There is no run or model nowhere"),
        (["a.png", "--model", "pets"], 4, "does not embed images (encoder.type=labels)"),
        (["a.png", "--model", "plain"], 4, "does not embed images (encoder.type=none)"),
        (["a.png", "--model", "small"], 4, "use condgen colorize"),
        (["a.png", "--model", "error-2"], 4, "has no likelihood"),
        (["a.png", "--model", "bits-2", "--baseline", "bits-5"], 4, "a baseline is trained by"),
        (["a.png", "--model", "bits-2", "--baseline", "taller"], 4, "give models of one shape"),
    ],
)  # fmt: skip
def test_refusals(condgen: Call, arguments: list[str], code: int, sentence: str) -> None:
    save("taller", 2, "squared_error", HEIGHT + 1)
    save("small", 2, "likelihood", type="grey")
    Path("broken.png").write_bytes(Path("a.png").read_bytes()[:50])
    found = condgen(*arguments)
    assert (found["code"], found["ok"]) == (code, False) and sentence in found["message"]
    assert found["message"].count("\n") == 0 and not list(Path().glob("reconstructions*"))


@pytest.mark.parametrize("command", ["sample", "evaluate", "score", "verify", "complete"])
def test_commands_that_need_a_likelihood_refuse_the_autoencoder(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = {
        "score": ["error-2", "a.png"],
        "complete": ["a.png", "--model", "error-2", "--rows", "1"],
        "verify": ["runs/error-2"],
    }
    assert run(app(), [command, *target.get(command, ["error-2"]), "--json", "--quiet"]) == 4
    found = json.loads(capsys.readouterr().out)
    assert "has no likelihood" in found["message"] and found["field"] == "train.objective"


def test_a_picture_is_a_word_of_sample(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["sample", "bits-2", "--image", "a.png", "--count", "2", "--out", "drawn.png", "--json", "--quiet"]
    assert run(app(), arguments) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == ["a.png"]
    assert run(app(), ["sample", "bits-2", "--json", "--quiet"]) == 2
    assert "give --image" in json.loads(capsys.readouterr().out)["message"]
