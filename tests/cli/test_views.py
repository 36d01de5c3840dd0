"""``upscale``, ``colorize``, and ``complete`` by a model that sees the masked image: sheets, words and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from condgen import draw, progress
from condgen.cli.app import app
from condgen.cli.outcome import run
from condgen.condition import DataInfo
from condgen.recipe import recipe_from_dict
from condgen.recipe.build import build_model
from condgen.store import load, save_model

H, W = 6, 4
Call = Callable[..., Any]
MODELS: dict[str, dict[str, Any]] = {
    "sharp": {"type": "low_resolution", "factor": 2},
    "sharp-pets": {"type": "low_resolution", "factor": 2, "label": "one_hot"},
    "coloured": {"type": "grey"},
    "whole": {"type": "masked", "label": "attributes"},
    "plain": {"type": "none"},
}
KNOWN = np.arange(H * W).reshape(H, W) % 3 > 0


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folders of random weights over RGB images of three bits."""
    folder = tmp_path_factory.mktemp("models")
    for name, encoder in MODELS.items():
        recipe = recipe_from_dict(
            {
                "data": {"source": "npz", "image_size": [H, W], "channels": 3, "bit_depth": 3},
                "encoder": encoder if name == "plain" else {**encoder, "features": 8},
                "model": {"filters": 3, "layers": 2, "kernel_size": 3, "likelihood": "logistic_mixture", "mixtures": 2},
                "train": {"max_steps": 1},
                "sample": {"tile": 2},
            },
            "tests",
        )
        model = build_model(recipe, DataInfo(3, H, W, 3, classes=("cat", "dog"), attributes=("hat", "beard")))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
        save_model(model, recipe, folder / name, "A test.\n")
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").symlink_to(models)
    generator = np.random.default_rng(0)
    for name, (height, width) in {"full": (H, W), "low": (H // 2, W // 2), "large": (4 * H, 4 * W)}.items():
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(f"{name}.png")
    Image.fromarray(generator.integers(0, 256, (H, W), dtype=np.uint8)).save("grey.png")
    Image.fromarray(np.where(KNOWN, 0, 255).astype(np.uint8)).save("mask.png")
    Image.fromarray(generator.integers(0, 256, (2, 9, 3), dtype=np.uint8)).save("tiny.png")
    Path("text.png").write_text("no picture")
    Path("cut.png").write_bytes(Path("full.png").read_bytes()[:50])


@pytest.fixture
def condgen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Call]:
    """The JSON object that a command prints, its exit code in it, and the rows of the sheet that it draws."""
    rows: list[Any] = []
    real = draw.sheet

    def sheet(given: Any, **named: Any) -> Image.Image:
        rows[:] = given
        return real(given, **named)

    monkeypatch.setattr(draw, "sheet", sheet)

    def call(*arguments: object) -> Any:
        capsys.readouterr()
        code = run(app(), [*map(str, arguments), "--json", "--quiet"])
        return {"code": code, "rows": rows} | json.loads(capsys.readouterr().out)

    yield call
    progress.set_quiet(False)


def pixels(name: str) -> Tensor:
    return torch.from_numpy(np.array(Image.open(name).convert("RGB"))).permute(2, 0, 1) >> 5


def test_upscale_shows_input_samples_and_the_original_where_it_is_known(condgen: Call) -> None:
    files = ("low.png", "full.png", "large.png")
    found = condgen("upscale", *files, "--model", "sharp", "--count", 3, "--seed", 5)
    assert (found["code"], found["file"], found["original_known"]) == (0, "low-upscaled.png", [False, True, True])
    assert [label for label, _ in found["rows"]] == list(files) and Path(found["file"]).exists()
    model = load("sharp")
    low, full = pixels("low.png"), pixels("full.png")
    for k, images in enumerate((low.repeat_interleave(2, 1).repeat_interleave(2, 2), full)):
        row = found["rows"][k][1] >> 5
        expected = model.sample(model.encode(image=images[None]), 3, seed=5, tile=2)
        assert len(row) == (4, 5)[k] and np.array_equal(row[1:4], expected)
        mean = (2 * images.long().unflatten(2, (-1, 2)).sum(3).unflatten(1, (-1, 2)).sum(2) + 4) // 8
        assert np.array_equal(row[0][:, ::2, ::2], mean)
    assert np.array_equal(found["rows"][0][1][0][:, ::2, ::2] >> 5, low)
    assert np.array_equal(found["rows"][1][1][-1] >> 5, full)
    assert np.shape(found["log_prob"]) == (3, 3) and found["seeds"] == [[5, 0], [5, 1], [5, 2]]
    alone = condgen("upscale", "full.png", "--model", "sharp", "--count", 3, "--seed", 5, "sample.tile=2")
    assert np.allclose(alone["log_prob"][0], found["log_prob"][1], rtol=1e-5)  # in another company


def test_a_label_is_for_all_images_or_for_each(condgen: Call) -> None:
    model, image = load("sharp-pets"), pixels("full.png")[None]
    found = condgen("upscale", "full.png", "full.png", "--model", "sharp-pets", "--label", "cat", "--label", "dog")
    for k, label in enumerate(("cat", "dog")):
        expected = model.sample(model.encode(image=image, label=label), 4, tile=2)
        assert np.array_equal(found["rows"][k][1][1:-1] >> 5, expected)
    assert condgen("upscale", "full.png", "--model", "sharp-pets", "--label", "cat", "--count", 1)["code"] == 0
    words = ("full.png", "--label", "cat", "--label", "dog")
    bad = condgen("upscale", *words, "--model", "sharp-pets")
    assert (bad["code"], bad["message"]) == (2, "--label is given 2 times; give it once.")
    bad = condgen("upscale", "full.png", "--model", "sharp-pets")
    assert (bad["code"], bad["message"]) == (2, "The model is conditional on a label as well; give --label.")
    sampled = condgen("sample", "sharp-pets", "--image", "low.png", "--label", "dog", "--count", 2, "--out", "s.png")
    assert sampled["code"] == 0 and sampled["labels"] == ["dog, low.png"]
    scored = condgen("score", "sharp-pets", "full.png", "--label", "dog")
    nats = model.log_prob(image, model.encode(image=image, label="dog"))
    assert scored["images"][0]["bits"] == pytest.approx(-float(nats.detach()) / np.log(2), rel=1e-5)


def test_colorize_takes_the_colours_away_and_draws_others(condgen: Call) -> None:
    found = condgen("colorize", "full.png", "grey.png", "--model", "coloured", "--count", 2)
    assert (found["code"], found["file"], found["original_known"]) == (0, "full-colorized.png", [True, False])
    (_, coloured), (_, grey) = found["rows"]
    assert (len(coloured), len(grey)) == (4, 3)
    assert np.array_equal(coloured[0][0], coloured[0][2]) and np.array_equal(coloured[-1] >> 5, pixels("full.png"))
    assert np.array_equal(grey[0] >> 5, pixels("grey.png"))


@pytest.mark.parametrize("sampler", ["auto", "fixed_point", "naive"])
def test_complete_sees_all_known_pixels_and_keeps_them(condgen: Call, sampler: str) -> None:
    words = ("--mask", "mask.png", "--model", "whole", "--label", "hat", "--count", 3, "--sampler", sampler)
    found = condgen("complete", "full.png", *words, "--seed", 1)
    known = int(KNOWN.sum())
    assert (found["code"], found["known"], found["note"]) == (0, known, f"The model sees all {known} known pixels.")
    model, image, mask = load("whole"), pixels("full.png"), torch.from_numpy(KNOWN)
    h = model.encode(image=image[None], known=mask[None], label="hat")
    expected = model.sample(h, 3, seed=1, known=image[None], mask=mask, tile=2)
    completed = found["rows"][0][1][2:] >> 5
    assert np.array_equal(completed, expected)
    assert all(np.array_equal(picture[:, KNOWN], image[:, KNOWN]) for picture in completed)
    assert bool((expected[:, :, ~mask] != image[:, ~mask]).any())
    # what is known after the last pixel of the hole, in raster order, changes what is drawn before it
    late = image.clone()
    late[:, -1, -1] = 7 - late[:, -1, -1]
    other = model.log_prob_map(image[None], model.encode(image=late[None], known=mask[None], label="hat"))
    assert not torch.equal(other[0, 0], model.log_prob_map(image[None], h)[0, 0])


def test_complete_without_a_label_leaves_the_attributes_unknown(condgen: Call) -> None:
    found = condgen("complete", "full.png", "--rows", 2, "--model", "whole", "--count", 1)
    model, image = load("whole"), pixels("full.png")
    known = torch.zeros(H, W, dtype=torch.bool)
    known[:2] = True
    h = model.encode(image=image[None], known=known[None], label="")
    assert np.array_equal(
        found["rows"][0][1][2:] >> 5, model.sample(h, 1, known=image[None], mask=known, tile=2)
    ) and found["labels"] == [""]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["upscale", "text.png", "--model", "sharp"], 3, "text.png is no usable picture"),
        (["upscale", "cut.png", "--model", "sharp"], 3, "cut.png is no usable picture"),
        (["upscale", "low.png", "absent.png", "--model", "sharp"], 3, "absent.png cannot be opened"),
        (
            ["upscale", "low.png", "tiny.png", "--model", "sharp"],
            3,
            "tiny.png is no usable picture: it is 9x2 where at least 2x3 is wanted; give a larger one.",
        ),
        (["sample", "sharp", "--image", "tiny.png"], 3, "tiny.png is no usable picture: it is 9x2 where at least 2x3"),
        (["upscale", "runs", "--model", "sharp"], 3, "runs is not a regular file"),
        (["upscale", "low.png", "--model", "coloured"], 4, "coloured sees no low resolution; give a model with"),
        (["upscale", "low.png", "--model", "plain"], 4, "plain sees no low resolution"),
        (["upscale", "low.png", "--model", "none"], 4, "There is no run or model none"),
        (["upscale", "low.png", "--model", "sharp", "--label", "cat"], 2, "--label: no option, and no word of this"),
        (["upscale", "low.png", "--model", "sharp", "--cuont", "2"], 2, "--cuont: no option, and no word of this"),
        (["upscale", "low.png", "--model", "sharp", "--out", "x.jpg"], 2, "x.jpg: a picture is written as PNG"),
        (["upscale", "low.png", "--model", "sharp", "--out", "low.png"], 2, "low.png exists"),
        (["upscale", "low.png", "--model", "sharp", "model.filters=3"], 2, "model.filters: a model that is trained"),
        (["upscale", "sample.tile=2", "--model", "sharp"], 2, "There is no image to upscale; name a file."),
        (["colorize", "full.png", "--model", "sharp"], 4, "sharp sees no grey images; give a model with"),
        (["colorize", "text.png", "--model", "coloured"], 3, "text.png is no usable picture"),
        (["complete", "full.png", "--mask", "low.png", "--model", "whole"], 3, "low.png is 2x3 and the model's images"),
        (["complete", "full.png", "--mask", "text.png", "--model", "whole"], 3, "text.png is no usable picture"),
        (["sample", "whole"], 4, "whole completes images; use condgen complete IMAGE --mask M.png --model whole."),
        (["score", "whole", "full.png"], 4, "A model that completes images scores none without a hole"),
        (["sample", "sharp"], 2, "The model is conditional; give --image."),
    ],
    ids=str,
)
def test_refusals_are_one_sentence(condgen: Call, arguments: list[str], code: int, message: str) -> None:
    before = set(Path().iterdir())
    found = condgen(*arguments)
    assert found["code"] == code and found["message"].startswith(message), found["message"]
    assert found["message"].count(". ") == 0 and set(Path().iterdir()) == before
