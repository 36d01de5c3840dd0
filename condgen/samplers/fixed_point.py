"""Fixed-point sampling (Song et al. 2021, "Accelerating feedforward computation via parallel nonlinear equation
solving").

With the noise given, the sample is the one solution of x = T(x), where T draws every sub-pixel from the parameters of
the whole image x. T's sub-pixels depend on earlier ones alone, so repeating x <- T(x) makes at least one more of them
final in every round, and usually many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from condgen.cores.conditioning import Terms
from condgen.errors import ModelError
from condgen.likelihoods import Likelihood, Temperature, scaled
from condgen.samplers.start import canvas


@parametrize.cached()
def fixed_point(
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
    """Draws whole images over and over until they stay as they are: exact, for any causal core, without a cache.

    What precedes the first sub-pixel that a round has changed is final and not touched again: in fp32 another round
    could flip a value that lies on the edge of its bin. Arguments and result as of ``naive``, which it equals.

    Raises:
        ModelError: more rounds than a causal core can need.
    """
    x, dtype = canvas(core, likelihood, noise, known, mask)
    B, _, H, W = x.shape
    place = torch.arange(H * W, device=x.device).view(1, H, W)
    final = torch.zeros(B, 1, 1, dtype=torch.long, device=x.device)  # pixels, in raster order
    reported = rounds = 0
    while int(final.min()) < H * W:
        rounds += 1
        if rounds > likelihood.passes * H * W + 1:
            raise ModelError("The core looks ahead, so its samples never settle; condgen verify shows where.")
        parameters = core(scaled(x, likelihood.levels, dtype), terms)
        drawn = x
        for step in range(likelihood.passes):
            drawn = likelihood.draw(parameters, drawn, noise, step, temperature)
        if mask is not None:
            drawn = torch.where(mask, x, drawn)
        drawn = torch.where((place < final)[:, None], x, drawn)
        changed = (drawn != x).any(1)  # (B, H, W)
        first = torch.where(changed, place, H * W).flatten(1).min(1).values.view(B, 1, 1)
        # whole pixels: the first that changed was drawn from a final past. Colours that see each other: only the first
        # of them was, and the pixel has to be drawn again
        final = torch.maximum(final, (first + (likelihood.passes == 1)).clamp(max=H * W))
        x = drawn
        for _ in range(reported, int(final.min())):
            step_done()
        reported = max(reported, int(final.min()))
    # the last round changed at most the last pixel, which no parameters depend on
    return x, likelihood.log_prob(parameters, x).double().sum((1, 2))
