"""Samplers: plain functions of (core, likelihood, terms, noise). x = F(model, condition, noise), no chance inside."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from condgen.samplers.cached import cached
from condgen.samplers.naive import naive
from condgen.samplers.noise import noise
from condgen.samplers.tiles import sample_in_tiles

SAMPLERS: dict[str, Callable[..., Tensor]] = {"cached": cached, "naive": naive}

__all__ = ["SAMPLERS", "cached", "naive", "noise", "sample_in_tiles"]
