"""JSON that is read strictly, and sealed: the last key of a sealed object is the SHA-256 of all the others.

A flipped bit in a manifest or a config is thereby noticed, and so is an edit by hand.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from condgen.errors import ModelError, shown
from condgen.files import read_regular

LIMIT = 16 * 2**20
"""Bytes of the largest JSON file that is read."""


def to_json(value: Any) -> bytes:
    """``value`` as text for people and diffs; NaN and infinity are refused by ``ValueError``."""
    return (json.dumps(value, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()


def from_json(data: bytes, path: Path) -> dict[str, Any]:
    """The object that ``data`` (the content of ``path``) holds.

    Raises:
        ModelError: not strict JSON (NaN, infinity, duplicate keys, nesting or numbers without end), or not an object.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key occurs twice")
        return found

    def finite(text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise ValueError(f"{text} is not a finite number")
        return value

    try:
        value = json.loads(data, object_pairs_hook=unique, parse_constant=finite, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{shown(path)} is damaged: no strict JSON ({shown(error)}).", file=path) from error
    if not isinstance(value, dict):
        raise ModelError(f"{shown(path)} is damaged: it holds no JSON object.", file=path)
    return value


def seal(content: dict[str, Any]) -> bytes:
    """``content`` as JSON with its seal."""
    return to_json({**content, "sha256": _digest(content)})


def read_sealed(path: Path) -> dict[str, Any]:
    """The content of a sealed file, without the seal.

    Raises:
        ModelError: missing, a link, no strict JSON, or other content than was sealed.
    """
    content = from_json(read_regular(path, LIMIT, error=ModelError, follow_links=False), path)
    if content.pop("sha256", None) != _digest(content):
        raise ModelError(
            f"{shown(path)} is damaged: its content does not fit its seal; restore it as it was written.", file=path
        )
    return content


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(to_json(content)).hexdigest()
