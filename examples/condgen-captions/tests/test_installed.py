"""As somebody meets the package: found by its entry points, trained by name, sampled, evaluated, reloaded."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import condgen
import pytest
import torch
from condgen.errors import ModelError, RecipeError
from condgen.recipe import read_recipe, recipe_names
from small import SMALL, Command

from condgen_captions.encoder import Captions


def test_what_is_installed(command: Command) -> None:
    rows = json.loads(command("condgen", "encoders", "--json").stdout)["encoders"]
    mine = {row["name"]: row for row in rows if row["source"] == "condgen-captions"}
    assert set(mine) == {"captions", "mean-colour"}
    assert all(row["summary"] and not row["error"] for row in mine.values())
    assert "captions-portraits" in recipe_names()
    recipe = read_recipe("captions-portraits")
    assert recipe.encoder.type == "captions" and recipe.encoder.options == {"size": 64}
    assert recipe.description in command("condgen", "recipes").stdout


def test_trained_sampled_evaluated_and_loaded_in_new_processes(run: Path, tmp_path: Path, command: Command) -> None:
    words = ["--caption", "a smiling person with red hair", "--caption", "a hat / no hat", "--count", 2]
    done = command("condgen", "sample", run, *words, "--out", "sheet.png", "--json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sheet.png").is_file() and json.loads(done.stdout)["drawn"] == 4
    done = command("condgen", "evaluate", run, "--limit", 8, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["bits_per_dim"] > 0, done.stderr
    done = command("condgen", "verify", run, "--json")
    assert done.returncode == 0, done.stdout
    model = condgen.load(run)
    h = model.encode(caption="a smiling person with red hair")
    again = condgen.load(run).encode(caption="a smiling person with red hair")
    assert h.vector is not None and again.vector is not None and torch.equal(h.vector, again.vector)
    assert torch.equal(model.sample(h, count=2, seed=5), condgen.load(run).sample(again, count=2, seed=5))
    assert not any("table" in name or value.numel() > 10**6 for name, value in model.encoder.state_dict().items())


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("", "--caption: The caption '' has no words"),
        ("улыбка", "the text model reads English"),
        ("x" * 4000, "has 4,000 characters; 400 are the most"),
        ("x" * 5000, "--caption: 5,000 characters are no word"),
    ],
)
def test_a_bad_caption_is_one_sentence(run: Path, command: Command, caption: str, words: str) -> None:
    done = command("condgen", "sample", run, f"--caption={caption}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and words in done.stderr, done.stderr


def test_other_words_are_answered_with_this_one(run: Path, command: Command) -> None:
    done = command("condgen", "sample", run, "--captain", "a hat")
    assert done.returncode == 2 and "it has --caption); did you mean --caption?" in done.stderr


def test_where_the_package_is_missing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = metadata.entry_points
    monkeypatch.setattr(
        metadata,
        "entry_points",
        lambda group: [point for point in others(group=group) if not point.value.startswith("condgen_captions")],
    )
    with pytest.raises(ModelError, match=r"no encoder 'captions' is installed.*pip install condgen-captions==0\.1\.0"):
        condgen.load(run)
    with pytest.raises(RecipeError, match="There is no recipe 'captions-portraits'"):
        read_recipe("captions-portraits")


def test_where_the_encoder_is_another(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Captions, "version", Captions.version + 1)
    with pytest.raises(ModelError, match=r"was trained with version 1 of the encoder captions, and here is version 2"):
        condgen.load(run)


def test_the_smallest_encoder_trains(tmp_path: Path) -> None:
    run = condgen.train("quickstart", {**SMALL, "encoder.type": "mean-colour"}, out=tmp_path / "run", quiet=True)
    model = condgen.load(run)
    picture = torch.full((1, 3, 16, 16), 51, dtype=torch.uint8)
    h = model.encode(image=picture)
    assert h.vector is not None and torch.allclose(h.vector, torch.full((1, 3), 0.2))
    assert model.sample(h, count=1).shape == (1, 3, 16, 16)
