"""A probability for every value: softmax and its case of two values (legend: ``condgen.likelihoods``)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from condgen.likelihoods.base import Likelihood, Temperature, one_temperature, precise, scaled
from condgen.likelihoods.drawing import Drawer, SoftmaxDrawer


def value_at(logits: Tensor, uniforms: Tensor) -> Tensor:
    """The value whose share of the cumulated softmax holds the uniform: float64 (B, V, H, W), (B, H, W) -> (B, H, W)"""
    below = logits.softmax(1).cumsum(1) <= uniforms[:, None]
    # the sum of V rounded terms may end below the uniform
    return below.sum(1).clamp(max=logits.shape[1] - 1)


class Categorical(Likelihood):
    """V-way softmax for each colour (van den Oord et al. 2016).

    Outputs are colour-major: index = colour * V + value.
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__(channels, levels)
        self.outputs = channels * levels
        self.passes = self.planes = channels

    def _logits(self, parameters: Tensor) -> Tensor:
        return rearrange(precise(parameters), "b (c v) h w -> b c v h w", c=self.channels)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        # a view, not a copy, when the parameters are channels-last
        logits = rearrange(precise(parameters), "b (c v) h w -> b h w c v", c=self.channels)
        values = rearrange(x.long(), "b c h w -> b h w c")
        nats = F.cross_entropy(logits.reshape(-1, self.levels), values.reshape(-1), reduction="none")
        return -nats.view(values.shape).sum(-1)

    def table(self, parameters: Tensor, x: Tensor, channel: int, temperature: Temperature = 1.0) -> Tensor:
        return (self._logits(parameters)[:, channel] / one_temperature(temperature)).log_softmax(1)

    def draw(
        self, parameters: Tensor, x: Tensor, uniforms: Tensor, step: int, temperature: Temperature = 1.0
    ) -> Tensor:
        logits = self._logits(parameters)[:, step].double() / one_temperature(temperature)  # (B, V, H, W)
        x = x.clone()
        x[:, step] = value_at(logits, uniforms[:, step]).to(x.dtype)
        return x

    def drawer(self, noise: Tensor, temperature: Temperature = 1.0) -> Drawer:
        return SoftmaxDrawer(self, noise, one_temperature(temperature))


class LinearCategorical(Likelihood):
    """V-way softmax for each colour, jointly over a pixel's colours, for cores that see whole pixels.

    The ablation of PixelCNN++ (Salimans et al. 2017, section 3.4.1): logits are linear in the values of the pixel's
    earlier colours, with coefficients that are outputs too, 1536 in all for three colours of 256 values. The paper does
    not say on which scale the values multiply nor whether the coefficients are squashed. Here the values are those that
    the network sees, on [-1, 1], and the coefficients are the outputs themselves:

        logits_c = l_c + sum_(i<c) k_ci x_i

    Outputs are blocks of V in the order l_0; l_1, k_10; l_2, k_20, k_21; ...: block c (c + 1) / 2 begins colour c.
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__(channels, levels)
        self.outputs = levels * (channels * (channels + 1) // 2)
        self.passes = 1
        self.planes = channels

    def _logits(self, blocks: tuple[Tensor, ...], on_grid: Tensor, channel: int) -> Tensor:
        """Logits of ``channel``: blocks (..., V) and values (..., C) on [-1, 1] -> (..., V)."""
        first = channel * (channel + 1) // 2
        logits = blocks[first]
        for early in range(channel):
            # no matrix product, which autocast would round to bf16
            logits = torch.addcmul(logits, blocks[first + 1 + early], on_grid[..., early, None])
        return logits

    def _blocks(self, parameters: Tensor) -> tuple[Tensor, ...]:
        """(B, outputs, H, W) -> blocks (B, H, W, V): views when the parameters are channels-last."""
        return rearrange(parameters, "b (n v) h w -> b h w n v", v=self.levels).unbind(-2)

    def _on_grid(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return scaled(rearrange(x, "b c h w -> b h w c"), self.levels, dtype)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        blocks = self._blocks(precise(parameters))
        on_grid = self._on_grid(x, blocks[0].dtype)
        nats = [
            F.cross_entropy(
                self._logits(blocks, on_grid, c).reshape(-1, self.levels), x[:, c].reshape(-1).long(), reduction="none"
            )
            for c in range(self.channels)
        ]
        return -torch.stack(nats).sum(0).view(x[:, 0].shape)

    def table(self, parameters: Tensor, x: Tensor, channel: int, temperature: Temperature = 1.0) -> Tensor:
        blocks = self._blocks(precise(parameters))
        logits = self._logits(blocks, self._on_grid(x, blocks[0].dtype), channel) / one_temperature(temperature)
        return rearrange(logits.log_softmax(-1), "b h w v -> b v h w")

    def draw(
        self, parameters: Tensor, x: Tensor, uniforms: Tensor, step: int, temperature: Temperature = 1.0
    ) -> Tensor:
        blocks = self._blocks(parameters.double())
        x = x.clone()
        for c in range(self.channels):
            logits = self._logits(blocks, self._on_grid(x, torch.float64), c) / one_temperature(temperature)
            x[:, c] = value_at(rearrange(logits, "b h w v -> b v h w"), uniforms[:, c]).to(x.dtype)
        return x


class Bernoulli(Likelihood):
    """One logit per colour, for binary images: ln p(1) - ln p(0)."""

    def __init__(self, channels: int, levels: int = 2) -> None:
        if levels != 2:
            raise ValueError(f"Bernoulli has 2 levels, not {levels}")
        super().__init__(channels, levels)
        self.outputs = self.passes = self.planes = channels

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        logits = precise(parameters)
        return F.logsigmoid((2 * x.to(logits.dtype) - 1) * logits).sum(1)

    def table(self, parameters: Tensor, x: Tensor, channel: int, temperature: Temperature = 1.0) -> Tensor:
        logit = precise(parameters)[:, channel] / one_temperature(temperature)
        return torch.stack([F.logsigmoid(-logit), F.logsigmoid(logit)], dim=1)

    def draw(
        self, parameters: Tensor, x: Tensor, uniforms: Tensor, step: int, temperature: Temperature = 1.0
    ) -> Tensor:
        zero = torch.sigmoid(-parameters[:, step].double() / one_temperature(temperature))  # p(0)
        x = x.clone()
        x[:, step] = (uniforms[:, step] >= zero).to(x.dtype)
        return x
