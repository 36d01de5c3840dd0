"""Samplers: plain functions of (core, likelihood, terms, noise). x = F(model, condition, noise), no chance inside."""

from __future__ import annotations

from collections.abc import Callable

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

__all__ = ["SAMPLERS", "cached", "fixed_point", "in_tiles", "naive", "noise"]
