"""How like a source portraits of it are, by a model's own embedding of faces, beside how like a stranger they are.

Legend: N pictures, D length of an embedding; likeness is the cosine of two embeddings, -1 .. 1.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condgen import streams
from condgen.data import Dataset, open_data
from condgen.errors import CondgenError, ModelError, shown
from condgen.evaluate.bits import evaluating
from condgen.model import Encoded
from condgen.recipe.schema import DataSection


def check_faces(model: Encoded) -> None:
    """Raises:
    ModelError: the model's encoder is none of faces: it has no ``identity``.
    """
    if not hasattr(model.encoder, "identity"):
        raise ModelError(
            f"{shown(model.source)} does not know faces (encoder.type={shown(model.recipe.encoder.type)}); give a "
            "model of encoder.type=face, as portraits.",
            file=model.source,
            field="encoder.type",
        )


def identities(model: Encoded, images: Tensor | np.ndarray) -> np.ndarray:
    """Who is in the pictures, integers (N, C, H, W) of the model's shape and depth: unit vectors, float64 (N, D).

    Each picture is embedded by itself: none depends on the others, to the last bit.

    Raises:
        ModelError: see ``check_faces``.
    """
    check_faces(model)
    embed: Any = model.encoder.identity
    device = next(model.parameters()).device
    with evaluating(model):
        found = [embed({"image": torch.as_tensor(image, device=device)[None]}) for image in images]
    vectors: np.ndarray = torch.cat(found).double().cpu().numpy()
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def strangers(model: Encoded, count: int = 64) -> tuple[np.ndarray, str]:
    """Embeddings of ``count`` different people whom nobody asked about, the same ones every time, and who they are.

    People of the validation data that the model was trained beside; drawn ones where that data is drawn, is not here,
    or does not say who is who.
    """
    section: DataSection = model.recipe.data
    if section.source != "portraits":
        plain = section.model_copy(update={"pairs": "none", "columns": None, "download": False})
        with contextlib.suppress(CondgenError):
            data = open_data(plain, "validation")
            if len(np.unique(data.identities)) > 1:
                return _of_different_people(model, data, count), f"people of its validation data ({section.source})"
    drawn = DataSection(
        source="portraits", image_size=(section.height, section.width), channels=section.channels,
        bit_depth=section.bit_depth, identities=8 * count, views=1,
    )  # fmt: skip
    return _of_different_people(model, open_data(drawn, "validation"), count), "drawn people"


def _of_different_people(model: Encoded, data: Dataset, count: int) -> np.ndarray:
    _, first = np.unique(data.identities, return_index=True)
    chosen = first[streams.permutation(len(first), 0, "strangers")[:count]]
    return identities(model, data.batch(chosen)["image"])


def likeness(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The mean likeness of each of ``vectors`` (N, D) to ``others`` (M, D): (N,)."""
    found: np.ndarray = (vectors @ others.T).mean(1)
    return found
