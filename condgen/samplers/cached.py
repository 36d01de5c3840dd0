"""The cached sampler: every feature of an image is computed once, as the whole image's forward pass would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from condgen import native
from condgen.cores.cache import Cache, Kept
from condgen.cores.conditioning import Terms
from condgen.likelihoods import Likelihood, Temperature, scaled
from condgen.samplers.start import canvas

_SCORED = 1 << 22
"""Parameters that are kept until their pixels are scored together: one row costs nearly as much as many."""
_kept: WeakKeyDictionary[Any, Kept] = WeakKeyDictionary()
"""Of every core that has drawn and is still there."""


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
    compiled: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Draws images pixel by pixel in raster order, colour by colour where the core orders them.

    The vertical stack is asked once a row, over the full width, the horizontal one once a pixel (once a colour where
    they are ordered). Arguments and result as of ``naive``, which it equals.

    Args:
        compiled: whether the steps of PixelCNN++ at a pixel are compiled C; None: where there is a C compiler. For fp32
            on a CPU; elsewhere they never are.
    """
    x, dtype = canvas(core, likelihood, noise, known, mask)
    B, _, H, W = x.shape
    log_prob = torch.zeros(B, dtype=torch.float64, device=x.device)
    rows = min(H, max(1, _SCORED // (B * likelihood.outputs * W)))  # that are scored together
    with torch.inference_mode():  # x and log_prob, made outside of it, are ordinary tensors
        pixels, half = scaled(x, likelihood.levels, dtype), x.new_full((), (likelihood.levels - 1) / 2, dtype=dtype)
        of_rows = pixels.new_empty(B, rows, W, likelihood.outputs).permute(0, 3, 1, 2)
        fits = dtype == torch.float32 and x.device.type == "cpu"
        kept = _kept.setdefault(core, Kept())
        kept.check(core)
        cache = Cache(B, W, fits and (native.available() if compiled is None else compiled), kept)
        drawer = likelihood.drawer(noise, temperature)
        whole = parameters = of_rows  # until there are any
        for row in range(H):
            cache.move(row)
            above = core.vertical(pixels, terms, cache=cache)
            places = zip(
                x[:, :, row].unbind(-1), pixels[:, :, row].unbind(-1), of_rows[:, :, row % rows].unbind(-1), strict=True
            )
            for column, (place, pixel, of_pixel) in enumerate(places):
                cache.move(row, column)
                fixed = None if mask is None else mask[:, :, row, column]  # (B, 1)
                given = fixed is not None and bool(fixed.all())
                for step in range(1 if given else likelihood.passes):
                    features = core.horizontal(pixels, above, terms, cache=cache)
                    found = core.head(features, cache=cache)  # with some cores the same buffer at every pixel
                    if found is not whole:
                        whole, parameters = found, found[:, :, 0, 0]
                    if not given:
                        drawn = drawer.draw(parameters, place, row, column, step)
                        place.copy_(drawn if fixed is None else torch.where(fixed, place.to(drawn.dtype), drawn))
                        pixel.copy_(place)  # to the network's grid, as ``scaled`` does it
                        pixel.sub_(half)
                        pixel.div_(half)
                of_pixel.copy_(parameters)  # of the last colour's pass, which has those of all colours
                step_done()
            if row % rows == rows - 1 or row == H - 1:
                first = row - row % rows
                part = likelihood.log_prob(of_rows[:, :, : row + 1 - first], x[:, :, first : row + 1])
                log_prob += part.double().sum((1, 2))
    return x, log_prob
