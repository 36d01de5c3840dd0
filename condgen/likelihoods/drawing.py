"""Drawing pixel after pixel of a batch of images (legend: ``condgen.likelihoods``).

At a single pixel operators cost more than arithmetic: what depends on the noise alone is computed for the whole image,
the rest in buffers that are there once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from condgen.likelihoods.base import Likelihood, Temperature
    from condgen.likelihoods.logistic import LogisticMixture
    from condgen.likelihoods.softmax import Categorical


class Drawer:
    """Draws by ``likelihood.draw``.

    Args:
        noise: float64 (B, planes, H, W) in (0, 1).
    """

    def __init__(self, likelihood: Likelihood, noise: Tensor, temperature: Temperature) -> None:
        self._likelihood, self._noise, self._temperature = likelihood, noise, temperature

    def draw(self, parameters: Tensor, x: Tensor, row: int, column: int, step: int) -> Tensor:
        """(B, outputs) and the pixel so far, integers (B, C) -> (B, C): whole numbers, those of pass ``step`` drawn.

        The next call may overwrite the result.
        """
        here = self._noise[:, :, row : row + 1, column : column + 1]
        drawn = self._likelihood.draw(parameters[:, :, None, None], x[:, :, None, None], here, step, self._temperature)
        return drawn[:, :, 0, 0]


class MixtureDrawer(Drawer):
    """Of ``LogisticMixture``: a component by inverse CDF, then colour after colour."""

    def __init__(self, likelihood: LogisticMixture, noise: Tensor, temperature: Temperature) -> None:
        of_weights, of_scales = temperature if isinstance(temperature, tuple) else (temperature, temperature)
        B, C, K = len(noise), likelihood.channels, likelihood.mixtures
        self._of_weights, self._floor, self._top = of_weights, likelihood.LOG_SCALE_FLOOR, likelihood.levels - 1
        self._earlier = [[(j, i) for j, (late, i) in enumerate(likelihood.pairs) if late == c] for c in range(C)]
        # values are counted in steps of the grid from its lowest: half a range is this many
        self._half = noise.new_full((), self._top / 2)
        places = noise.permute(2, 3, 0, 1)
        self._choices = places[..., C:].contiguous()  # (H, W, B, 1)
        self._spreads = torch.logit(places[..., :C]) * (of_scales * self._top / 2)  # (H, W, B, C)
        self._row = -1
        self._places: list[tuple[Tensor, Tensor]] = []

        self._parameters = noise.new_empty(B, likelihood.outputs)
        self._logits, self._rest = self._parameters[:, :K], self._parameters[:, K:].view(B, -1, K)
        # the last component has what the others leave: the sum of all might end below the uniform by its rounding
        self._weights, self._cumulated = noise.new_empty(B, K), noise.new_empty(B, K - 1)
        self._all_but_last = self._weights[:, :-1]
        self._component = torch.zeros(B, 1, dtype=torch.int64, device=noise.device)
        self._everywhere = self._component[:, None].expand(B, self._rest.shape[1], 1)
        self._chosen = noise.new_empty(B, self._rest.shape[1], 1)
        self._means, self._log_scales, self._coefficients = likelihood.split_blocks(self._chosen[:, :, 0])
        self._scales, self._values, self._drawn, self._centred = (noise.new_empty(B, C) for _ in range(4))
        self._columns = [(self._values[:, c], self._drawn[:, c], self._centred[:, c]) for c in range(C)]
        self._last = self._columns[-1][1]
        self._slopes = [self._coefficients[:, j] for j in range(len(likelihood.pairs))]

    def draw(self, parameters: Tensor, x: Tensor, row: int, column: int, step: int) -> Tensor:
        if row != self._row:
            self._row = row
            self._places = list(zip(self._choices[row].unbind(0), self._spreads[row].unbind(0), strict=True))
        choice, spread = self._places[column]
        self._parameters.copy_(parameters)
        if self._of_weights != 1:
            self._logits.div_(self._of_weights)
        torch.softmax(self._logits, 1, out=self._weights)
        torch.cumsum(self._all_but_last, 1, out=self._cumulated)
        torch.searchsorted(self._cumulated, choice, right=True, out=self._component)
        torch.gather(self._rest, 2, self._everywhere, out=self._chosen)
        torch.exp(self._log_scales.clamp_(min=self._floor), out=self._scales)
        self._coefficients.tanh_()
        torch.addcmul(self._half, self._means, self._half, out=self._values).addcmul_(self._scales, spread)
        for (value, drawn, centred), earlier in zip(self._columns, self._earlier, strict=True):
            # each colour is put on the grid before it moves the next one's mean: what is drawn is what is scored
            for j, early in earlier:
                value.addcmul_(self._slopes[j], self._columns[early][2])
            torch.round(value, out=drawn).clamp_(0, self._top)
            if drawn is not self._last:
                torch.sub(drawn, self._half, out=centred)
        return self._drawn


class SoftmaxDrawer(Drawer):
    """Of ``Categorical``: the value whose share of the cumulated softmax holds the uniform."""

    def __init__(self, likelihood: Categorical, noise: Tensor, temperature: float) -> None:
        B, C, V = len(noise), likelihood.channels, likelihood.levels
        self._temperature_of_all = temperature
        self._choices = noise.permute(2, 1, 3, 0)[..., None].contiguous()  # (H, C, W, B, 1)
        self._row = -1
        self._places: list[list[Tensor]] = []
        self._logits, self._shares, self._cumulated = (noise.new_empty(B, V) for _ in range(3))
        self._value = torch.zeros(B, 1, dtype=torch.int64, device=noise.device)
        self._drawn = noise.new_zeros(B, C)
        self._columns = [self._drawn[:, c : c + 1] for c in range(C)]
        self._colours = [slice(c * V, (c + 1) * V) for c in range(C)]

    def draw(self, parameters: Tensor, x: Tensor, row: int, column: int, step: int) -> Tensor:
        if row != self._row:
            self._row = row
            self._places = [list(colour.unbind(0)) for colour in self._choices[row].unbind(0)]
        self._logits.copy_(parameters[:, self._colours[step]])
        if self._temperature_of_all != 1:
            self._logits.div_(self._temperature_of_all)
        torch.softmax(self._logits, 1, out=self._shares)
        torch.cumsum(self._shares, 1, out=self._cumulated)
        # the sum of V rounded terms may end below the uniform
        torch.searchsorted(self._cumulated, self._places[step][column], right=True, out=self._value)
        self._columns[step].copy_(self._value.clamp_(max=self._cumulated.shape[1] - 1))
        return self._drawn
