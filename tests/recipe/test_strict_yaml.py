"""The strict YAML of recipes: what words mean, what is refused, and that it writes what it reads."""

from __future__ import annotations

import math
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from condgen.errors import CondgenError, RecipeError
from condgen.recipe.strict_yaml import LIMIT, decoded, dump, parse

WORDS = {
    "1e-3": 1e-3,
    "1.5e+3": 1500.0,
    ".5": 0.5,
    "-1.": -1.0,
    "+5": 5,
    "0": 0,
    "-.inf": -math.inf,
    "1e309": math.inf,
    "true": True,
    "false": False,
    "null": None,
    "~": None,
    "": None,
    # text to us, whatever YAML 1.1 makes of them
    "no": "no",
    "on": "on",
    "True": "True",
    "1:30": "1:30",
    "010": "010",
    "0x10": "0x10",
    "1_000": "1_000",
    "2024-01-01": "2024-01-01",
    "e5": "e5",
    ".": ".",
    "1e": "1e",
    "${HOME}": "${HOME}",
    "$(id)": "$(id)",
    "~/x": "~/x",
    "'1'": "1",
}


@pytest.mark.parametrize(("word", "value"), WORDS.items())
def test_what_a_word_means(word: str, value: object) -> None:
    assert parse(f"a: {word}", None) == ({"a": value}, {("a",): 1})


REFUSED = {
    "a: &x 1": "f.yaml, line 1: anchors and aliases (& and *) are not allowed; write the value out.",
    "a: 1\nb: *x": "f.yaml, line 2: anchors and aliases (& and *) are not allowed; write the value out.",
    "a: &a [*a]": "f.yaml, line 1: anchors and aliases (& and *) are not allowed; write the value out.",
    "a: !!python/object/apply:os.system [id]": (
        "f.yaml, line 1: tags (!) are not allowed; write a plain value, or quote the text."
    ),
    "a: !!str 1": "f.yaml, line 1: tags (!) are not allowed; write a plain value, or quote the text.",
    "a: ! 1": "f.yaml, line 1: tags (!) are not allowed; write a plain value, or quote the text.",
    "a: 1\nb:\n  c: 1\n  d: 2\n  c: 3": "f.yaml, line 5: c stands here and on line 3; keep one of them.",
    "a: 1\n---\nb: 2": "f.yaml, line 2: a second document (---); keep one.",
    "a:\n\t- 1": (
        "f.yaml, line 2: not valid YAML (found character '\\t' that cannot start any token); "
        "check its indentation (spaces, no tabs), colons and quotes."
    ),
    "a: 1\nb: \0": "f.yaml, line 2: the character U+0000, which YAML does not allow; remove it.",
    "[" * 60_000: "f.yaml, line 1: more than 20 levels of nesting; a recipe has two or three.",
    "- " * 30_000 + "1": "f.yaml, line 1: more than 20 levels of nesting; a recipe has two or three.",
    "? [1]\n: 2": "f.yaml, line 1: a key must be a word, not a list or a section.",
    "a: " + "1" * 5000: "f.yaml, line 1: a number of 5000 digits is too long; shorten it.",
    "a: '": (
        "f.yaml, line 1: not valid YAML (found unexpected end of stream); "
        "check its indentation (spaces, no tabs), colons and quotes."
    ),
    "a" * (LIMIT + 1): "f.yaml: more than 64 KiB of YAML; shorten it.",
    "é" * (LIMIT // 2 + 1): "f.yaml: more than 64 KiB of YAML; shorten it.",
}


@pytest.mark.parametrize(("text", "message"), REFUSED.items(), ids=[message[:50] for message in REFUSED.values()])
def test_what_is_refused(text: str, message: str) -> None:
    begun = time.monotonic()
    with pytest.raises(RecipeError) as refused:
        parse(text, "f.yaml")
    assert refused.value.message == message
    assert refused.value.exit_code == 2
    assert refused.value.file == "f.yaml"
    assert time.monotonic() - begun < 5  # hostile input costs no minutes


def test_the_plain_loader_would_have_let_these_pass() -> None:
    # the rules above are ours: without them each of these loads
    assert yaml.safe_load("a: 1\na: 2") == {"a": 2}
    assert yaml.safe_load("a: &x 1\nb: *x") == {"a": 1, "b": 1}
    assert yaml.safe_load("a: 010\nb: 1:30\nc: no\nd: 1e-3") == {"a": 8, "b": 90, "c": False, "d": "1e-3"}


def test_bytes_are_utf8_with_or_without_a_mark() -> None:
    assert decoded("\ufeffa: é".encode(), "f.yaml") == "a: é"
    with pytest.raises(RecipeError, match=r"f\.yaml, line 2: not UTF-8 text; save the file as UTF-8\."):
        decoded(b"a: 1\nb: \xff", "f.yaml")


def test_lines_are_those_of_the_keys() -> None:
    _, lines = parse("# a comment\ntrain:\n  seed: 1\n\n  batch_size:\n    3\n", "f.yaml")
    assert lines == {("train",): 2, ("train", "seed"): 3, ("train", "batch_size"): 5}


scalars = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.dictionaries(st.text(), values, max_size=4))
def test_what_is_written_is_read_back(value: dict[str, object]) -> None:
    assert parse(dump(value), None)[0] == value
    assert yaml.safe_load(dump(value)) == value  # and other readers of YAML read the same


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet="a:-[]{}&*!|>'\"#%@,? \n\t01.e\u2028\ufeff\0é", max_size=60))
def test_any_text_is_read_or_refused_in_one_sentence(text: str) -> None:
    try:
        parse(text, "f.yaml")
    except CondgenError as error:
        assert isinstance(error, RecipeError)
        assert "\n" not in error.message and error.message.startswith("f.yaml")
