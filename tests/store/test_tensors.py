from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from condgen.errors import ModelError
from condgen.store.tensors import decode, encode

PATH = Path("model.safetensors")
TENSORS = {
    "a.weight": torch.arange(24, dtype=torch.float32).view(2, 3, 2, 2),
    "b": torch.tensor(3.0, dtype=torch.float64),
    "c": torch.tensor([1, -2]),
    "empty": torch.zeros(0, 4),
}


def build(header: Any, data: bytes = b"", size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data


def entry(start: int, end: int, shape: list[int], dtype: str = "F32", **more: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end], **more}


def test_round_trip_in_any_memory_layout() -> None:
    strided = dict(TENSORS)
    strided["a.weight"] = TENSORS["a.weight"].to(memory_format=torch.channels_last)
    shared = strided["c"]
    strided |= {"again": shared, "transposed": TENSORS["a.weight"].view(6, 4).t()}
    found = decode(encode(strided), strided, PATH)
    for name, tensor in strided.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype
    assert encode(TENSORS) == encode({**TENSORS, "a.weight": strided["a.weight"]})
    assert encode(TENSORS) == encode(dict(reversed(TENSORS.items())))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"a.weight": torch.zeros(2, 3, 2, 3)}, r"a.weight is float32 \(2, 3, 2, 3\), the model's is"),
        ({"a.weight": torch.zeros(2, 3, 2, 2, dtype=torch.float16)}, "a.weight is float16"),
        ({"a.weight": None}, "lacks a tensor of the model: a.weight"),
        ({"../../x\n": torch.zeros(1)}, r"holds a tensor that the model lacks: ../../x\\n"),
        ({"b": torch.tensor(float("nan"), dtype=torch.float64)}, "b holds NaN or infinity"),
        ({"a.weight": torch.full((2, 3, 2, 2), -torch.inf)}, "a.weight holds NaN or infinity; use another copy"),
        ({"a.weight": torch.zeros(2, 3, 2, 2).to(torch.float8_e4m3fn)}, r"a.weight is float8_e4m3fn \(2, 3, 2, 2\)"),
    ],
)
def test_unexpected_tensors(change: dict[str, Tensor | None], words: str) -> None:
    stored = {name: tensor for name, tensor in {**TENSORS, **change}.items() if tensor is not None}
    with pytest.raises(ModelError, match=words) as caught:
        decode(safetensors.torch.save(stored), TENSORS, PATH)
    assert caught.value.exit_code == 4 and caught.value.file == str(PATH)


def test_eight_bits_are_refused_even_where_the_model_has_them() -> None:
    """torch cannot say whether they are finite."""
    tensors = {"a": torch.zeros(3).to(torch.float8_e5m2)}
    with pytest.raises(ModelError, match=r"the tensor a holds float8_e5m2; save it as float32\."):
        decode(safetensors.torch.save(tensors), tensors, PATH)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x02\0\0",
        b"\x80\x02}q\x00.pickle, not safetensors",
        b"PK\x03\x04 a zip archive, as torch.save writes",
        build(b"{}", size=2**63),
        build(b"{}", size=100 * 2**20 + 1),
        build(b"  {}"),
        build(b"[]"),
        build({"b": entry(0, 4, [1])}, b"1234" + b"5"),  # one byte more
        build({"b": entry(0, 4, [1])}, b"123"),
        build({"b": entry(4, 8, [1])}, b"12345678"),  # a hole
        build({"b": entry(0, 4, [1]), "c": entry(2, 6, [1])}, b"123456"),  # overlap
        build({"b": entry(4, 0, [1])}, b"1234"),
        build({"b": entry(-4, 0, [1])}, b""),
        build({"b": entry(0, 4, [1], extra=1)}, b"1234"),
        build({"b": entry(0, 4, [1], dtype="F31")}, b"1234"),
        build({"b": entry(0, 4, [2**62, 8])}, b"1234"),
        build({"b": entry(0, 4, [True])}, b"1234"),
        build({"b": 5}),
        build({"b": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}}, b"1234"),
        build(b'{"b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "b": {"dtype": "F32", "shape": [1], '
              b'"data_offsets": [0, 4]}}', b"1234"),
        build({"__metadata__": 7, "b": entry(0, 4, [1])}, b"1234"),
        build({str(k): entry(0, 0, [0]) for k in range(100_001)}),
    ],
    ids=range(23),
)  # fmt: skip
def test_hostile_bytes(data: bytes) -> None:
    with pytest.raises(ModelError) as caught:
        decode(data, {"b": torch.zeros(1)}, PATH)
    assert caught.value.message.startswith("model.safetensors ") and "\n" not in caught.value.message


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.data())
def test_a_damaged_header_is_refused_or_means_the_same(data: st.DataObject) -> None:
    """Whatever our own pass lets through, the library lets through as well, with the very tensors expected."""
    good = encode(TENSORS)
    header = 8 + int.from_bytes(good[:8], "little")
    place = data.draw(st.integers(0, header - 1))
    bad = good[:place] + bytes([good[place] ^ 1 << data.draw(st.integers(0, 7))]) + good[place + 1 :]
    try:
        found = decode(bad, TENSORS, PATH)
    except ModelError:
        return
    for name, tensor in TENSORS.items():
        assert torch.equal(found[name], tensor)
