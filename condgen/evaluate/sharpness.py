"""How much edge there is in pictures, beside others of the same things."""

from __future__ import annotations

import numpy as np


def gradient_energy(images: np.ndarray) -> np.ndarray:
    """The squared steps between neighbours, down and across, summed over each picture: (N, C, H, W) -> (N,).

    The pictures are blurred lightly first, by [1 2 1] / 4 both ways: of noise without structure, as a camera's grain,
    a twentieth is left, of an edge most.

    Args:
        images: uint8 0 .. 255; steps are counted on 0 .. 1.
    """
    smooth = images.astype(np.float64) / 255
    for axis in (2, 3):
        wide = np.pad(smooth, [(1, 1) if k == axis else (0, 0) for k in range(4)], mode="edge")
        n = smooth.shape[axis]
        before, here, after = (np.take(wide, range(k, k + n), axis) for k in range(3))
        smooth = (before + 2 * here + after) / 4
    energy: np.ndarray = sum(np.square(np.diff(smooth, axis=axis)).sum((1, 2, 3)) for axis in (2, 3))
    return energy


def sharpness(images: np.ndarray, originals: np.ndarray) -> float | None:
    """Gradient energy of ``images`` (N, C, H, W) as a share of that of ``originals`` (M, C, H, W), per picture.

    1 is as sharp as the originals, a blurred copy is below; noise that is not in the originals is above. None where the
    originals are flat.
    """
    of_originals = float(gradient_energy(originals).mean())
    return float(gradient_energy(images).mean()) / of_originals if of_originals > 0 else None
