"""Guidance: away from what is likely anyway, towards what the condition asks for (legend: ``condgen.likelihoods``).

Classifier-free guidance (Ho and Salimans 2022, eq. 6, there of scores), here exactly, of a distribution over V values.
"""

from __future__ import annotations

import torch
from torch import Tensor

from condgen.likelihoods.base import Likelihood, Temperature
from condgen.likelihoods.softmax import value_at

_LARGEST_TABLE = 1 << 22
"""Numbers in the largest tensor: what is drawn of whole images is drawn in bands of rows."""


class Guided(Likelihood):
    """Every sub-pixel from p(v | h)^(1 + W) / p(v)^W over its values v, divided by the sum over v.

    Both are conditional on all earlier sub-pixels, those of the same pixel too: what the likelihood's ``table`` holds.
    So mixtures are drawn from tables over their V values as well, colour by colour, and need no plane of noise for
    the component. At a temperature both are first made those of the temperature, then divided. All of it is computed
    in float64.

    Parameters are those under h, then those under no condition: (B, 2 n, H, W), n outputs of the likelihood.

    Args:
        likelihood: of p(v | h) and p(v).
        guidance: W; 0 is p(v | h), -1 is p(v).
    """

    def __init__(self, likelihood: Likelihood, guidance: float) -> None:
        super().__init__(likelihood.channels, likelihood.levels)
        self.likelihood = likelihood
        self.guidance = guidance
        self.outputs = 2 * likelihood.outputs
        self.passes, self.planes = likelihood.passes, likelihood.channels
        self.picks_component = likelihood.picks_component
        self._of_a_pixel = likelihood.levels * int(getattr(likelihood, "mixtures", 1))

    def table(self, parameters: Tensor, x: Tensor, channel: int, temperature: Temperature = 1.0) -> Tensor:
        halves = parameters.double().chunk(2, dim=1)
        given, free = (self.likelihood.table(half, x, channel, temperature) for half in halves)
        return (given + self.guidance * (given - free)).log_softmax(1)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        total = torch.empty(len(x), *x.shape[2:], dtype=torch.float64, device=x.device)
        for rows in self._bands(x):
            p, part = parameters[:, :, rows], x[:, :, rows]
            tables = [self.table(p, part, c).gather(1, part[:, c, None].long()) for c in range(self.channels)]
            total[:, rows] = torch.cat(tables, dim=1).sum(1)
        return total

    def draw(
        self, parameters: Tensor, x: Tensor, uniforms: Tensor, step: int, temperature: Temperature = 1.0
    ) -> Tensor:
        x = x.clone()
        for rows in self._bands(x):
            part = x[:, :, rows]  # a view: a colour that is drawn is there for the next
            for c in [step] if self.colour_ordered else range(self.channels):
                logits = self.table(parameters[:, :, rows], part, c, temperature)
                part[:, c] = value_at(logits, uniforms[:, c, rows]).to(x.dtype)
        return x

    def _bands(self, x: Tensor) -> list[slice]:
        """All rows of (B, C, H, W), as many at a time as memory is meant for."""
        H = x.shape[2]
        rows = max(1, _LARGEST_TABLE // (len(x) * x.shape[3] * self._of_a_pixel))
        return [slice(first, min(first + rows, H)) for first in range(0, H, rows)]
