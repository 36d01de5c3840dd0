from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import StopAfter, tiny_recipe

import condgen
from condgen.errors import Interrupted, ModelError, RecipeError
from condgen.plugins import find_encoder
from condgen.recipe.build import build_model
from condgen.store import load, save_model
from condgen.store.sealed import seal
from condgen.train.run import run_training


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Has a run ``runs/tiny`` with checkpoints of steps 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        recipe = tiny_recipe(
            folder, train__max_steps=6, train__evaluate_every=2, train__checkpoint_every=2, train__keep_every=2
        )
        run_training(recipe, out=folder / "runs" / "tiny", quiet=True)
        yield folder


@pytest.fixture
def run(home: Path) -> Path:
    return home / "runs" / "tiny"


def images(model: Any) -> torch.Tensor:
    return torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8) % 4


def test_load_gives_what_was_trained(run: Path) -> None:
    model = load(run)
    assert not model.training and model.source == run and model.recipe.model.filters == 4
    assert model.info.classes == ("0", "1", "2") and model.device.type == "cpu"
    raw = load(run, weights="raw")
    h = model.encode(label="1")
    assert torch.isfinite(model.log_prob(images(model), h)).all()
    assert not torch.equal(model.log_prob(images(model), h), raw.log_prob(images(model), h))
    two = load(run, checkpoint=2)
    assert not torch.equal(model.log_prob(images(model), h), two.log_prob(images(model), h))
    for name, weight in model.core.named_parameters():
        if weight.dim() == 4 and weight.shape[1] > 1 and weight.shape[2] > 1:
            assert weight.is_contiguous(memory_format=torch.channels_last), name


def test_best(run: Path) -> None:
    manifest = json.loads((run / "checkpoints" / "step-00000006" / "manifest.json").read_text())
    best = manifest["best"]["step"]
    one, other = load(run, checkpoint="best").state_dict(), load(run, checkpoint=best).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_found_by_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    assert load("tiny").source == Path("runs/tiny")
    assert condgen.load("runs/tiny").source == Path("runs/tiny")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nothing", "There is no run or model nothing"),
        ("a\0b", "a\\\\x00b"),
        (
            "weights.pt",
            r"is a file; give a run or model folder \(condgen import makes one of other programs' weights\)\.",
        ),
        ("empty", "is no run or model folder: it has no config.json"),
        ("x" * 5000, "There is no run|cannot be opened"),
    ],
)
def test_nothing_to_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights.pt").write_bytes(b"PK")
    Path("empty").mkdir()
    with pytest.raises(ModelError, match=words) as caught:
        load(target)
    assert caught.value.exit_code == 4 and "\0" not in caught.value.message


def test_wrong_words(run: Path) -> None:
    with pytest.raises(RecipeError, match="weights is"):
        load(run, weights="best")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="checkpoint is"):
        load(run, checkpoint="newest")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"no checkpoint of step 3 \(there is: 2, 4, 6\)"):
        load(run, checkpoint=3)


def test_a_run_without_validation_or_checkpoint(home: Path) -> None:
    recipe = tiny_recipe(home, train__evaluate_images=0)
    with pytest.raises(Interrupted):
        run_training(recipe, out=home / "unvalidated", quiet=True, signals=StopAfter(1))
    with pytest.raises(ModelError, match="was never validated"):
        load(home / "unvalidated", checkpoint="best")
    for step in (home / "unvalidated" / "checkpoints").iterdir():
        step.rename(home / step.name)
    with pytest.raises(ModelError, match="has no checkpoint yet"):
        load(home / "unvalidated")


def test_model_folder_round_trip(run: Path, tmp_path: Path) -> None:
    model = load(run)
    save_model(model, model.recipe, tmp_path / "gift", "# A tiny model\n")
    assert sorted(os.listdir(tmp_path / "gift")) == ["README.md", "config.json", "model.safetensors"]
    again = load(tmp_path / "gift")
    one, other = model.state_dict(), again.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert again.info == model.info
    text = (tmp_path / "gift" / "config.json").read_text()
    assert str(run.parents[1]) not in text and again.recipe.data.root is None
    save_model(again, again.recipe, tmp_path / "again", "# A tiny model\n")  # the same state, the same bytes
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "gift" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    with pytest.raises(RecipeError, match="exists; choose another name"):
        save_model(model, model.recipe, tmp_path / "gift", "")
    for unsuitable in ({"weights": "raw"}, {"checkpoint": 3}):
        with pytest.raises(ModelError, match="is a model folder"):
            load(tmp_path / "gift", **unsuitable)


def test_fp64_stays_fp64(home: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(home, train__max_steps=1, train__precision="fp64")
    assert load(run_training(recipe, out=tmp_path / "run", quiet=True).run).dtype == torch.float64


def test_a_bad_model_is_never_saved(run: Path, tmp_path: Path) -> None:
    model = load(run)
    with torch.no_grad():
        next(model.core.parameters()).view(-1)[0] = torch.nan
    with pytest.raises(ModelError, match="NaN or infinity"):
        save_model(model, model.recipe, tmp_path / "gift", "")
    assert not list(tmp_path.iterdir())


def test_every_damaged_byte_of_a_model_folder(run: Path, tmp_path: Path) -> None:
    model = load(run)
    save_model(model, model.recipe, tmp_path / "gift", "")
    for name in ("model.safetensors", "config.json"):
        path = tmp_path / "gift" / name
        good = path.read_bytes()
        for place in range(0, len(good), len(good) // 40):
            path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
            with pytest.raises(ModelError):
                load(tmp_path / "gift")
        path.write_bytes(good)
    load(tmp_path / "gift")


def test_config_that_lies(run: Path, tmp_path: Path) -> None:
    """A well-made config of a stranger: it names an encoder, never a class or a path, and sizes are bounded."""
    model = load(run)
    save_model(model, model.recipe, tmp_path / "gift", "")
    path = tmp_path / "gift" / "config.json"
    good = json.loads(path.read_text())
    good.pop("sha256")
    for change, words in (
        ({"format": 2}, "has the format 2"),
        ({"recipe": {**good["recipe"], "encoder": {"type": "os.system"}}}, r"cannot be used: .*os\.system"),
        ({"recipe": {**good["recipe"], "extends": "https://example.org/x.yaml"}}, "cannot be used"),
        ({"recipe": {**good["recipe"], "model": {**good["recipe"]["model"], "filters": 5}}}, "the model's is"),
        ({"recipe": None}, "damaged"),
        ({"info": {**good["info"], "height": 2**40}}, "damaged"),
        ({"info": {**good["info"], "height": True}}, "damaged"),
        ({"info": {**good["info"], "columns": []}}, "damaged"),
    ):
        path.write_bytes(seal({**good, **change}))
        with pytest.raises(ModelError, match=words) as caught:
            load(tmp_path / "gift")
        assert caught.value.exit_code == 4


def test_a_failed_load_leaves_a_model_as_it_was(run: Path) -> None:
    """Initialising from the wrong model moves nothing."""
    from condgen.train.state import TrainState

    model = load(run)
    state = TrainState(model.requires_grad_(True), model.recipe.train)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wider = model.recipe.model_copy(update={"model": model.recipe.model.model_copy(update={"layers": 3})})
    with pytest.raises(ModelError, match=r"cannot initialise this model: core\..* is \(.*\) there and absent here"):
        state.initialise_from(build_model(wider, model.info), "x")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def resealed(run: Path, place: Path, encoder: Any, name: str = "labels") -> Path:
    """A copy of ``run`` whose manifests say that its encoder is another."""
    shutil.copytree(run, place)
    for path in place.glob("checkpoints/*/manifest.json"):
        content = json.loads(path.read_bytes())
        del content["sha256"]
        content["recipe"]["encoder"]["type"] = name
        path.write_bytes(seal({**content, "encoder": encoder}))
    return place


def test_the_encoders_version_is_held_against_the_models(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find_encoder("labels"), "version", 2)
    with pytest.raises(ModelError, match="version 1 of the encoder labels, and here is version 2") as caught:
        load(run)
    assert "pip" not in caught.value.message  # of this very package
    theirs = resealed(run, tmp_path / "theirs", {"version": 3, "package": ["my-encoders", "1.4"]})
    with pytest.raises(ModelError, match=r"version 3 .* here is version 2.*pip install my-encoders==1\.4"):
        load(theirs)


def test_a_missing_encoder_is_named_with_its_package(run: Path, tmp_path: Path) -> None:
    theirs = resealed(run, tmp_path / "theirs", {"version": 1, "package": ["my-encoders", "1.4"]}, "faces2")
    with pytest.raises(ModelError, match=r"no encoder 'faces2' is installed.*pip install my-encoders==1\.4") as caught:
        load(theirs)
    assert caught.value.exit_code == 4
    for odd in (7, {"package": "x"}, {"package": ["a"]}, {"package": ["a b", "1"]}, {"package": ["a", "1\n"]}):
        shutil.rmtree(theirs)
        with pytest.raises(ModelError, match="no encoder 'faces2'") as caught:
            load(resealed(run, theirs, odd, "faces2"))
        assert "It came with" not in caught.value.message
