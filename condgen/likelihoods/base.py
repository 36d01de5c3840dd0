"""What every likelihood can do (legend: ``condgen.likelihoods``)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from condgen.likelihoods.drawing import Drawer

Temperature = float | tuple[float, float]
"""Of drawing: one number, or for mixtures two, of the choice of the component and of the component's own width."""


def scaled(x: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
    """Integers 0 .. levels-1 on the network's grid: -1 .. 1 in steps of 2 / (levels - 1)."""
    half = (levels - 1) / 2
    return (x.to(dtype) - half) / half


def one_temperature(temperature: Temperature) -> float:
    """``temperature`` for likelihoods that have but one."""
    if isinstance(temperature, tuple):
        raise ValueError("two temperatures are for mixtures alone")
    return temperature


def precise(parameters: Tensor) -> Tensor:
    """At least fp32: bf16 keeps eight bits, which is no way to add up log-probabilities."""
    return parameters if parameters.dtype == torch.float64 else parameters.float()


class Likelihood(ABC):
    """p(pixel | parameters). Channels depend on each other in the order R, G, B (then alpha).

    Attributes:
        outputs: parameters of one pixel.
        passes: network passes that one pixel needs in sampling: C where the core orders the colours, else 1.
        planes: uniforms of one pixel: one per colour channel, and for mixtures a last one that picks the component.
        bound: whether ``log_bound``, which training raises, is a bound of ``log_prob`` instead of ``log_prob`` itself.
        picks_component: whether a value is drawn in two steps, which may have a temperature each.
    """

    outputs: int
    passes: int
    planes: int
    bound: bool = False
    picks_component: bool = False

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

    def log_bound(self, parameters: Tensor, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """What training raises, for each pixel, (B, H, W): ``log_prob``, or a random bound whose mean is below it.

        Args:
            keys: the examples' own streams, int64 (B,) (``streams.example_keys``); needed where ``bound`` is true.
        """
        return self.log_prob(parameters, x)

    @abstractmethod
    def table(self, parameters: Tensor, x: Tensor, channel: int, temperature: Temperature = 1.0) -> Tensor:
        """ln p of every value of ``channel`` given the earlier channels in ``x``: (B, V, H, W).

        At another ``temperature`` than 1 it is the distribution that ``draw`` draws from then.
        """

    @abstractmethod
    def draw(
        self, parameters: Tensor, x: Tensor, uniforms: Tensor, step: int, temperature: Temperature = 1.0
    ) -> Tensor:
        """``x`` (B, C, H, W) with the channels of pass ``step`` drawn by inverse CDF.

        Args:
            uniforms: float64 (B, planes, H, W) in (0, 1). The result changes little where they or the parameters
                change little, which is why no Gumbel noise is used.
            temperature: divides logits and multiplies scales; 1 is the model. Two of them, for likelihoods that pick a
                component: the first divides the components' logits, the second multiplies their scales.
        """

    def drawer(self, noise: Tensor, temperature: Temperature = 1.0) -> Drawer:
        """What draws the images of ``noise`` pixel after pixel, as ``draw`` would."""
        return Drawer(self, noise, temperature)

    def starting_bias(self) -> Tensor:
        """The parameters that an untrained model should give, (outputs,): spread over the values that occur."""
        return torch.zeros(self.outputs)

    def colour_of_outputs(self) -> Tensor:
        """The colour whose parameters each output belongs to, (outputs,); only asked of colour-ordered ones."""
        return torch.arange(self.outputs) // (self.outputs // self.channels)
