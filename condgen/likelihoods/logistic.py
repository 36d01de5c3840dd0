"""Mixtures of logistics, discretised or continuous (legend: ``condgen.likelihoods``)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.autograd.function import once_differentiable

from condgen import streams
from condgen.likelihoods.base import Likelihood, Temperature, precise, scaled
from condgen.likelihoods.drawing import Drawer, MixtureDrawer

_DEQUANTISATION = -3
"""The stream of an example's key that holds its dequantisation noise."""


class LogisticMixture(Likelihood):
    """Discretised mixture of logistics (Salimans et al. 2017, section 2.1 and eq. 3), jointly over a pixel's colours.

    Later colours' means move linearly with earlier colours: mu_c = m_c + sum_(i<c) tanh(coefficient_ci) x_i.
    Outputs of three colours lie as in the original code: K logits, then for each colour K means, K log scales, K
    coefficients (G from R; B from R; B from G). Other channel counts: K logits, then C K means, C K log scales and
    C (C-1) / 2 K coefficients in the order (1 from 0), (2 from 0), (2 from 1), (3 from 0) ...

    Args:
        rule: ``exact`` sums to one for every scale; ``classic`` is the original's, which puts the density at the
            bin's centre where the mass is below 1e-5 and loses up to 2.15 nats a colour there. For parity only.
    """

    LOG_SCALE_FLOOR = -7.0
    """Part of the model: below it (a 2000th of the range) the original's scales have no gradient."""
    picks_component = True

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
        K = self.mixtures
        # plane by plane: of channels-last outputs every slice below would be rows of K values, which are slow to visit
        p = precise(parameters).contiguous()
        logits, rest = p.split([K, self.outputs - K], dim=1)
        means, log_scales, raw = self.split_blocks(rearrange(rest, "b (n k) h w -> b n k h w", k=K))
        return logits.log_softmax(1), means, log_scales.clamp(min=self.LOG_SCALE_FLOOR), raw.tanh()

    def split_blocks(self, blocks: Tensor) -> tuple[Tensor, ...]:
        """All outputs but the logits, (B, n, ...) -> views: means and log scales (B, C, ...), coefficients before tanh
        (B, pairs, ...)."""
        C = self.channels
        if C == 3:
            return tuple(blocks[:, kind::3] for kind in range(3))
        return tuple(blocks.split([C, C, len(self.pairs)], dim=1))

    def _mean(self, means: Tensor, coefficients: Tensor, scaled_x: Tensor, channel: int) -> Tensor:
        """mu of ``channel`` for every component, (B, K, H, W), given the earlier colours of ``scaled_x``."""
        mean = means[:, channel]
        for j, (late, early) in enumerate(self.pairs):
            if late == channel:
                mean = torch.addcmul(mean, coefficients[:, j], scaled_x[:, early, None])
        return mean

    def _log_mass(self, value: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        """ln of the logistic's mass in the bin of ``value`` (integers, broadcast); the outer bins take the tails."""
        centred = scaled(value, self.levels, mean.dtype) - mean
        if self.rule == "classic":
            return self._classic(value, centred, log_scale)
        lowest, highest = value == 0, value == self.levels - 1
        mass: Tensor = _LogMass.apply(centred, log_scale.expand_as(centred), lowest, highest, 1 / (self.levels - 1))
        return mass

    def _classic(self, value: Tensor, centred: Tensor, log_scale: Tensor) -> Tensor:
        """The original's rule: the difference of two sigmoids, or the density at the centre times the width."""
        half, inverse = 1 / (self.levels - 1), torch.exp(-log_scale)
        upper, lower = (centred + half) * inverse, (centred - half) * inverse
        mass = torch.sigmoid(upper) - torch.sigmoid(lower)
        t = centred * inverse
        centre = t - log_scale - 2 * F.softplus(t) - math.log((self.levels - 1) / 2)
        inner = torch.where(mass > 1e-5, mass.clamp(min=1e-12).log(), centre)
        inner = torch.where(value == self.levels - 1, F.logsigmoid(-lower), inner)
        return torch.where(value == 0, F.logsigmoid(upper), inner)

    def _component_log_prob(self, split: tuple[Tensor, ...], x: Tensor, channels: int) -> Tensor:
        """ln weight_k + sum of ln p_k over the first ``channels`` colours, (B, K, H, W)."""
        total, means, log_scales, coefficients = split
        on_grid = scaled(x, self.levels, means.dtype)
        for c in range(channels):
            mean = self._mean(means, coefficients, on_grid, c)
            total = total + self._log_mass(x[:, c, None], mean, log_scales[:, c])
        return total

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        return self._component_log_prob(self._split(parameters), x, self.channels).logsumexp(1)

    def table(self, parameters: Tensor, x: Tensor, channel: int, temperature: Temperature = 1.0) -> Tensor:
        of_weights, of_scales = temperature if isinstance(temperature, tuple) else (temperature, temperature)
        log_weights, means, log_scales, coefficients = self._split(parameters)
        if (of_weights, of_scales) != (1, 1):
            log_weights, log_scales = (log_weights / of_weights).log_softmax(1), log_scales + math.log(of_scales)
        split = log_weights, means, log_scales, coefficients
        posterior = self._component_log_prob(split, x, channel).log_softmax(1)  # (B, K, H, W)
        mean = self._mean(means, coefficients, scaled(x, self.levels, means.dtype), channel)
        mass = self._log_masses(mean, log_scales[:, channel])  # (B, K, V, H, W)
        return (posterior[:, :, None] + mass).logsumexp(1)

    def _log_masses(self, mean: Tensor, log_scale: Tensor) -> Tensor:
        """``_log_mass`` of every value: (B, K, H, W) -> (B, K, V, H, W).

        Bins lie side by side and are of one width, so a logarithm at each edge between two of them is all it takes (the
        formula is that of ``_LogMass``).
        """
        V = self.levels
        values = torch.arange(V, device=mean.device).view(1, 1, -1, 1, 1)
        mean, log_scale = mean[:, :, None], log_scale[:, :, None]
        if self.rule == "classic" or (torch.is_grad_enabled() and mean.requires_grad):
            return self._log_mass(values, mean, log_scale)
        inverse = torch.exp(-log_scale)
        edges = (scaled(values[:, :, :-1], V, mean.dtype) + 1 / (V - 1) - mean) * inverse  # V - 1 of them
        # in place: a table of 256 values is large, and memory that is asked for anew is slow
        below = edges.abs().neg_().exp_().add_(1).log_().neg_().add_(edges.clamp(max=0))  # ln sigmoid(edge)
        width = 2 / (V - 1) * inverse
        log_width = math.log(2 / (V - 1)) - log_scale
        of_width = torch.where(width < 1e-9, log_width, torch.log(-torch.expm1(-width)))  # ln(1 - e^-width)
        mass = torch.cat([below, torch.zeros_like(below[:, :, :1])], dim=2)
        mass[:, :, 1:] += below - edges  # ln sigmoid(-edge)
        mass[:, :, 1:-1] += of_width
        return mass

    def draw(
        self, parameters: Tensor, x: Tensor, uniforms: Tensor, step: int, temperature: Temperature = 1.0
    ) -> Tensor:
        H, W = x.shape[2:]
        by_place = rearrange(uniforms, "b p h w -> (b h w) p 1 1")
        drawn = self.drawer(by_place, temperature).draw(rearrange(parameters, "b n h w -> (b h w) n"), x, 0, 0, step)
        return rearrange(drawn, "(b h w) c -> b c h w", h=H, w=W).to(x.dtype)

    def drawer(self, noise: Tensor, temperature: Temperature = 1.0) -> Drawer:
        return MixtureDrawer(self, noise, temperature)


class ContinuousMixture(LogisticMixture):
    """A mixture of logistic *densities* on uniformly dequantised pixels (Salimans et al. 2017, section 3.4.2).

    The paper says no more. The reading here: the network and the means of later colours get the integers; only the
    target is dequantised, y = v + u - 1/2 with u uniform in (0, 1), and scored by the mixture's density f, per unit of
    v. A bin's mass is the integral of f over the bin (the outer bins have the tails besides), so by Jensen

        E_u ln f(y) <= ln p(v),

    p being the ``LogisticMixture`` of the same parameters: ``log_bound``, which training raises, is a variational bound
    and named so wherever it is reported. ``log_prob``, ``table`` and ``draw`` are those of the discretised p, exactly.

    The noise is a function of the example's key.
    """

    bound = True

    def __init__(self, channels: int, levels: int, mixtures: int) -> None:
        super().__init__(channels, levels, mixtures)

    def log_bound(self, parameters: Tensor, x: Tensor, keys: Tensor | None = None) -> Tensor:
        if keys is None:
            raise ValueError("the noise is a function of the examples' keys")
        uniforms = streams.example_uniforms(keys, _DEQUANTISATION, x[0].numel()).view(x.shape)
        return self.log_density(parameters, x, uniforms)

    def log_density(self, parameters: Tensor, x: Tensor, uniforms: Tensor) -> Tensor:
        """ln f(x + uniforms - 1/2) of each pixel per unit of v, (B, H, W); uniforms float64 (B, C, H, W) in (0, 1)."""
        total, means, log_scales, coefficients = self._split(parameters)
        on_grid = scaled(x, self.levels, means.dtype)
        target = scaled(x + (uniforms - 0.5), self.levels, torch.float64).to(means.dtype)
        for c in range(self.channels):
            mean = self._mean(means, coefficients, on_grid, c)
            distance = ((target[:, c, None] - mean) * torch.exp(-log_scales[:, c])).abs()
            # exp and log are many times faster than log1p, and what is lost is below an ulp of 1
            total = total - distance - 2 * torch.log(1 + torch.exp(-distance)) - log_scales[:, c]
        return total.logsumexp(1) - self.channels * math.log((self.levels - 1) / 2)


class _LogMass(torch.autograd.Function):
    """ln of a logistic's mass in a bin, stable for every scale, with its gradient written out.

    Of the bin's edges a > b in units of the scale, w = a - b:

        ln[sigmoid(a) - sigmoid(b)] = ln sigmoid(a) + ln sigmoid(-b) + ln(1 - e^-w)

    without cancellation. The lowest bin has the first term alone, the highest the second; that one is mirrored (b, a
    -> -a, -b) to be the first too. exp and log are used where one would write softplus, log1p and expm1: they are many
    times faster, and what is lost is below an ulp of 1.

    Inputs: bin's centre - mean, log scale (same shape), bool masks of the outer bins (broadcast), half a bin's width.
    """

    @staticmethod
    def forward(ctx: Any, centred: Tensor, log_scale: Tensor, lowest: Tensor, highest: Tensor, half: float) -> Tensor:
        sign = 1 - 2 * highest.to(centred.dtype)
        inner = (~(lowest | highest)).to(centred.dtype)
        inverse = torch.exp(-log_scale)
        middle, reach = centred * inverse * sign, inverse * half
        a, b = middle + reach, middle - reach
        exp_a, exp_b = torch.exp(-a.abs()), torch.exp(-b.abs()) * inner
        mass = a.clamp(max=0) - inner * b.clamp(min=0) - torch.log((1 + exp_a) * (1 + exp_b))

        # (1 - e^-w) / w by way of ln(e^-w), whose rounding is that of e^-w (Higham 2002, section 1.14.1)
        log_width = (math.log(2 * half) - log_scale).clamp(max=math.log(80.0))
        below_one = 1 - torch.finfo(centred.dtype).eps / 2
        shrunk = torch.exp(-torch.exp(log_width)).clamp(max=below_one)
        ratio = (1 - shrunk) / -torch.log(shrunk)
        mass += inner * (torch.log(ratio) + log_width)

        if any(ctx.needs_input_grad):
            up = torch.where(a > 0, exp_a, 1) / (1 + exp_a)  # sigmoid(-a)
            down = inner * torch.where(b > 0, 1, exp_b) / (1 + exp_b)  # sigmoid(b)
            ctx.save_for_backward(sign * inverse * (up - down), b * down - a * up - inner * shrunk / ratio)
        return mass

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        by_centred, by_log_scale = ctx.saved_tensors
        return gradient * by_centred, gradient * by_log_scale, None, None, None
