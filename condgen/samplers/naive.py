"""The plain sampler: the whole network for every pixel. Slow, obvious, and the witness of every other sampler."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from condgen.cores.conditioning import Terms
from condgen.likelihoods import Likelihood, Temperature, scaled
from condgen.samplers.start import canvas


@parametrize.cached()
def naive(
    core: nn.Module,
    likelihood: Likelihood,
    terms: Terms,
    noise: Tensor,
    *,
    known: Tensor | None = None,
    mask: Tensor | None = None,
    temperature: Temperature = 1.0,
    step_done: Callable[[], None] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """Draws images pixel by pixel in raster order, colour by colour where the core orders them.

    Args:
        noise: float64 (B, planes, H, W) in (0, 1).
        known, mask: integers (B, C, H, W) and bool (B, 1, H, W); where the mask is true the known pixel is kept and
            conditions whatever comes later in raster order.
        step_done: called once a pixel.

    Returns:
        uint8 (B, C, H, W) on 0 .. V-1, and ln p of each as the model gives it, known pixels and all, float64 (B,). What
        was drawn is on the grid at every step, so it can be scored.
    """
    x, dtype = canvas(core, likelihood, noise, known, mask)
    for row in range(x.shape[2]):
        for column in range(x.shape[3]):
            here = (slice(None), slice(None), slice(row, row + 1), slice(column, column + 1))
            if mask is None or not bool(mask[here].all()):
                for step in range(likelihood.passes):
                    pixels = scaled(x, likelihood.levels, dtype)
                    parameters = core(pixels, terms)[here]
                    drawn = likelihood.draw(parameters, x[here], noise[here], step, temperature)
                    x[here] = drawn if mask is None else torch.where(mask[here], x[here], drawn)
            step_done()
    parameters = core(scaled(x, likelihood.levels, dtype), terms)
    return x, likelihood.log_prob(parameters, x).double().sum((1, 2))
