"""What decides the images of a sampling job: two jobs with the same description draw the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch

from condgen.condition import Condition
from condgen.model import ConditionalModel
from condgen.store.sealed import to_json

DIGESTS = {"model", "condition"}
"""The entries of a job that say nothing to people."""


def job_of(
    model: ConditionalModel, names: Sequence[str], condition: Condition, *, count: int, seed: int,
    temperature: tuple[float, float], guidance: float, sampler: str, tile: int,
) -> dict[str, Any]:  # fmt: skip
    """All that decides the images of a job, as JSON; the names of its entries are words for people.

    Args:
        names: of the conditions.
        condition: one batch of them.
    """
    weights, given = hashlib.sha256(), hashlib.sha256()
    made_by = [section.model_dump(mode="json") for section in (model.recipe.model, model.recipe.encoder)]
    weights.update(to_json(made_by))
    for name, tensor in sorted(model.state_dict().items()):
        _feed(weights, name, tensor)
    for tensor in condition.parts:
        _feed(given, str(tuple(tensor.shape)), tensor)
    info = model.info
    return {
        "model": weights.hexdigest(),
        "labels": list(names),
        "condition": given.hexdigest(),
        "count": count,
        "seed": seed,
        "temperature": list(temperature),
        "guidance": guidance,
        "sampler": sampler,
        "tile": tile,
        "device": model.device.type,
        "shape": [info.channels, info.height, info.width],
    }


def _feed(digest: Any, name: str, tensor: torch.Tensor) -> None:
    digest.update(f"{name} {tensor.dtype}".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
