"""The cached sampler: every feature of an image is computed once, as the whole image's forward pass would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from condgen.cores.cache import Cache
from condgen.cores.conditioning import Terms
from condgen.likelihoods import Likelihood, Temperature, scaled


@parametrize.cached()
def cached(
    core: Any,
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

    The vertical stack is asked once a row, over the full width, the horizontal one once a pixel (once a colour where
    they are ordered). Arguments and result as of ``naive``, which it equals.
    """
    dtype = next(core.parameters()).dtype
    B, _, H, W = noise.shape
    x = torch.zeros(B, likelihood.channels, H, W, dtype=torch.uint8, device=noise.device)
    if known is not None and mask is not None:
        x = torch.where(mask, known.to(torch.uint8), x)
    pixels = scaled(x, likelihood.levels, dtype)
    cache = Cache(B, W)
    log_prob = torch.zeros(B, dtype=torch.float64, device=noise.device)
    of_row = pixels.new_empty(B, likelihood.outputs, 1, W)
    for row in range(H):
        cache.move(row)
        above = core.vertical(pixels, terms, cache=cache)
        for column in range(W):
            cache.move(row, column)
            here = (slice(None), slice(None), slice(row, row + 1), slice(column, column + 1))
            given = mask is not None and bool(mask[here].all())
            for step in range(1 if given else likelihood.passes):
                parameters = core.head(core.horizontal(pixels, above, terms, cache=cache), cache=cache)
                if not given:
                    drawn = likelihood.draw(parameters, x[here], noise[here], step, temperature)
                    x[here] = drawn if mask is None else torch.where(mask[here], x[here], drawn)
                    pixels[here] = scaled(x[here], likelihood.levels, dtype)
            of_row[..., column : column + 1] = parameters  # of the last colour's pass, which has those of all colours
            step_done()
        log_prob += likelihood.log_prob(of_row, x[:, :, row : row + 1]).double().sum((1, 2))
    return x, log_prob
