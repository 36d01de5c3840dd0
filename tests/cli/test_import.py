"""``condgen import`` and what follows it: the bits/dim of the golden files, by the command line alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest
from building import tiny_model
from golden import INIT, ORIGINAL, PORT, Golden

from condgen.cli.app import app
from condgen.cli.outcome import run
from condgen.store.layouts import original_entries


@pytest.fixture
def condgen(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs the command line in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(app(), [str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


@golden.needed
@pytest.mark.parametrize("name", [*ORIGINAL, *PORT])
def test_bits_per_dim_of_the_golden_files(condgen: Callable[..., Any], name: str) -> None:
    found = Golden(name)
    expected = float(found.arrays["bits_per_dim"])
    code, out, err = condgen("import", found.path, "--out", "model", "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    sizes = {"filters": "nr_filters", "resnets": "nr_resnet", "mixtures": "nr_logistic_mix"}
    sizes |= {"height": "height", "width": "width"}
    assert {key: facts[key] for key in sizes} == {key: found.config[name] for key, name in sizes.items()}
    assert facts["classes"] == found.config.get("num_classes", 0)
    data = ("data.source=npz", f"data.root={found.path}", "model.likelihood_rule=classic")
    for precision, bound in (("fp64", max(1e-5, 2e-6 * expected)), ("fp32", 5e-5)):
        code, out, _ = condgen("evaluate", "model", *data, f"train.precision={precision}", "--json", "--quiet")
        report = json.loads(out)
        assert code == 0 and report["examples"] == len(found.images)
        assert abs(report["bits_per_dim"] - expected) < bound


@golden.needed
def test_the_initialised_weights_are_imported_too(condgen: Callable[..., Any]) -> None:
    code, out, _ = condgen("import", golden.FOLDER / INIT, "--out", "model")
    assert code == 0
    assert out == (
        "model: weights of openai/pixel-cnn, 40,648 parameters\n"
        "  1 resnets a block, 8 filters, 10 mixture components, concat_elu, 10 classes; 16x16 pixels of 3 channels\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["w.npz"], 2, "Missing option '--out'"),
        (["--out", "model"], 2, "Missing argument 'FILE'"),
        (["none.npz", "--out", "model"], 4, "none.npz cannot be opened (No such file or directory)"),
        (["none", "--out", "model"], 4, "There is no none; name an .npz, .pth, .pt or .safetensors file"),
        (["w.npz", "--out", "model"], 4, "w.npz holds no weights of openai/pixel-cnn or pclucas14/pixel-cnn-pp"),
        (["data.bin", "--out", "model"], 4, "data.bin is no TensorFlow checkpoint, which has an .index file; name an"),
        ([".", "--out", "model"], 4, ". is no TensorFlow checkpoint, which has an .index file; name an .npz"),
        (["none.npz", "--out", ""], 2, "--out: the name is empty; name the model folder to make."),
        (["none.npz", "--out", "no/model"], 2, "no/model cannot be made: no is no folder; make it, or choose another"),
        (["none.npz", "--out", "w.npz/model"], 2, "w.npz/model cannot be made: w.npz is no folder; make it, or"),
        (["w.npz", "--out", "taken"], 2, "taken exists; choose another name or add --force."),
        (["w.npz", "--out", "taken", "--force"], 2, "taken holds something else than a model; choose another name."),
        (["w.npz", "--out", "model", "--image-size", "32,32"], 2, "--image-size: expected a side or height x width"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_refusals(condgen: Callable[..., Any], arguments: list[str], code: int, message: str, as_json: bool) -> None:
    np.savez("w.npz", x=np.ones(3, np.float32))
    Path("taken").mkdir()
    Path("data.bin").write_bytes(b"weights")
    found, out, err = condgen("import", *arguments, *(["--json"] if as_json else []))
    assert found == code and not Path("model").exists()
    said = json.loads(out)["message"] if as_json else err.removeprefix("condgen: error: ")
    assert said.startswith(message) and said.rstrip().endswith(".") and said.count("\n") == (0 if as_json else 1)


def images_file(model: str, name: str, side: int) -> tuple[str, ...]:
    np.savez(name, images=np.arange(2 * side * side * 3, dtype=np.uint8).reshape(2, side, side, 3))
    return ("evaluate", model, "data.source=npz", f"data.root={name}", "--quiet")


def test_images_of_another_size_are_measured_with_a_word(condgen: Callable[..., Any]) -> None:
    """And as they are after another import."""
    model = tiny_model("logistic_mixture", channels=3, bit_depth=8, core="pixelcnn++")
    entries = original_entries(model.core)
    weights = {name: entry.place.detach().reshape(entry.shape).numpy() for name, entry in entries.items()}
    np.savez("w.npz", **weights)  # type: ignore[arg-type]
    assert condgen("import", "w.npz", "--out", "large", "--image-size", "12", "--quiet")[0] == 0
    assert condgen("import", "w.npz", "--out", "small", "--image-size", "8", "--quiet")[0] == 0
    for _ in range(2):  # decoded, and from the cache
        code, out, err = condgen(*images_file("large", "eight.npz", 8))
        assert (code, out.startswith("2 images of the test split, 432 sub-pixels")) == (0, True)
        assert err == (
            "condgen: warning: 2 images of the data set were resized to 12x12, and the figures are of these (published "
            "weights can be imported at another size: condgen import --image-size)\n"
        )
    code, out, err = condgen(*images_file("large", "eight.npz", 8), "data.image_size=8")
    assert (code, out) == (3, "") and err == (
        "condgen: error: The model's images are (3, 12, 12) (channels, height, width), not (3, 8, 8); give images of "
        "its shape, or import published weights again with --image-size.\n"
    )
    code, out, err = condgen(*images_file("small", "eight.npz", 8))
    assert (code, err) == (0, "") and "192 sub-pixels" in out
