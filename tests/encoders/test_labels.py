"""Labels, attributes and vectors as conditions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from condgen.condition import DataInfo
from condgen.encoders.labels import LabelOptions, Labels
from condgen.encoders.plain import NoCondition, Vector, VectorOptions
from condgen.errors import InputError, RecipeError
from condgen.streams import example_keys

INFO = DataInfo(
    1, 8, 8, classes=("T-shirt", "Sneaker", "Bag"), attributes=("glasses", "hat", "long hair"), columns={"vector": 4}
)


def test_one_hot() -> None:
    encoder = Labels(LabelOptions(), INFO)
    vector = encoder({"label": torch.tensor([2, 0])}).vector
    assert vector is not None and vector.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert encoder.reads == ("label",) and encoder.vector_size == 3


def test_embedding_is_learned() -> None:
    encoder = Labels(LabelOptions(code="embedding", size=5), INFO)
    vector = encoder({"label": torch.tensor([1, 1, 2])}).vector
    assert vector is not None and vector.shape == (3, 5) and torch.equal(vector[0], vector[1])
    assert vector.requires_grad


@pytest.mark.parametrize(("word", "index"), [("sneaker", 1), ("  BAG ", 2), ("0", 0)])
def test_words_for_classes(word: str, index: int) -> None:
    assert Labels(LabelOptions(), INFO).parse("label", word)["label"].tolist() == [index]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("glasses,no hat", [1, 0, -1]),
        (" Long  Hair ", [-1, -1, 1]),
        ("without glasses, not long hair", [0, -1, 0]),
        ("", [-1, -1, -1]),
    ],
)
def test_words_for_attributes(words: str, code: list[int]) -> None:
    assert Labels(LabelOptions(code="attributes"), INFO).parse("label", words)["attributes"].tolist() == [code]


def test_yes_no_and_unknown_are_three_things() -> None:
    encoder = Labels(LabelOptions(code="attributes"), INFO).eval()
    vector = encoder({"attributes": torch.tensor([[1, 0, -1]], dtype=torch.int8)}).vector
    assert vector is not None and vector.tolist() == [[1, 0, 0, 0, 1, 0]]


def test_hiding_happens_in_training_by_the_examples_own_stream() -> None:
    encoder = Labels(LabelOptions(code="attributes", hide=0.5), INFO)
    n = 4000
    batch = {"attributes": torch.ones(n, 3, dtype=torch.int8), "key": example_keys(np.arange(n), 0, "t")}
    drawn = encoder.train()(batch).vector
    assert drawn is not None
    named = drawn[:, :3].sum(1)
    for count in range(4):  # the share is uniform, so is the number of those that stay named
        assert float((named == count).double().mean()) == pytest.approx(1 / 4, abs=0.04)
    part = encoder({key: value[100:110] for key, value in batch.items()}).vector
    assert part is not None and torch.equal(part, drawn[100:110])
    seen = encoder.eval()(batch).vector
    assert seen is not None and bool((seen[:, :3] == 1).all())
    unmasked = encoder.train()({"attributes": batch["attributes"]}).vector  # no key: not a training batch
    assert unmasked is not None and bool((unmasked[:, :3] == 1).all())


@pytest.mark.parametrize(
    ("options", "word", "sentence"),
    [
        (LabelOptions(), "snaeker", "did you mean 'Sneaker'"),
        (LabelOptions(), "7", "no class '7'"),
        (LabelOptions(code="attributes"), "no glases", "did you mean 'glasses'"),
    ],
)
def test_unknown_labels_are_answered_with_the_nearest(options: LabelOptions, word: str, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        Labels(options, INFO).parse("label", word)


def test_data_without_names_is_refused_before_training() -> None:
    with pytest.raises(RecipeError, match="needs classes"):
        Labels(LabelOptions(), DataInfo(1, 8, 8, attributes=("hat",)))
    with pytest.raises(RecipeError, match="needs named attributes"):
        Labels(LabelOptions(code="attributes"), DataInfo(1, 8, 8))


def test_examples_are_words_that_parse() -> None:
    for code in ("one_hot", "embedding", "attributes"):
        encoder = Labels(LabelOptions(code=code), INFO)
        assert len(encoder.examples()) == 3
        for word, value in encoder.examples():
            encoder.parse(word, value)


def test_vector_reads_its_column_and_npy_files(tmp_path: Path) -> None:
    encoder = Vector(VectorOptions(), INFO)
    assert encoder.vector_size == 4 and encoder.reads == ("vector",)
    np.save(tmp_path / "one.npy", np.arange(4))
    np.save(tmp_path / "two.npy", np.ones((2, 4), dtype=np.float32))
    assert encoder.parse("vector", str(tmp_path / "one.npy"))["vector"].tolist() == [[0, 1, 2, 3]]
    assert encoder.parse("vector", str(tmp_path / "two.npy"))["vector"].shape == (2, 4)


def test_bad_vectors_are_one_sentence(tmp_path: Path) -> None:
    encoder = Vector(VectorOptions(), INFO)
    np.save(tmp_path / "wide.npy", np.ones(5))
    np.save(tmp_path / "nan.npy", np.full(4, np.nan))
    np.save(tmp_path / "text.npy", np.array(["a"]))
    (tmp_path / "not.npy").write_bytes(b"hello")
    np.savez(tmp_path / "z.npz", a=np.ones(5))
    for name in ("wide.npy", "nan.npy", "text.npy", "not.npy", "absent.npy", "z.npz"):
        with pytest.raises(InputError, match=name):
            encoder.parse("vector", str(tmp_path / name))
    with pytest.raises(RecipeError, match="no column 'age'"):
        Vector(VectorOptions(column="age"), INFO)


def test_none_yields_the_empty_condition() -> None:
    from condgen.condition import Options

    encoder = NoCondition(Options(), INFO)
    assert encoder({"image": torch.zeros(3, 1, 8, 8)}).parts == () and encoder.vector_size == 0
