"""The words of encoders on the command line: one row for each condition that they ask for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import condgen
from condgen import plugins
from condgen.cli.options import conditions, free_path, split_words
from condgen.condition import Batch, Condition, DataInfo
from condgen.errors import RecipeError
from condgen.model import ConditionalModel
from condgen.recipe import Recipe
from condgen.recipe.build import build_model


def model(encoder: dict[str, object], labels: tuple[str, ...] = ()) -> ConditionalModel:
    recipe = Recipe.model_validate(
        {
            "model": {"filters": 3, "layers": 1, "kernel_size": 3},
            "train": {"max_steps": 1},
            "encoder": encoder,
            "sample": {"labels": labels},
        }
    )
    built = build_model(recipe, DataInfo(1, 4, 4, 2, classes=tuple(f"c{k}" for k in range(30)), columns={"vector": 3}))
    built.recipe = recipe
    return built


def test_words_are_options_of_any_name() -> None:
    extra = ["--source", "a b.jpg", "sample.tile=4", "--angle=-3", "--empty=", "picture.png"]
    words, rest = split_words(extra, ["hat"], ["v.npy"])
    assert words == [("label", "hat"), ("vector", "v.npy"), ("source", "a b.jpg"), ("angle", "-3"), ("empty", "")]
    assert rest == ["sample.tile=4", "picture.png"]
    for bad in (["--source"], ["--source", "--angle"], ["--"], ["--=3"]):
        with pytest.raises(RecipeError):
            split_words(bad, None, None)


def test_a_file_of_vectors_is_a_row_each(tmp_path: Path) -> None:
    rows = np.arange(6, dtype=np.float64).reshape(2, 3)
    np.save(tmp_path / "two.npy", rows)
    np.save(tmp_path / "one.npy", rows[0])
    vector = model({"type": "vector"})
    found = conditions(vector, [("vector", str(tmp_path / "two.npy")), ("vector", str(tmp_path / "one.npy"))])
    assert [name for name, _ in found] == ["two.npy 0", "two.npy 1", "one.npy"]
    values = torch.cat([condition.vector for _, condition in found if condition.vector is not None])
    assert values.tolist() == [[0, 1, 2], [3, 4, 5], [0, 1, 2]]
    with pytest.raises(RecipeError, match=r"The model is conditional; give --vector\."):
        conditions(vector, [])


def test_rows_without_words() -> None:
    assert [name for name, _ in conditions(model({"type": "none"}), [])] == [""]
    labels = model({"type": "labels"})
    assert [name for name, _ in conditions(labels, [])] == [f"c{k}" for k in range(16)]  # 30 would be no sheet
    asked = conditions(model({"type": "labels"}, ("c7", "c2")), [])
    assert [name for name, _ in asked] == ["c7", "c2"]
    assert asked[0][1].vector is not None and asked[0][1].vector[0, 7] == 1


class Said(condgen.Encoder):
    """One number: how long the sentence is."""

    words = ("sentence", "letters")
    vector_size = 1

    def encode(self, batch: Batch) -> Condition:
        return Condition(vector=batch["said"])

    def parse(self, word: str, value: str) -> dict[str, torch.Tensor]:
        return {"said": torch.tensor([[float(len(value))]])} if word in self.words else super().parse(word, value)


def test_any_word_of_any_encoder_makes_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_registered", {"said": Said})
    monkeypatch.chdir(tmp_path)
    Path("there.txt").touch()
    found = conditions(model({"type": "said"}), [("sentence", "hat/no hat"), ("sentence", f"{tmp_path}/there.txt")])
    assert [name for name, _ in found] == ["hat/no hat", "there.txt"]  # a sentence whole, of a file its name
    assert [float(h.vector) for _, h in found if h.vector is not None] == [10, len(f"{tmp_path}/there.txt")]
    grid = conditions(model({"type": "said"}, ("a", "bcd")), [])  # the recipe's labels are for the first word
    assert [(name, float(h.vector)) for name, h in grid if h.vector is not None] == [("a", 1), ("bcd", 3)]
    with pytest.raises(RecipeError, match=r"--sentense: no option, .* \(it has --sentence, --letters\); did you mean"):
        conditions(model({"type": "said"}), [("sentense", "a")])


def test_a_free_name_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert free_path("a", ".png") == Path("a.png")
    Path("a.png").touch()
    Path("a-2.png").symlink_to("nowhere")  # a dangling link is taken too
    assert free_path("a", ".png") == Path("a-3.png")
