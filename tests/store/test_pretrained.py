"""Models that ship: found by name behind what is the user's own, halved on disk, small, and honest about themselves."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_models

import condgen
from condgen.data.portraits import draw
from condgen.embedding import Embedding
from condgen.errors import ModelError
from condgen.model import ConditionalModel
from condgen.store import load, save_model, shipped
from condgen.store.models import find
from condgen.store.shipped import shipped_names

FOLDER = Path(condgen.__file__).parent / "pretrained"


def test_what_ships() -> None:
    assert shipped_names() == ("face-embedding", "portraits")
    assert shipped.shipped("portraits") == FOLDER / "portraits"
    for name in ("nobody", "", ".", "..", "../pretrained/portraits", "portraits/"):
        assert shipped.shipped(name) is None, name
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"config.json", "model.safetensors", "README.md"}
    assert sum(path.stat().st_size for path in files) <= 8e6


def test_one_s_own_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("portraits") == FOLDER / "portraits"
    Path("portraits").mkdir()
    Path("portraits/photo.jpg").write_bytes(b"")
    assert find("portraits") == FOLDER / "portraits"  # a folder of pictures is no model
    with pytest.raises(ModelError, match="no run or model folder"):
        find("./portraits/../portraits")  # a path is what it says
    save_tiny_models(Path("runs"))
    Path("runs/pets").rename("runs/portraits")
    Path("portraits/photo.jpg").unlink()
    Path("portraits").rmdir()
    assert find("portraits") == Path("runs/portraits")
    Path("runs/other").rename("portraits")
    assert find("portraits") == Path("portraits")
    with pytest.raises(ModelError, match=r"There is no run or model nobody; .* face-embedding, or portraits"):
        find("nobody")


@pytest.mark.parametrize("name", ["face-embedding", "portraits"])
def test_a_shipped_model_says_what_it_has_seen(name: str) -> None:
    config = json.loads((FOLDER / name / "config.json").read_text())
    assert config["recipe"]["data"]["source"] == "portraits" and config["halved"] is True
    card = (FOLDER / name / "README.md").read_text()
    for words in ("drawn portraits alone", "never", "condgen train", "AUC" if name == "face-embedding" else "found"):
        assert words in card, words
    everything = card + json.dumps(config)
    assert not any(word in everything for word in ("/work", "/home", "/root", "/tmp"))  # noqa: S108


@pytest.mark.parametrize(("guidance", "words"), [(0.0, "at temperature 0.9:"), (1.5, "0.9 and guidance 1.5:")])
def test_a_card_says_how_its_figures_were_drawn(guidance: float, words: str) -> None:
    path = Path(__file__).parents[2] / "docs" / "make_pretrained.py"
    spec = importlib.util.spec_from_file_location("make_pretrained", path)
    assert spec is not None and spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    share = {"share": 0.5, "ci95": 0.1}
    drawn = {"people": 50, "portraits": 4, "found": share, "found_real": share, "variety": 3.0, "variety_real": 9.0}
    report = {
        "temperature": 0.9,
        "guidance": guidance,
        "drawings": drawn,
        "walk": {"steps": 65, "rows": 4, "neighbours": 0.5, "between_rows": 8.0, "ends_equal": True},
        "photographs": {"people": 100, "face_colour": 0.7, "hair_brightness": 0.4, "found": share},
    }
    card = " ".join(program.figures_of(report).split())
    assert words in card and ("guidance" in card) == bool(guidance)


def test_the_shipped_embedding_tells_people_apart() -> None:
    model = load(FOLDER / "face-embedding")
    assert isinstance(model, Embedding)
    people, views = np.repeat(np.arange(30) + 2**42, 2), np.tile(np.arange(2), 30)
    pictures, _ = draw(0, people, views, model.info.height, model.info.width, 2.0)
    vectors = model.embed({"image": torch.from_numpy(pictures)}).detach()
    assert torch.allclose(vectors.norm(dim=1), torch.ones(60), atol=1e-5)
    nearest = (vectors[1::2] @ vectors[::2].T).argmax(1)
    assert (nearest == torch.arange(30)).float().mean() > 0.6


def test_the_shipped_portraits_are_conditional_on_a_face() -> None:
    model = load(FOLDER / "portraits")
    assert isinstance(model, ConditionalModel) and model.encoder.words == ("image",)
    own = load(FOLDER / "face-embedding").encoder.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in model.encoder.state_dict().items())
    pictures, _ = draw(0, np.arange(8) + 2**42, np.zeros(8, np.int64), model.info.height, model.info.width, 2.0)
    x = torch.from_numpy(pictures)
    with torch.no_grad():
        right = model.log_prob(x, model.encode(image=x))
        wrong = model.log_prob(x, model.encode(image=x.roll(1, 0)))
    assert (right > wrong).sum() >= 7


def test_halved_weights_come_back_as_fp32(tmp_path: Path) -> None:
    save_tiny_models(tmp_path / "runs")
    model: Any = load(tmp_path / "runs" / "pets")
    save_model(model, model.recipe, tmp_path / "halved", "A test.\n", halved=True)
    again: Any = load(tmp_path / "halved")
    for (name, before), after in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert after.dtype == before.dtype, name
        assert torch.equal(after, before.half().to(before.dtype) if before.dtype == torch.float32 else before), name
    halves, wholes = (
        (tmp_path / folder / "model.safetensors").stat().st_size for folder in ("halved", "runs/pets")
    )  # fmt: skip
    assert halves < wholes
    # weights of one precision are no model of the other
    (tmp_path / "halved" / "config.json").write_bytes((tmp_path / "runs" / "pets" / "config.json").read_bytes())
    with pytest.raises(ModelError, match="damaged"):
        load(tmp_path / "halved")


def test_a_weight_that_halves_to_infinity_is_not_saved(tmp_path: Path) -> None:
    save_tiny_models(tmp_path / "runs")
    model: Any = load(tmp_path / "runs" / "plain")
    with torch.no_grad():
        next(model.core.parameters()).fill_(1e6)
    with pytest.raises(ModelError, match="infinity"):
        save_model(model, model.recipe, tmp_path / "halved", "A test.\n", halved=True)
    assert not (tmp_path / "halved").exists()
    save_model(model, model.recipe, tmp_path / "whole", "A test.\n")
