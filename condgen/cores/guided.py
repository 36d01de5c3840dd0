"""A core that is asked twice, with a condition and with none, as one batch: for ``likelihoods.Guided``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from condgen.condition import Condition
from condgen.cores.cache import Cache
from condgen.cores.conditioning import Terms


class GuidedCore(nn.Module):
    """The three functions of ``core`` for B images under h and the same images under no condition: 2 B in all.

    What is in between is of those 2 B; ``head`` gives the parameters of both, one after the other, (B, 2 n, H, W).

    Args:
        core: trained without condition too, for which zeros of vector and map stand.
    """

    def __init__(self, core: nn.Module) -> None:
        super().__init__()
        self.core: Any = core

    def terms(self, condition: Condition, keep: bool = False) -> Terms:
        """Of the 2 B: ``condition`` (B), then none."""
        everywhere = torch.ones(len(condition), dtype=torch.bool, device=condition.parts[0].device)
        terms: Terms = self.core.terms(Condition.stack([condition, condition.without(everywhere)]), keep)
        return terms

    def vertical(self, x: Tensor, terms: Terms, dropout: None = None, cache: Cache | None = None) -> Any:
        return self.core.vertical(_twice(x), terms, cache=self._of_both(cache))

    def horizontal(
        self, x: Tensor, vertical: Any, terms: Terms, dropout: None = None, cache: Cache | None = None
    ) -> Tensor:
        features: Tensor = self.core.horizontal(_twice(x), vertical, terms, cache=self._of_both(cache))
        return features

    def head(self, features: Tensor, cache: Cache | None = None) -> Tensor:
        return _side_by_side(self.core.head(features, cache=self._of_both(cache)))

    def forward(self, x: Tensor, terms: Terms, dropout_keys: None = None) -> Tensor:
        """Parameters of every pixel, (B, 2 n, H, W)."""
        return _side_by_side(self.core(_twice(x), terms))

    def _of_both(self, cache: Cache | None) -> Cache | None:
        """The memory of the 2 B, at the place of the memory of the B, which keeps it."""
        if cache is None:
            return None
        both = cache.of(self, lambda: Cache(2 * cache.batch, cache.width, cache.native, cache.kept))
        both.move(cache.row, cache.column)
        return both


def _twice(x: Tensor) -> Tensor:
    return torch.cat([x, x])


def _side_by_side(parameters: Tensor) -> Tensor:
    """(2 B, n, H, W) -> (B, 2 n, H, W)."""
    return torch.cat(parameters.chunk(2), dim=1)
