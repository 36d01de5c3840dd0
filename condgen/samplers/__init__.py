"""Samplers: plain functions of (core, likelihood, terms, noise). x = F(model, condition, noise), no chance inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from condgen.samplers.cached import cached
from condgen.samplers.fixed_point import fixed_point
from condgen.samplers.naive import naive
from condgen.samplers.noise import noise
from condgen.samplers.tiles import in_tiles

SAMPLERS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "cached": cached,
    "fixed_point": fixed_point,
    "naive": naive,
}


def resolved(name: str, core: Any) -> str:
    """The sampler that ``name`` stands for: ``auto`` is the fastest that this core has, by what was measured.

    The cached one costs the time of 1 to 10 passes of the network a batch, the fixed point of about a hundred rounds of
    one pass each: it is for cores without the three functions that a cache needs. The choice does not look at a clock:
    in fp32 the samplers' pictures may differ, and a seed has to give the same one everywhere.
    """
    if name != "auto":
        return name
    return "cached" if all(hasattr(core, part) for part in ("vertical", "horizontal", "head")) else "fixed_point"


__all__ = ["SAMPLERS", "cached", "fixed_point", "in_tiles", "naive", "noise", "resolved"]
