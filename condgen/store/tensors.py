"""Tensors as safetensors bytes and back. Nothing is taken from a file that the reader did not expect by name."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from condgen.errors import ModelError, lacks_memory, shown
from condgen.store.sealed import from_json

PRECISIONS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""What a weight may be; of the floating-point types with fewer bits torch cannot even say whether they are finite."""
_HEADER_LIMIT = 16 * 2**20
_COUNT_LIMIT = 100_000


def encode(tensors: Mapping[str, Tensor]) -> bytes:
    """The tensors in safetensors format, in their logical (contiguous) order; the same tensors give the same bytes."""
    # clone: safetensors refuses tensors that share memory or are strided (weights are channels-last)
    plain = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    return safetensors.torch.save(plain)


def check_finite(tensors: Mapping[str, Tensor], where: object) -> None:
    """Raises:
    ModelError: a floating-point tensor holds NaN or infinity, or is of none of ``PRECISIONS``; the sentence names it
        and ``where``.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        if tensor.dtype not in PRECISIONS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ModelError(
                f"{shown(where)}: the tensor {shown(name)[:200]} holds {kind}; save it as float32.", file=where
            )
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(
                f"{shown(where)}: the tensor {shown(name)[:200]} holds NaN or infinity; use another copy or an "
                "earlier checkpoint.",
                file=where,
            )


def parse(data: bytes, path: Path) -> dict[str, Tensor]:
    """All tensors of ``path`` (whose content is ``data``), on the CPU.

    Raises:
        ModelError: not safetensors, a header beyond the limits or with duplicate names, holes or overlaps.
    """
    _check_header(data, path)
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        if lacks_memory(error):
            raise
        raise ModelError(f"{shown(path)} is not a usable safetensors file ({shown(error)}).", file=path) from error


def decode(data: bytes, expected: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors of ``path``, as ``parse``; names, shapes and dtypes are ``expected``'s.

    Raises:
        ModelError: as ``parse``; a tensor too many or too few, of another shape or dtype; NaN or infinity.
    """
    found = parse(data, path)
    for name in sorted(set(found) ^ set(expected)):
        problem = "holds a tensor that the model lacks" if name in found else "lacks a tensor of the model"
        raise ModelError(f"{shown(path)} {problem}: {shown(name)[:200]}.", file=path)
    for name, tensor in expected.items():
        if found[name].shape != tensor.shape or found[name].dtype != tensor.dtype:
            raise ModelError(
                f"{shown(path)}: the tensor {shown(name)} is {_kind(found[name])}, the model's is {_kind(tensor)}.",
                file=path,
            )
    check_finite(found, path)
    return found


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _check_header(data: bytes, path: Path) -> None:
    """What the library lets pass is refused here: duplicate names, holes, extra fields, headers without end."""

    def refuse(reason: str) -> ModelError:
        return ModelError(f"{shown(path)} is not a usable safetensors file: {reason}.", file=path)

    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(len(data) - 8, _HEADER_LIMIT) or data[8:9] != b"{":
        raise refuse("its header is missing or too long")
    header = from_json(data[8 : 8 + size], path)
    if "__metadata__" in header and not isinstance(header.pop("__metadata__"), dict):
        raise refuse("its metadata is no object")
    if len(header) > _COUNT_LIMIT:
        raise refuse(f"more than {_COUNT_LIMIT:,} tensors")
    spans = sorted(_span(entry) or (-1, -1) for entry in header.values())
    ends = [0, *(end for _, end in spans)]
    if any(start != before or end < start for (start, end), before in zip(spans, ends, strict=False)):
        raise refuse("its tensors overlap, leave holes or are not described")
    if ends[-1] != len(data) - 8 - size:
        raise refuse("its size is not that of its tensors")


def _span(entry: Any) -> tuple[int, int] | None:
    """The bytes (start, end) of a well-formed header entry, else None."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return None
    numbers = [entry["shape"], entry["data_offsets"]]
    if not all(isinstance(part, list) for part in numbers) or len(entry["data_offsets"]) != 2:
        return None
    if not all(type(n) is int and n >= 0 for n in itertools.chain(*numbers)):
        return None
    return entry["data_offsets"][0], entry["data_offsets"][1]
