"""Captions as vectors: order counts, company does not, near words are near, and bad captions are refused."""

from __future__ import annotations

import importlib.util
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from condgen.errors import InputError, MachineError, ModelError

from condgen_captions import text


def likeness(a: str, b: str) -> float:
    """Cosine between the means of the word pieces."""
    u, v = text.vectors([a, b])[:, :256]
    return torch.cosine_similarity(u, v, dim=0).item()


def test_a_vector_is_a_function_of_its_caption_alone() -> None:
    captions = ["a smiling person", "a hat", "someone with a beard, no glasses"]
    together = text.vectors(captions)
    assert together.shape == (3, text.WIDTH) and together.dtype == torch.float32 and torch.isfinite(together).all()
    for caption, row in zip(captions, together, strict=True):
        assert torch.equal(text.vectors([caption])[0], row)
    assert torch.equal(*text.vectors(["A  Smiling\tperson \u263a", "a smiling person"]))
    assert text.vectors([]).shape == (0, text.WIDTH)


def test_order_counts() -> None:
    one, other = text.vectors(["hat no glasses", "glasses no hat"])
    assert torch.allclose(one[:256], other[:256], atol=1e-6)  # the same pieces
    assert (one - other).abs().max() > 0.1


@pytest.mark.parametrize(
    ("near", "word", "far"), [("hat", "cap", "beard"), ("smiling", "happy", "bald"), ("beard", "bearded", "hat")]
)
def test_words_of_one_meaning_are_near(near: str, word: str, far: str) -> None:
    assert likeness(near, word) > likeness(far, word) + 0.2


def test_nothing_is_asked_of_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refused)
    text._model.cache_clear()
    assert text.vectors(["a hat"]).any()


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("", r"The caption '' has no words; say what is to be seen, as in 'a smiling person'\."),
        (" \t\n", "has no words"),
        ("?! 12 \u263a", "has no words"),
        ("a " * 201, r"The caption 'a a .*\.\.\.' has 402 characters; 400 are the most\."),
        ("улыбается", r"has the letter 'у'; the text model reads English: write it in Latin letters\."),
        ("a person with 赤い髪", "has the letter '赤'"),
        ("شخص", "write it in Latin letters"),
        ("a \x1b[2J человек", r"The caption 'a \\x1b\[2J"),  # shown, not obeyed
    ],
)
def test_what_is_no_caption(caption: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        text.vectors(["a hat", caption])


@pytest.mark.parametrize(
    "caption", ["señor con gafas", "ＦＵＬＬ ＷＩＤＴＨ", "x", "a" * 400, "naïve, bearded - no hat.", "a\x00b"]
)
def test_odd_captions_that_are_some(caption: str) -> None:
    assert torch.isfinite(text.vectors([caption])).all()


def test_without_the_text_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"word vectors of wordllama, which are missing; pip install"):
        text.files()


def test_another_text_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in text.files():
        copy = tmp_path / path.parent.name / path.name
        copy.parent.mkdir()
        shutil.copy(path, copy)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    )
    text._model.cache_clear()
    assert text.vectors(["a hat"]).any()  # the same bytes elsewhere
    data = bytearray(copy.read_bytes())
    data[len(data) // 2] ^= 1
    copy.write_bytes(data)
    text._model.cache_clear()
    with pytest.raises(ModelError, match=r"json is not the file that captions are trained with; pip install"):
        text.vectors(["a hat"])
    text._model.cache_clear()
