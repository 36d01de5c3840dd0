"""Sampling in tiles of a fixed number of images, so that neither batch size nor batch mates change a picture.

In fp32 another batch size means another kernel, another last bit, and now and then another bin, which changes the
rest of the picture. So every network call of every command sees ``tile`` images; the last tile is filled up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from condgen.condition import Condition
from condgen.likelihoods import Likelihood, Temperature
from condgen.samplers.noise import noise


@torch.no_grad()
def in_tiles(
    sampler: Callable[..., tuple[Tensor, Tensor]],
    core: Any,
    likelihood: Likelihood,
    condition: Condition,
    conditions: int,
    count: int,
    *,
    seed: int,
    height: int,
    width: int,
    tile: int,
    first: int = 0,
    skip: int = 0,
    known: Tensor | None = None,
    mask: Tensor | None = None,
    temperature: Temperature = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """``count`` images of each of ``conditions`` conditions, in order: images and ln p, tile by tile, on the CPU.

    Args:
        condition: one batch of all conditions, or the empty one.
        seed, first: image k of every condition has the noise of sample ``first + k`` of the seed.
        skip: so many images, whole tiles of them, are left out at the beginning.
        known, mask: see the samplers; one for each condition.
        progress: called with (pixels done, pixels in all) of all tiles together.
    """
    total = conditions * count
    starts = range(skip, total, tile)
    device = next(core.parameters()).device
    done = 0

    def step_done() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, len(starts) * height * width)

    for start in starts:
        places = [divmod(min(i, total - 1), count) for i in range(start, start + tile)]  # the last image fills it up
        of = torch.tensor([row for row, _ in places])
        uniforms = noise(seed, [first + k for _, k in places], likelihood.planes, height, width).to(device)
        drawn, log_prob = sampler(
            core,
            likelihood,
            core.terms(condition[of.to(device)], keep=True),
            uniforms,
            known=None if known is None else known[of].to(device),
            mask=None if mask is None else mask[of].to(device),
            temperature=temperature,
            step_done=step_done,
        )
        yield drawn[: total - start].cpu(), log_prob[: total - start].cpu()
