"""The weights of frozen encoders: once in a run, ``encoder.safetensors``; every checkpoint's manifest says which."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from condgen.condition import Encoder
from condgen.errors import ModelError, shown
from condgen.files import read_regular, write_whole
from condgen.store.tensors import check_finite, decode, encode

FROZEN = "encoder.safetensors"
_LIMIT = 1 << 40


def frozen_state(module: nn.Module) -> dict[str, Tensor]:
    """The part of ``module.state_dict()`` that belongs to frozen encoders: the very tensors."""
    frozen = [name for name, part in module.named_modules() if isinstance(part, Encoder) and part.fixed]
    prefixes = tuple(f"{name}." if name else "" for name in frozen)
    return {name: tensor for name, tensor in module.state_dict().items() if name.startswith(prefixes)}


def write_frozen(run: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Writes them into the run folder; the entry for its manifests, None where nothing is frozen.

    Raises:
        ModelError: a weight is NaN or infinite.
        MachineError: the disk refuses.
    """
    if not tensors:
        return None
    check_finite(tensors, FROZEN)
    data = encode(tensors)
    write_whole(run / FROZEN, data, force=True)
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def read_frozen(run: Path, entry: Any, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the run folder, named and shaped as ``expected``.

    Args:
        entry: what the checkpoint's manifest says of them.

    Raises:
        ModelError: the file is missing, holds other weights than the checkpoint was trained with, or other tensors
            than the encoder has.
    """
    if not expected and entry is None:
        return {}
    path = run / FROZEN
    data = read_regular(path, _LIMIT, error=ModelError, follow_links=False)
    if {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} != entry:
        raise ModelError(
            f"{shown(path)} is damaged or holds other weights than the encoder had when the checkpoint was saved; put "
            "back the file that was there, or train anew.",
            file=path,
        )
    return decode(data, expected, path)
