"""How well an embedding tells whether two pictures show one person: over all pairs of pictures of people it never saw.

Legend: N pictures, D length of an embedding; TAR and FAR as in roc.py.
"""

from __future__ import annotations

import numpy as np

from condgen import streams
from condgen.data import Dataset
from condgen.embedding import Embedding
from condgen.errors import InputError, NumericalError, RecipeError
from condgen.evaluate.bits import evaluating
from condgen.evaluate.roc import Roc, accuracy_at, roc_of
from condgen.progress import Progress

STRICT = 1e-3
"""The share of false accepts at which true ones are reported."""


def people_of(dataset: Dataset, limit: int | None = None) -> np.ndarray:
    """The pictures that are measured, int64: all, or those of some people, the same ones every time, until there are
    ``limit`` pictures."""
    labels = dataset.identities
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    everyone, counts = np.unique(labels, return_counts=True)
    order = streams.permutation(len(everyone), 0, "verification", "people")
    within = np.cumsum(counts[order]) <= max(limit, counts[order[:2]].sum())  # two people at the least
    return np.flatnonzero(np.isin(labels, everyone[order[within]]))


def verification_accuracy(vectors: np.ndarray, people: np.ndarray) -> float | None:
    """Balanced accuracy with thresholds that were chosen on other people: those of one half judge the other, both
    ways. None where a half has no pairs of both kinds."""
    everyone = np.unique(people)
    first = np.isin(people, everyone[streams.permutation(len(everyone), 0, "verification", "halves")[::2]])
    found = []
    for half in (first, ~first):
        try:
            roc_of(vectors[half], people[half])
            threshold = roc_of(vectors[~half], people[~half]).best_threshold()
        except InputError:
            return None
        found.append(accuracy_at(vectors[half], people[half], threshold))
    return float(np.mean(found))


def embedded(
    model: Embedding, dataset: Dataset, indices: np.ndarray, batch_size: int = 64, quiet: bool | None = True
) -> np.ndarray:
    """Unit vectors of the pictures at ``indices``, float64 (N, D).

    Raises:
        NumericalError: one is not finite; the sentence names its picture.
    """
    found = []
    with evaluating(model), Progress("embedding", len(indices), "images", quiet) as progress:
        for start in range(0, len(indices), batch_size):
            part = indices[start : start + batch_size]
            batch = {name: value.to(model.device) for name, value in dataset.batch(part).items()}
            found.append(model.embed(batch).double().cpu().numpy())
            progress.advance(len(part))
    vectors = np.concatenate(found)
    bad = np.flatnonzero(~np.isfinite(vectors).all(1))
    if len(bad):
        raise NumericalError(
            f"The embedding of image {indices[bad[0]]} of the {dataset.split} split is not finite; use an earlier "
            "checkpoint."
        )
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def raw_pixels(dataset: Dataset, indices: np.ndarray) -> np.ndarray:
    """The pictures themselves as embeddings, float64 (N, C H W): mean taken off, length 1. What learning is held
    against."""
    pixels = np.concatenate(
        [dataset.batch(part)["image"].numpy() for part in np.array_split(indices, -(-len(indices) // 256))]
    )
    flat = pixels.reshape(len(pixels), -1).astype(np.float64)
    flat -= flat.mean(1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)


def verification_report(
    model: Embedding, dataset: Dataset, *, limit: int | None = None, quiet: bool | None = None
) -> tuple[dict[str, float | int | str | None], dict[str, Roc]]:
    """Everything that ``condgen evaluate`` says about an embedding, and the curves by name.

    Args:
        limit: measure people of about so many pictures, the same ones every time.
        quiet: show no progress; None: as ``progress.set_quiet`` says.

    Raises:
        RecipeError: the images have another shape than those that the embedding learned from.
        InputError: the data has no identities, nobody has two pictures, or there is one person alone.
        NumericalError: an embedding is not finite.
    """
    for name in ("channels", "height", "width", "bit_depth"):
        found, learnt = getattr(dataset.info, name), getattr(model.info, name)
        if found != learnt:
            field = "data.image_size" if name in ("height", "width") else f"data.{name}"
            raise RecipeError(
                f"{field}: the images have {name} {found}, and the embedding learned from {learnt}; set it to that.",
                field=field,
            )
    indices = people_of(dataset, limit)
    people = dataset.identities[indices]
    vectors = embedded(model, dataset, indices, quiet=quiet)
    curve, pixels = roc_of(vectors, people), roc_of(raw_pixels(dataset, indices), people)
    report: dict[str, float | int | str | None] = {
        "auc": curve.auc,
        "verification_accuracy": verification_accuracy(vectors, people),
        "tar_at_far_1e-3": curve.true_accepts_at(STRICT),
        "baseline_auc": pixels.auc,
        "baseline_tar_at_far_1e-3": pixels.true_accepts_at(STRICT),
        "people": len(np.unique(people)),
        "examples": len(indices),
        "same_pairs": curve.same,
        "different_pairs": curve.different,
        "split": dataset.split,
    }
    return report, {"embedding": curve, "raw pixels": pixels}
