"""How far an autoencoder's reconstructions are from the images."""

from __future__ import annotations

import math

import numpy as np

from condgen.autoencoder import Autoencoder
from condgen.errors import InputError, NumericalError
from condgen.evaluate.bits import ImageSet, evaluated_indices, evaluating, mean_and_ci95


def squared_error(
    model: Autoencoder, dataset: ImageSet, limit: int | None = None, batch_size: int = 64
) -> tuple[float, float | None]:
    """Squared error per sub-pixel, of values on 0 .. 1: the mean over ``limit`` images (the same ones every time) and
    the half-width of its 95 % interval.

    Raises:
        InputError: the data set is empty.
        NumericalError: the error of an image is NaN or infinite; the sentence names it.
    """
    if len(dataset) == 0:
        raise InputError(f"The {dataset.split} split has no images; choose another split or data set.")
    indices = evaluated_indices(len(dataset), limit)
    errors = np.zeros(len(indices))
    with evaluating(model):
        for start in range(0, len(indices), batch_size):
            part = indices[start : start + batch_size]
            batch = {name: value.to(model.device) for name, value in dataset.batch(part).items()}
            errors[start : start + batch_size] = model.squared_error(batch).double().cpu().numpy()
    for index, error in zip(indices, errors, strict=True):
        if not math.isfinite(error):
            raise NumericalError(
                f"The squared error of image {index} of the {dataset.split} split is {error}; use an earlier "
                "checkpoint."
            )
    return mean_and_ci95(errors / model.info.dimensions)
