"""``--guidance`` of every command that draws: the recipe's by default, whatever the option says otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from condgen.cli.app import app
from condgen.cli.outcome import run
from condgen.condition import DataInfo
from condgen.recipe import recipe_from_dict
from condgen.recipe.build import build_model
from condgen.store import load, save_model

Call = Callable[..., Any]
SIDE = 16
OWN = 1.5
ENCODERS: dict[str, dict[str, Any]] = {
    "named": {"type": "labels", "dropout": 0.1},
    "certain": {"type": "labels"},
    "short": {"type": "autoencoder", "size": 3, "filters": 2, "dropout": 0.1},
    "sharp": {"type": "low_resolution", "factor": 2, "features": 4, "dropout": 0.1},
    "coloured": {"type": "grey", "features": 4, "dropout": 0.1},
    "faces": {"type": "face", "size": 3, "dropout": 0.1},
}
COMMANDS = {
    "sample": ("named", "--label", "cat", "--count", 2),
    "complete": ("a.png", "--model", "named", "--label", "cat", "--rows", 3, "--count", 2),
    "upscale": ("a.png", "--model", "sharp", "--count", 2),
    "colorize": ("a.png", "--model", "coloured", "--count", 2),
    "reconstruct": ("a.png", "--model", "short", "--count", 2),
    "interpolate": ("a.png", "b.png", "--model", "short", "--steps", 2, "--rows", 1),
    "portraits": ("--source", "a.png", "--aligned", "--model", "faces", "--count", 2),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, encoder in ENCODERS.items():
        recipe = recipe_from_dict(
            {
                "data": {"source": "npz", "image_size": SIDE, "bit_depth": 3},
                "encoder": encoder,
                "model": {"filters": 3, "layers": 2, "kernel_size": 3, "likelihood": "logistic_mixture", "mixtures": 2},
                "train": {"max_steps": 1},
                "sample": {"guidance": OWN} if "dropout" in encoder else {},
            },
            "tests",
        )
        model = build_model(recipe, DataInfo(3, SIDE, SIDE, 3, classes=("cat", "dog")))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in model.core.parameters():
                weight += 0.2 * torch.randn(weight.shape, generator=generator)
        save_model(model, recipe, folder / name, "A test.\n")
    return folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").symlink_to(models)
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(f"{name}.png")


@pytest.fixture
def condgen(capsys: pytest.CaptureFixture[str]) -> Call:
    """The JSON object that a command prints, its exit code in it."""

    def call(*arguments: object) -> Any:
        capsys.readouterr()
        code = run(app(), [*map(str, arguments), "--json", "--quiet"])
        return {"code": code} | json.loads(capsys.readouterr().out)

    return call


@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_the_recipe_s_unless_the_command_says_another(condgen: Call, command: str) -> None:
    sheets = {}
    for number, (words, guidance) in enumerate(
        [
            ((), OWN),
            (("--guidance", OWN), OWN),
            (("--guidance", 0), 0),
            (("sample.guidance=0.0",), 0),
            (("sample.guidance=0.0", "--guidance", OWN), OWN),
        ]
    ):
        found = condgen(command, *COMMANDS[command], *words, "--out", f"{number}.png")
        assert found["code"] == 0, found
        said = found["models"][0]["guidance"] if command == "reconstruct" else found["guidance"]
        assert said == guidance, words
        sheets[number] = Path(f"{number}.png").read_bytes()
    assert sheets[0] == sheets[1] == sheets[4] != sheets[2] == sheets[3]


def test_pictures_and_their_probability_are_those_of_the_guided_model(condgen: Call) -> None:
    model: Any = load("named")
    _, nats = model.sample_and_log_prob(model.encode(label="cat"), 2, guidance=OWN)
    found = condgen("sample", "named", "--label", "cat", "--count", 2)
    np.testing.assert_allclose(found["log_prob"][0], nats.numpy(), rtol=1e-6)


def test_a_job_goes_on_with_the_recipe_s_guidance_and_with_no_other(condgen: Call) -> None:
    job = ("sample", "named", "--label", "cat", "--count", 3, "--out", "many")
    assert condgen(*job)["drawn"] == 3
    assert condgen(*job, "--guidance", OWN)["drawn"] == 0
    refused = condgen(*job, "--guidance", 0)
    assert refused["code"] == 2 and "guidance: 1.5, not 0.0" in refused["message"]


def test_a_model_that_never_saw_p_of_x_refuses_it_by_field_and_by_option(condgen: Call) -> None:
    by_field = condgen("sample", "certain", "--label", "cat", "sample.guidance=1")
    assert (by_field["code"], by_field["field"]) == (2, "sample.guidance")
    assert "set encoder.dropout" in by_field["message"] and by_field["message"].count(". ") == 0
    by_option = condgen("sample", "certain", "--label", "cat", "--guidance", 1)
    assert (by_option["code"], by_option["field"]) == (2, "encoder.dropout")
    assert condgen("sample", "certain", "--label", "cat")["guidance"] == 0
    assert condgen("sample", "named", "--label", "cat", "sample.guidance=101")["field"] == "sample.guidance"
