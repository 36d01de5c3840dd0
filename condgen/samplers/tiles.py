"""Sampling in tiles of a fixed number of images, so that neither batch size nor batch mates change a picture.

In fp32 another batch size means another kernel, another last bit, and now and then another bin, which changes the
rest of the picture. So every network call of every command sees ``tile`` images; the last tile is filled up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from condgen.condition import Condition
from condgen.likelihoods import Likelihood
from condgen.samplers.noise import noise


def sample_in_tiles(
    sampler: Callable[..., Tensor],
    core: Any,
    likelihood: Likelihood,
    condition: Condition,
    numbers: Sequence[int],
    *,
    seed: int,
    height: int,
    width: int,
    tile: int,
    device: torch.device,
    known: Tensor | None = None,
    mask: Tensor | None = None,
    temperature: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """One image for each entry of ``condition`` and ``numbers``: uint8 (B, C, H, W) on the CPU.

    Args:
        numbers: k of each image; its noise is that of sample k of ``seed``.
        known, mask: see the samplers; one per image.
        progress: called with (pixels done, pixels in all) of all tiles together.
    """
    total = len(numbers)
    tiles = -(-total // tile)
    done = 0

    def step_done() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, tiles * height * width)

    pictures = []
    for first in range(0, total, tile):
        indices = [min(i, total - 1) for i in range(first, first + tile)]  # the last image fills the tile up
        here = torch.tensor(indices)
        uniforms = noise(seed, [numbers[i] for i in indices], likelihood.planes, height, width).to(device)
        terms = core.terms(condition.expand(total)[here.to(device)], keep=True)
        drawn = sampler(
            core,
            likelihood,
            terms,
            uniforms,
            known=None if known is None else known[here].to(device),
            mask=None if mask is None else mask[here].to(device),
            temperature=temperature,
            step_done=step_done,
        )
        pictures.append(drawn[: total - first].cpu())
    return torch.cat(pictures)
