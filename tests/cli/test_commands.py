"""Every command, run on tiny models: its JSON, its text, its refusals."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from condgen import progress
from condgen.cli.app import app
from condgen.cli.outcome import run
from condgen.recipe import read_recipe

TINY = """
description: tiny
data:
  image_size: [16, 20]
  identities: 8
  views: 2
encoder:
  type: labels
  code: attributes
model:
  filters: 4
  layers: 2
  kernel_size: 3
  likelihood: logistic_mixture
  mixtures: 2
  conditioning: both
  map_channels: 2
train:
  batch_size: 4
  max_steps: 2
  warmup_steps: 0
  evaluate_images: 4
  tensorboard: false
sample:
  count: 0
"""


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def object(self) -> dict[str, Any]:
        """The one JSON object that stdout holds."""
        assert self.out.count("\n") == 1, self.out
        found: dict[str, Any] = json.loads(self.out)
        return found


Condgen = Callable[..., Result]


@pytest.fixture
def condgen(capsys: pytest.CaptureFixture[str]) -> Iterator[Condgen]:
    """Runs the command line in this process."""

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        code = run(app(), [str(argument) for argument in arguments])
        return Result(code, *capsys.readouterr())

    yield call
    progress.set_quiet(False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``tiny.yaml``, ``runs/tiny`` (two steps), and the model folders ``runs/plain`` (unconditional) and
    ``runs/small`` (4x5 pixels, to be verified quickly)."""
    from condgen.condition import DataInfo
    from condgen.recipe.build import build_model
    from condgen.store import save_model
    from condgen.train import train

    folder = tmp_path_factory.mktemp("home")
    (folder / "tiny.yaml").write_text(TINY)
    before = Path.cwd()
    os.chdir(folder)
    try:
        train("tiny.yaml", quiet=True)
    finally:
        os.chdir(before)
    recipe = read_recipe(folder / "tiny.yaml", {"encoder.type": "none"})
    save_model(build_model(recipe, DataInfo(3, 16, 20)), recipe, folder / "runs" / "plain", "A test.\n")
    recipe = read_recipe(folder / "tiny.yaml", {"data.source": "npz", "data.image_size": [4, 5]})
    info = DataInfo(3, 4, 5, attributes=("hat", "glasses"))
    save_model(build_model(recipe, info), recipe, folder / "runs" / "small", "A test.\n")
    return folder


@pytest.fixture(autouse=True)
def at_home(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    monkeypatch.setenv("COLUMNS", "100")


COMMANDS = [
    *("train", "sample", "complete", "upscale", "colorize", "reconstruct", "portraits", "interpolate", "embed"),
    *("evaluate", "score", "verify", "import", "recipes", "encoders", "doctor"),
]


def commands() -> dict[str, Any]:
    found: dict[str, Any] = app().commands
    return found


def test_the_commands_are_these() -> None:
    assert list(commands()) == COMMANDS


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_as_checked_in(condgen: Condgen, command: str) -> None:
    """``tests/cli/help/*.txt``: run with CONDGEN_WRITE_HELP=1 to write them anew."""
    result = condgen(*([command] if command else []), "--help")
    assert result.code == 0 and "\x1b" not in result.out
    file = Path(__file__).parent / "help" / f"{command or 'condgen'}.txt"
    if os.environ.get("CONDGEN_WRITE_HELP"):
        file.write_text(result.out)
    if not metadata.version("typer").startswith("0.29."):
        pytest.skip("another typer lays help out in another way")
    assert result.out == file.read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_is_for(command: str) -> None:
    parameters = {parameter.name: parameter for parameter in commands()[command].params}
    for name in ("as_json", "quiet", "debug"):
        assert name in parameters, f"{command} lacks --{name}"
    for parameter in parameters.values():
        assert getattr(parameter, "help", "") and len(parameter.help) < 90, (command, parameter.name)
    # the same option means the same everywhere
    for other in commands().values():
        for parameter in other.params:
            if parameter.name in {"seed", "device", "as_json", "quiet", "debug", "weights", "checkpoint", "force"}:
                mine = parameters.get(parameter.name)
                assert mine is None or (mine.opts, mine.help) == (parameter.opts, parameter.help)


def test_help_answers_in_half_a_second_without_torch() -> None:
    script = "import sys; from condgen.cli import main\ntry: main()\nfinally: print(sorted({'torch', 'numpy', 'rich'} & set(sys.modules)), file=sys.stderr)"  # noqa: E501
    took = []
    for _ in range(3):  # the best of three: the machine may be busy
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=True)
        took.append(time.perf_counter() - begun)
        assert done.stderr == "[]\n"
    assert min(took) < 0.5


def test_python_m_condgen_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "condgen", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"condgen {metadata.version('condgen')}\n"


def test_a_module_beside_the_recipe_shadows_nothing(tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text("raise SystemExit('shadowed')")
    script = Path(sys.executable).parent / "condgen"
    if not script.exists():
        pytest.skip("condgen is not installed as a script beside this Python")
    done = subprocess.run([script, "recipes"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "quickstart" in done.stdout


# train


def test_train_continues_and_says_what_it_came_to(condgen: Condgen) -> None:
    text = condgen("train", "tiny.yaml", "--quiet")  # finished already: nothing is left to do
    assert text.code == 0 and text.err == ""
    assert re.fullmatch(r"runs/tiny: 2 steps, \d\.\d{3} ± \d\.\d{3} bits/dim on validation images\n", text.out)
    found = condgen("train", "tiny.yaml", "--json").object
    assert (found["run"], found["steps"]) == ("runs/tiny", 2)
    assert f"{found['bits_per_dim']:.3f}" in text.out


def test_train_writes_a_new_run(condgen: Condgen, tmp_path: Path) -> None:
    result = condgen("train", "tiny.yaml", "train.max_steps=1", "train.evaluate_images=0", "--out", tmp_path / "new")
    assert (result.code, result.out) == (0, f"{tmp_path}/new: 1 steps, no validation\n")
    started = condgen(
        "train", "tiny.yaml", "train.max_steps=1", "--out", tmp_path / "next", "--init-from", "tiny", "--json"
    )
    assert started.object["steps"] == 1


def test_a_run_of_another_recipe_is_left_alone(condgen: Condgen) -> None:
    before = sorted(Path("runs/tiny").rglob("*"))
    result = condgen("train", "tiny.yaml", "model.filters=5", "--json")
    assert result.code == 4 and result.object["kind"] == "model" and "filters" in result.object["message"]
    assert sorted(Path("runs/tiny").rglob("*")) == before


def test_dry_run(condgen: Condgen) -> None:
    found = condgen("train", "tiny.yaml", "--dry-run", "train.max_steps=77", "--json").object
    assert list(found) == ["parameters", "memory", "data", "recipe"]
    from condgen.store import load

    assert found["parameters"] == sum(weight.numel() for weight in load("tiny").parameters())
    assert found["memory"]["weights"] == 4 * found["parameters"]
    assert found["data"]["train"] == 16
    assert found["recipe"]["train"]["max_steps"] == 77
    text = condgen("train", "tiny.yaml", "--dry-run").out
    assert f"parameters   {found['parameters']:,}\n" in text and "\nimages       train 16, validation " in text
    (Path("again.yaml")).write_text(text.partition("\n\n")[2])  # what it prints is a recipe
    assert read_recipe("again.yaml") == read_recipe("tiny.yaml")


def test_dry_run_needs_no_data(condgen: Condgen, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for recipe in ("fashion-mnist", "cifar10-classes", "imagenet32"):
        found = condgen("train", recipe, "--dry-run", "--json").object
        assert found["data"] is None and found["parameters"] > 0
    text = condgen("train", "imagenet32", "encoder.type=labels", "--dry-run").out
    assert " (with 10 classes: the data are not here)\n" in text and "images       the set is absent" in text
    missing = condgen("train", "imagenet32", "--dry-run", f"data.root={tmp_path}/none")
    assert missing.code == 3 and f"{tmp_path}/none" in missing.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["quikstart"], 2, "There is no recipe 'quikstart'; did you mean quickstart?"),
        (["tiny.yaml", "train.learn_rate=1"], 2, "train.learn_rate: no such field; did you mean train.learning_rate?"),
        (
            ["tiny.yaml", "encoder.type=label"],
            2,
            "encoder.type: no encoder 'label' is installed; did you mean 'labels', or is there a package to pip "
            "install?",
        ),
        (["tiny.yaml", "encoder.code=one_hot"], 2, "encoder.code: one_hot needs classes"),
        (["tiny.yaml", "train.batch_size=1e9"], 2, "train.batch_size or train.micro_batch: this takes about"),
        (["tiny.yaml", "model.filters=4096", "model.layers=200"], 2, "model.filters or model.layers: this takes about"),
        (["tiny.yaml", "data.source=folder", "data.root=/none"], 3, "data.root: /none is no folder"),
        (["tiny.yaml", "--device", "cuda:77"], 6, "The device cuda:77 is missing"),
        (["tiny.yaml", "--device", "abacus"], 6, "There is no device 'abacus'"),
        (["tiny.yaml", "--gpus", "0"], 2, "Invalid value for '--gpus'"),
        (["tiny.yaml", "--gpus", "999"], 6, "--gpus: 999 GPUs are asked for"),
        (["tiny.yaml", "--init-from", "nothing", "--out", "runs/fresh"], 4, "There is no run or model nothing"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_train_refuses_before_anything_is_written(
    condgen: Condgen, arguments: list[str], code: int, message: str
) -> None:
    before = sorted(Path().rglob("*"))
    begun = time.monotonic()
    result = condgen("train", *arguments)
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith(f"condgen: error: {message}") and result.err.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
    assert time.monotonic() - begun < 20


# sample


def test_sample_draws_a_sheet(condgen: Condgen, tmp_path: Path) -> None:
    arguments = ["sample", "tiny", "--label", "glasses", "--label", "no hat", "--count", 2, "--seed", 7]
    result = condgen(*arguments, "--out", tmp_path / "a.png", "--json")
    found = result.object
    assert found["file"] == str(tmp_path / "a.png")
    assert (found["labels"], found["count"], found["seeds"]) == (["glasses", "no hat"], 2, [[7, 0], [7, 1]])
    assert np.array(found["bits_per_dim"]).shape == (2, 2)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width > 2 * 20 and picture.height > 2 * 16
    # again: the same bytes, and never over a file that is there
    assert condgen(*arguments, "--out", tmp_path / "b.png").out == f"4 images: {tmp_path}/b.png\n"
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert condgen(*arguments, "--out", tmp_path / "b.png").code == 2
    assert condgen(*arguments[:-1], 8, "--out", tmp_path / "b.png", "--force").code == 0
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_sample_chooses_rows_and_a_free_name(condgen: Condgen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Path("runs").resolve()
    monkeypatch.chdir(tmp_path)
    found = condgen("sample", runs / "tiny", "--count", 1, "--json").object
    assert len(found["labels"]) > 3 and found["file"] == "tiny-samples.png"  # the encoder's own examples
    found = condgen("sample", runs / "tiny", "sample.labels=[glasses]", "--count", 1, "--json").object
    assert found["labels"] == ["glasses"] and found["file"] == "tiny-samples-2.png"
    found = condgen("sample", runs / "plain", "--count", 3, "--json").object
    assert found["labels"] == [""] and len(found["bits_per_dim"][0]) == 3
    assert condgen("sample", runs / "plain", "sample.count=2", "--json").object["count"] == 2


def test_sampled_images_score_as_they_were_drawn(condgen: Condgen, tmp_path: Path) -> None:
    """The bits that sample reports are those that the model gives to the very pixels in the sheet."""
    found = condgen("sample", "plain", "--count", 1, "--out", tmp_path / "one.png", "--json").object
    from condgen.store import load

    model = load("plain")
    images = model.sample(count=1, seed=found["seeds"][0][0])
    bits = -float(model.log_prob(images).detach()) / np.log(2) / (3 * 16 * 20)
    assert found["bits_per_dim"] == [[pytest.approx(bits, rel=1e-5)]]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none"], 4, "There is no run or model none"),
        (["tiny", "--label", "glases"], 2, "--label: there is no attribute 'glases'; did you mean 'glasses'?"),
        (["tiny", "--label", "x" * 10**6], 2, "--label: 1,000,000 characters are no word; shorten it."),
        (
            ["tiny", "--cout", "3"],
            2,
            "--cout: no option, and no word of this encoder (it has --label); did you mean --count?",
        ),
        (["tiny", "--source"], 2, "--source: unknown, or a word of the encoder without its value."),
        (["tiny", "--source", "--json"], 2, None),
        (["tiny", "--count", "1e18"], 2, "Invalid value for '--count'"),
        (["tiny", "--count", "0"], 2, "Invalid value for '--count'"),
        (["tiny", "--temperature", "nan"], 2, "The temperature is a number above 0, not nan."),
        (["tiny", "--temperature", "-1"], 2, "The temperature is a number above 0, not -1.0."),
        (["tiny", "--sampler", "fast"], 2, "There is no sampler 'fast'"),
        (["tiny", "--seed", "-1"], 2, "Invalid value for '--seed'"),
        (["tiny", "--out", "x.jpg"], 2, "x.jpg: a picture is written as PNG; give a name that ends in .png."),
        (["tiny", "--out", "none/x.png"], 2, "none/x.png: there is no folder none; make it first."),
        (["tiny", "--checkpoint", "7"], 4, None),
        (["tiny", "--checkpoint", "lats"], 2, "--checkpoint: expected last, best or a step, found 'lats'."),
        (["tiny", "--weights", "eam"], 2, "--weights: there is no 'eam'; did you mean ema?"),
        (
            ["tiny", "train.seed=3"],
            2,
            "train.seed: a model that is trained takes fields of sample alone; leave it out.",
        ),
        (["tiny", "sample.tiel=3"], 2, "sample.tiel: no such field; did you mean sample.tile?"),
        (["plain", "--label", "glasses"], 2, "--label: no option, and no word of this encoder (it has none)."),
        (["tiny", "--vector", "nothing.npy"], 2, "--vector: no option, and no word of this encoder (it has --label)"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_sample_refuses(condgen: Condgen, arguments: list[str], code: int, message: str | None) -> None:
    result = condgen("sample", *arguments)
    assert result.code == code
    if message is not None:
        assert result.err.startswith(f"condgen: error: {message}") and result.err.count("\n") == 1


# evaluate


def test_evaluate(condgen: Condgen) -> None:
    found = condgen("evaluate", "tiny", "--limit", 6, "--json").object
    assert list(found) == [
        "bits_per_dim",
        "bits_per_dim_ci95",
        "bits_per_dim_shuffled",
        "bits_per_dim_no_condition",
        "shuffle_gap_bits",
        "shuffle_gap_bits_ci95",
        "condition_bits",
        "condition_bits_ci95",
        "dimensions",
        "examples",
        "split",
        "bit_depth",
        "baseline_png",
        "baseline_webp",
    ]
    assert (found["examples"], found["split"], found["dimensions"]) == (6, "test", 3 * 16 * 20)
    text = condgen("evaluate", "tiny", "--limit", 6, "--quiet")
    assert text.err == ""
    for key in ("bits_per_dim", "baseline_png", "baseline_webp", "bits_per_dim_shuffled"):
        assert f"{found[key]:.4f}" in text.out
    other = condgen("evaluate", "tiny", "data.split_seed=5", "--limit", 6, "--split", "validation", "--json").object
    assert other["split"] == "validation" and other["bits_per_dim"] != found["bits_per_dim"]
    raw = condgen("evaluate", "tiny", "--limit", 6, "--weights", "raw", "--checkpoint", 2, "--json").object
    assert raw["bits_per_dim"] != found["bits_per_dim"]
    plain = condgen("evaluate", "plain", "--limit", 6, "--json").object
    assert plain["bits_per_dim_shuffled"] is None


def test_evaluate_by_another_rule_and_in_another_precision(condgen: Condgen) -> None:
    def bits(*overrides: str) -> float:
        return float(condgen("evaluate", "tiny", *overrides, "--limit", 6, "--json").object["bits_per_dim"])

    single, double = bits(), bits("train.precision=fp64")
    assert single != double and single == pytest.approx(double, rel=1e-5)
    classic = bits("model.likelihood_rule=classic", "train.precision=fp64")
    assert classic != double and classic == pytest.approx(double, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["tiny", "--split", "tset"], 2, "--split: there is no 'tset'; did you mean test?"),
        (["tiny", "--limit", "0"], 2, "Invalid value for '--limit'"),
        (["tiny", "data.bit_depth=2"], 2, "data.bit_depth is 2, but the model's images have 8 bits"),
        (["tiny", "data.source=npz", "data.root=/none.npz"], 3, "data.root: /none.npz"),
        (
            ["tiny", "model.filters=3"],
            2,
            "model.filters: a model that is trained takes fields of data, model.likelihood_rule and train.precision "
            "alone; leave it out.",
        ),
        (["tiny", "train.precision=fp8"], 2, "train.precision"),
        (
            ["tiny", "train.precision=bf16"],
            2,
            "train.precision: models are evaluated in fp32 or fp64, not bf16; choose",
        ),
    ],
    ids=lambda value: str(value)[:50],
)
def test_evaluate_refuses(condgen: Condgen, arguments: list[str], code: int, message: str) -> None:
    result = condgen("evaluate", *arguments)
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith(f"condgen: error: {message}") and result.err.count("\n") == 1


# score


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    rng = np.random.Generator(np.random.Philox(1))
    found = []
    for k, size in enumerate([(16, 20), (32, 40)]):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / f"picture {k}.png")
        found.append(tmp_path / f"picture {k}.png")
    return found


def test_score(condgen: Condgen, pictures: Sequence[Path], tmp_path: Path) -> None:
    result = condgen("score", "tiny", *pictures, "--label", "glasses", "--map", tmp_path / "map.png", "--json")
    found = result.object
    assert found["map"] == str(tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as drawn:
        assert drawn.format == "PNG" and drawn.width > drawn.height / 4
    assert [row["resized"] for row in found["images"]] == [False, True]
    assert [row["file"] for row in found["images"]] == [str(path) for path in pictures]
    from condgen.data import open_image
    from condgen.store import load

    model = load("tiny")
    image, _ = open_image(pictures[0], 3, 16, 20)
    bits = -float(model.log_prob(image[None], model.encode(label="glasses")).detach()) / np.log(2)
    assert found["images"][0]["bits"] == pytest.approx(bits, rel=1e-5)
    assert found["images"][0]["bits_per_dim"] == pytest.approx(bits / (3 * 16 * 20), rel=1e-5)
    # a label for each image; another way of fitting; text for people
    each = condgen("score", "tiny", *pictures, "--label", "glasses", "--label", "hat", "data.fit=pad")
    assert each.code == 0 and each.out.count("\n") == 2 and "picture 1.png (resized to 20x16)" in each.out
    assert "picture 0.png\n" in each.out
    assert condgen("score", "plain", pictures[0], "--json").object["map"] is None


def test_score_refuses(condgen: Condgen, pictures: Sequence[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(pictures[0].read_bytes()[:60])
    refused: list[tuple[list[object], int, str]] = [
        (["tiny", pictures[0]], 2, "The model is conditional; say with --label what the images show."),
        (["tiny", pictures[0], "--label", "a hat"], 2, "--label: there is no attribute 'a hat'"),
        (
            ["tiny", *pictures, *["--label", "hat"] * 3],
            2,
            "There are 3 conditions for 2 images; give one, or one for each.",
        ),
        (["tiny", "none.png", "--label", "hat"], 3, "none.png cannot be opened (No such file or directory)"),
        (["tiny", tmp_path / "broken.png", "--label", "hat"], 3, f"{tmp_path}/broken.png is no usable picture"),
        (["tiny", pictures[0], "--label", "hat", "train.seed=1"], 2, "train.seed: a model that is trained takes"),
        (["tiny", "data.fit=pad", "--label", "hat"], 2, "There is no image to score; name a file."),
        (
            ["tiny", pictures[0], "--map", pictures[1], "--label", "hat"],
            2,
            f"{pictures[1]} exists; choose another name",
        ),
    ]
    for arguments, code, message in refused:
        result = condgen("score", *arguments)
        assert (result.code, result.out) == (code, ""), arguments
        assert result.err.startswith(f"condgen: error: {message}") and result.err.count("\n") == 1


# verify


def test_verify(condgen: Condgen) -> None:
    result = condgen("verify", "small", "--json")
    assert result.code == 0
    assert set(result.object) >= {"causality", "coverage", "colour_order", "normalisation", "condition"}
    assert set(result.object.values()) == {True}
    text = condgen(
        "verify", "tiny.yaml", "encoder.type=none", "data.source=npz", "data.image_size=4"
    )  # random weights, no condition to reach anything
    assert text.code == 0 and text.out.count("✓") == len(result.object) - 1 and "– condition" in text.out


def test_verify_ends_with_1_if_a_property_fails(condgen: Condgen, monkeypatch: pytest.MonkeyPatch) -> None:
    from condgen.likelihoods import LogisticMixture

    right = LogisticMixture.table
    monkeypatch.setattr(LogisticMixture, "table", lambda *arguments: right(*arguments) + 1e-3)
    result = condgen("verify", "small", "--json")
    assert result.code == 1 and result.object["normalisation"] is False and result.object["causality"] is True
    text = condgen("verify", "small")
    assert text.code == 1 and "✗ normalisation" in text.out
    assert text.err == "condgen: error: small fails normalisation; do not trust its likelihoods or samples.\n"


def test_verify_refuses(condgen: Condgen) -> None:
    assert condgen("verify", "quikstart").code == 4  # neither a run nor a recipe
    assert condgen("verify", "none.yaml").code == 2
    assert condgen("verify", "tiny", "model.filters=3").code == 2


# recipes, encoders, doctor


def test_recipes(condgen: Condgen) -> None:
    rows = condgen("recipes", "--json").object["recipes"]
    assert {"quickstart", "mnist"} <= {row["name"] for row in rows} and all(row["description"] for row in rows)
    text = condgen("recipes").out
    assert all(row["name"] in text and row["description"] in text for row in rows)
    assert condgen("recipes", "mnist").out.startswith("#")
    assert condgen("recipes", "mnist", "--json").object["text"].rstrip("\n") == condgen("recipes", "mnist").out.rstrip(
        "\n"
    )
    wrong = condgen("recipes", "mnits")
    assert (wrong.code, wrong.err) == (2, "condgen: error: There is no recipe 'mnits'; did you mean mnist?\n")


def test_recipes_lists_a_broken_package_s_with_its_reason(condgen: Condgen, monkeypatch: pytest.MonkeyPatch) -> None:
    point = SimpleNamespace(name="stranger", value="no_such_package.recipes", dist=SimpleNamespace(name="strange"))
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point] if group == "condgen.recipes" else [])
    rows = {row["name"]: row["description"] for row in condgen("recipes", "--json").object["recipes"]}
    assert rows["stranger"].startswith("broken: The recipe stranger of strange cannot be found (ModuleNotFoundError:")
    assert rows["quickstart"] and not rows["quickstart"].startswith("broken")
    assert condgen("train", "stranger").code == 4


def test_encoders_lists_a_broken_one_with_its_reason(condgen: Condgen, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        name, value, dist = "broken", "nowhere:Thing", None

        def load(self) -> None:
            raise ImportError("no module named nowhere\x1b[2J")

    from condgen import plugins

    found = plugins._entry_points()
    monkeypatch.setattr(plugins, "_entry_points", lambda: {**found, "broken": [Broken()]})
    rows = {row["name"]: row for row in condgen("encoders", "--json").object["encoders"]}
    assert {"none", "vector", "labels", "broken"} <= set(rows)
    assert rows["labels"]["error"] == "" and "no module named nowhere" in rows["broken"]["error"]
    text = condgen("encoders").out
    assert "broken: " in text and "\x1b" not in text
    assert condgen("train", "tiny.yaml", "encoder.type=broken", "--dry-run").code == 4


def test_doctor(condgen: Condgen) -> None:
    found = condgen("doctor", "--json").object
    assert found["packages"]["torch"] and found["threads"] >= 1 and found["cpus"] >= 1
    assert found["working_folder_writable"] is True and found["cache_folder"]["writable"] is True
    assert isinstance(found["extras"]["tensorboard"], bool)
    text = condgen("doctor").out
    assert found["packages"]["torch"] in text and found["device"] in text
    assert condgen("doctor", "--device", "cuda:77").code == 6


@pytest.mark.parametrize(
    ("speed_up", "said"),
    [(None, "not on this device"), (0.3, "leave train.precision at fp32"), (2.0, "use train.precision=bf16")],
)
def test_doctor_says_whether_bf16_is_worth_it(
    condgen: Condgen, monkeypatch: pytest.MonkeyPatch, speed_up: float | None, said: str
) -> None:
    monkeypatch.setattr("condgen.train.precision.bf16_speed_up", lambda device: speed_up)
    assert condgen("doctor", "--json").object["bf16_speed_up"] == speed_up
    (line,) = [line for line in condgen("doctor").out.splitlines() if line.startswith("bf16")]
    assert said in line


# names that would move the cursor


@pytest.mark.parametrize(
    "arguments",
    [
        ["sample", "\x1b[2J"],
        ["train", "\x1b[2J"],
        ["train", "tiny.yaml", "\x1b[2J"],
        ["train", "tiny.yaml", "train.\x1b[2J=1"],
        ["sample", "tiny", "--label", "\x1b[2J"],
        ["sample", "tiny", "--\x1b[2J", "x"],
        ["score", "plain", "\x1b[2J.png"],
        ["sample", "tiny", "--out", "\x1b[2J.jpg"],
        ["sample", "tiny", "--sampler", "\x1b[2J"],
        ["evaluate", "tiny", "--split", "\x1b[2J"],
        ["recipes", "\x1b[2J"],
        ["\x1b[2J"],
        ["train", "tiny.yaml", "--device", "\x1b[2J"],
        ["train", "tiny.yaml", 'encoder.type="\\e[2J"'],
    ],
    ids=ascii,
)
def test_escapes_in_names_are_made_visible(condgen: Condgen, arguments: list[str]) -> None:
    result = condgen(*arguments)
    assert result.code in (2, 3, 4, 6)
    assert "\x1b" not in result.err and "x1b[2J" in result.err
