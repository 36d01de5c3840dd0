"""Likelihoods: parameters of a pixel in, log-probabilities and values out. Nothing here is trained or random.

Legend: B images, C colour channels, V values of a sub-pixel (2^bits), K mixture components, H x W pixels. Images are
integers 0 .. V-1; the network sees them on [-1, 1] (``scaled``). Log-probabilities are natural (nats), at least fp32.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def scaled(x: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
    """Integers 0 .. levels-1 on the network's grid: -1 .. 1 in steps of 2 / (levels - 1)."""
    half = (levels - 1) / 2
    return (x.to(dtype) - half) / half


def _precise(parameters: Tensor) -> Tensor:
    """At least fp32: bf16 keeps eight bits, which is no way to add up log-probabilities."""
    return parameters if parameters.dtype == torch.float64 else parameters.float()


class Likelihood(ABC):
    """p(pixel | parameters). Channels depend on each other in the order R, G, B (then alpha).

    Attributes:
        outputs: parameters of one pixel.
        passes: network passes that one pixel needs in sampling: C where the core orders the colours, else 1.
        planes: uniforms of one pixel: one per colour channel, and for mixtures a last one that picks the component.
    """

    outputs: int
    passes: int
    planes: int

    def __init__(self, channels: int, levels: int) -> None:
        self.channels = channels
        self.levels = levels

    @property
    def colour_ordered(self) -> bool:
        """Whether colour g's parameters come from a core that has seen the colours before g."""
        return self.passes > 1

    @abstractmethod
    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """ln p of each pixel, all colours together: (B, outputs, H, W), integers (B, C, H, W) -> (B, H, W)."""

    @abstractmethod
    def table(self, parameters: Tensor, x: Tensor, channel: int) -> Tensor:
        """ln p of every value of ``channel`` given the earlier channels in ``x``: (B, V, H, W)."""

    @abstractmethod
    def draw(self, parameters: Tensor, x: Tensor, uniforms: Tensor, step: int, temperature: float = 1.0) -> Tensor:
        """``x`` (B, C, H, W) with the channels of pass ``step`` drawn by inverse CDF.

        Args:
            uniforms: float64 (B, planes, H, W) in (0, 1). The result changes little where they or the parameters
                change little, which is why no Gumbel noise is used.
            temperature: divides logits and multiplies scales; 1 is the model.
        """

    def starting_bias(self) -> Tensor:
        """The parameters that an untrained model should give, (outputs,): spread over the values that occur."""
        return torch.zeros(self.outputs)

    def colour_of_outputs(self) -> Tensor:
        """The colour whose parameters each output belongs to, (outputs,); only asked of colour-ordered ones."""
        return torch.arange(self.outputs) // (self.outputs // self.channels)


class Categorical(Likelihood):
    """V-way softmax for each colour (van den Oord et al. 2016).

    Outputs are colour-major: index = colour * V + value.
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__(channels, levels)
        self.outputs = channels * levels
        self.passes = self.planes = channels

    def _logits(self, parameters: Tensor) -> Tensor:
        return rearrange(_precise(parameters), "b (c v) h w -> b c v h w", c=self.channels)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        # a view, not a copy, when the parameters are channels-last
        logits = rearrange(_precise(parameters), "b (c v) h w -> b h w c v", c=self.channels)
        values = rearrange(x.long(), "b c h w -> b h w c")
        nats = F.cross_entropy(logits.reshape(-1, self.levels), values.reshape(-1), reduction="none")
        return -nats.view(values.shape).sum(-1)

    def table(self, parameters: Tensor, x: Tensor, channel: int) -> Tensor:
        return self._logits(parameters)[:, channel].log_softmax(1)

    def draw(self, parameters: Tensor, x: Tensor, uniforms: Tensor, step: int, temperature: float = 1.0) -> Tensor:
        logits = self._logits(parameters)[:, step].double() / temperature  # (B, V, H, W)
        below = logits.softmax(1).cumsum(1) <= uniforms[:, step, None]
        x = x.clone()
        # the sum of V rounded terms may end below the uniform
        x[:, step] = below.sum(1).clamp(max=self.levels - 1).to(x.dtype)
        return x


class Bernoulli(Likelihood):
    """One logit per colour, for binary images: ln p(1) - ln p(0)."""

    def __init__(self, channels: int, levels: int = 2) -> None:
        if levels != 2:
            raise ValueError(f"Bernoulli has 2 levels, not {levels}")
        super().__init__(channels, levels)
        self.outputs = self.passes = self.planes = channels

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        logits = _precise(parameters)
        return F.logsigmoid((2 * x.to(logits.dtype) - 1) * logits).sum(1)

    def table(self, parameters: Tensor, x: Tensor, channel: int) -> Tensor:
        logit = _precise(parameters)[:, channel]
        return torch.stack([F.logsigmoid(-logit), F.logsigmoid(logit)], dim=1)

    def draw(self, parameters: Tensor, x: Tensor, uniforms: Tensor, step: int, temperature: float = 1.0) -> Tensor:
        zero = torch.sigmoid(-parameters[:, step].double() / temperature)  # p(0)
        x = x.clone()
        x[:, step] = (uniforms[:, step] >= zero).to(x.dtype)
        return x


class LogisticMixture(Likelihood):
    """Discretised mixture of logistics (Salimans et al. 2017, section 2.1 and eq. 3), jointly over a pixel's colours.

    Later colours' means move linearly with earlier colours: mu_c = m_c + sum_(i<c) tanh(coefficient_ci) x_i.
    Outputs of three colours lie as in the original code: K logits, then for each colour K means, K log scales, K
    coefficients (G from R; B from R; B from G). Other channel counts: K logits, then C K means, C K log scales and
    C (C-1) / 2 K coefficients in the order (1 from 0), (2 from 0), (2 from 1), (3 from 0) ...

    Args:
        rule: ``exact`` sums to one for every scale; ``classic`` is the original's, which puts the density at the
            bin's centre where the mass is below 1e-5 and loses up to 2.15 nats there. For parity only.
    """

    LOG_SCALE_FLOOR = -7.0
    """Part of the model: below it (a 2000th of the range) the original's scales have no gradient."""

    def __init__(self, channels: int, levels: int, mixtures: int, rule: str = "exact") -> None:
        super().__init__(channels, levels)
        self.mixtures = mixtures
        self.rule = rule
        self.pairs = [(late, early) for late in range(channels) for early in range(late)]
        self.outputs = mixtures * (1 + 2 * channels + len(self.pairs))
        self.passes = 1
        self.planes = channels + 1

    def starting_bias(self) -> Tensor:
        """Means evenly over the range, scales of their distance: no value is unlikely, no two components are twins."""
        K, C = self.mixtures, self.channels
        means = torch.linspace(-1, 1, K + 2)[1:-1]
        log_scales = torch.full((K,), math.log(1 / (K + 1)))
        if C == 3:
            return torch.cat([torch.zeros(K), torch.cat([means, log_scales, torch.zeros(K)]).repeat(3)])
        return torch.cat([torch.zeros(K), means.repeat(C), log_scales.repeat(C), torch.zeros(K * len(self.pairs))])

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """ln weights (B, K, H, W); means and log scales (B, C, K, H, W); coefficients (B, pairs, K, H, W)."""
        K, C = self.mixtures, self.channels
        p = _precise(parameters)
        logits, rest = p[:, :K], p[:, K:]
        if C == 3:
            means, log_scales, raw = rearrange(rest, "b (c t k) h w -> t b c k h w", t=3, c=3)
        else:
            blocks = rearrange(rest, "b (n k) h w -> b n k h w", k=K)
            means, log_scales, raw = blocks.split([C, C, len(self.pairs)], dim=1)
        return logits.log_softmax(1), means, log_scales.clamp(min=self.LOG_SCALE_FLOOR), raw.tanh()

    def _mean(self, means: Tensor, coefficients: Tensor, scaled_x: Tensor, channel: int) -> Tensor:
        """mu of ``channel`` for every component, (B, K, H, W), given the earlier colours of ``scaled_x``."""
        mean = means[:, channel]
        for j, (late, early) in enumerate(self.pairs):
            if late == channel:
                mean = mean + coefficients[:, j] * scaled_x[:, early, None]
        return mean

    def _log_mass(self, value: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        """ln of the logistic's mass in the bin of ``value`` (integers, broadcast); the outer bins take the tails."""
        half = 1 / (self.levels - 1)  # half a bin on [-1, 1]
        centred = scaled(value, self.levels, mean.dtype) - mean
        inverse = torch.exp(-log_scale)
        upper, lower = (centred + half) * inverse, (centred - half) * inverse
        lowest, highest = F.logsigmoid(upper), F.logsigmoid(-lower)
        if self.rule == "classic":
            inner = self._classic(centred, log_scale, torch.sigmoid(upper) - torch.sigmoid(lower))
        else:
            inner = lowest + highest + self._log_one_minus_exp(log_scale)
        mass = torch.where(value == self.levels - 1, highest, inner)
        return torch.where(value == 0, lowest, mass)

    def _log_one_minus_exp(self, log_scale: Tensor) -> Tensor:
        """ln(1 - e^(b-a)), the last term of the exact inner mass, a - b being a bin's width in units of the scale:

        ln[sigmoid(a) - sigmoid(b)] = ln sigmoid(a) + ln sigmoid(-b) + ln(1 - e^(b-a)), without cancellation.
        """
        log_width = math.log(2 / (self.levels - 1)) - log_scale  # ln(a - b)
        width = torch.exp(log_width).clamp(min=1e-3)  # where it is less, the series takes over
        wide = torch.log(-torch.expm1(-width))
        small = torch.exp(log_width.clamp(max=0))
        narrow = log_width - small / 2 + small**2 / 24  # ln(1 - e^-w), up to w^4 / 2880
        return torch.where(log_width < math.log(1e-3), narrow, wide)

    def _classic(self, centred: Tensor, log_scale: Tensor, mass: Tensor) -> Tensor:
        """The original's inner bins: the difference of two sigmoids, or the density at the centre times the width."""
        t = centred * torch.exp(-log_scale)
        centre = t - log_scale - 2 * F.softplus(t) - math.log((self.levels - 1) / 2)
        return torch.where(mass > 1e-5, mass.clamp(min=1e-12).log(), centre)

    def _component_log_prob(self, parameters: Tensor, x: Tensor, channels: int) -> Tensor:
        """ln weight_k + sum of ln p_k over the first ``channels`` colours, (B, K, H, W)."""
        total, means, log_scales, coefficients = self._split(parameters)
        on_grid = scaled(x, self.levels, means.dtype)
        for c in range(channels):
            mean = self._mean(means, coefficients, on_grid, c)
            total = total + self._log_mass(x[:, c, None], mean, log_scales[:, c])
        return total

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        return self._component_log_prob(parameters, x, self.channels).logsumexp(1)

    def table(self, parameters: Tensor, x: Tensor, channel: int) -> Tensor:
        posterior = self._component_log_prob(parameters, x, channel).log_softmax(1)  # (B, K, H, W)
        _, means, log_scales, coefficients = self._split(parameters)
        mean = self._mean(means, coefficients, scaled(x, self.levels, means.dtype), channel)
        values = torch.arange(self.levels, device=x.device).view(1, -1, 1, 1, 1)
        mass = self._log_mass(values, mean[:, None], log_scales[:, None, channel])  # (B, V, K, H, W)
        return (posterior[:, None] + mass).logsumexp(2)

    def draw(self, parameters: Tensor, x: Tensor, uniforms: Tensor, step: int, temperature: float = 1.0) -> Tensor:
        log_weights, means, log_scales, coefficients = self._split(parameters.double())
        cumulated = (log_weights / temperature).softmax(1).cumsum(1)
        component = (cumulated <= uniforms[:, -1:]).sum(1, keepdim=True).clamp(max=self.mixtures - 1)  # (B, 1, H, W)
        x = x.clone()
        top = self.levels - 1
        for c in range(self.channels):
            # each colour is put on the grid before it moves the next one's mean: what is drawn is what is scored
            mean = self._mean(means, coefficients, scaled(x, self.levels, torch.float64), c).gather(1, component)[:, 0]
            scale = log_scales[:, c].gather(1, component)[:, 0].exp() * temperature
            value = mean + scale * torch.logit(uniforms[:, c])
            x[:, c] = ((value + 1) * (top / 2)).round().clamp(0, top).to(x.dtype)
        return x
