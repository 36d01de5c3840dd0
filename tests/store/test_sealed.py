from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from condgen.errors import ModelError
from condgen.store.sealed import from_json, read_sealed, seal

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.dictionaries(st.text().filter(lambda key: key != "sha256"), JSON))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, content: dict[str, object]) -> None:
    path = tmp_path_factory.mktemp("sealed") / "a.json"
    path.write_bytes(seal(content))
    assert read_sealed(path) == content


def test_every_flipped_bit_is_noticed_or_harmless(tmp_path: Path) -> None:
    content = {"format": 1, "name": "zwölf", "numbers": [0.1, 12, True, None], "deep": {"files": {"a": "b"}}}
    path, good = tmp_path / "a.json", seal(content)
    noticed = 0
    for place in range(0, len(good), 3):
        for bit in range(8):
            path.write_bytes(good[:place] + bytes([good[place] ^ 1 << bit]) + good[place + 1 :])
            try:
                assert read_sealed(path) == content  # white space into other white space, and nothing else
            except ModelError:
                noticed += 1
    assert noticed > 0.95 * 8 * len(good) / 3


@pytest.mark.parametrize("text", ['{"format": 1}', '{"format": 1, "sha256": "00"}', '{"format": 1, "sha256": null}'])
def test_no_seal_or_a_wrong_one(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ModelError, match="does not fit its seal"):
        read_sealed(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '{"a": NaN}',
        '{"a": Infinity}',
        '{"a": 1e400}',
        '{"a": 1, "a": 2}',
        '{"a": ' + "9" * 5000 + "}",
        '{"a": ' * 100_000,
        "[" * 100_000,
        '{"a": "\ud800"'.encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_strictness(text: str) -> None:
    with pytest.raises(ModelError, match="damaged") as caught:
        from_json(text.encode("latin-1"), Path("x.json"))
    assert caught.value.exit_code == 4


def test_not_text() -> None:
    with pytest.raises(ModelError):
        from_json(b"\xff\xfe\x00{", Path("x.json"))


def test_never_writes_what_it_would_not_read() -> None:
    with pytest.raises(ValueError):
        seal({"a": float("nan")})
    assert json.loads(seal({"a": 0.1 + 0.2}))["a"] == 0.1 + 0.2
