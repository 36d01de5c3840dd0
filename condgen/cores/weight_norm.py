"""Weight normalisation and the data-dependent initialisation that belongs to it (Salimans and Kingma 2016).

Every convolution of PixelCNN++ is W = g V / ||V||, the norm taken over everything but the output channel.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from condgen import native

Conv = TypeVar("Conv", bound="nn.Conv2d | nn.ConvTranspose2d")

SPREAD = 0.05
"""Standard deviation of V before training."""
_TINY = 1e-10
_CONSTANT = 1e-8
"""A channel of less variance is constant over the whole batch: it tells nothing about the right scale."""
_SAME_IN_ALL = 1e-6
"""Share of the variance below which what differs between images is rounding."""


class WeightNorm(nn.Module):
    """W = g V / ||V||, in the memory format of V: a weight that is not channels-last would be reordered at every use.

    Args:
        outputs: the dimension of the output channels: 0, for transposed convolutions 1.
        init_scale: standard deviation that the layer's outputs get by ``data_dependent_init``.
    """

    def __init__(self, outputs: int, init_scale: float) -> None:
        super().__init__()
        self.outputs = outputs
        self.init_scale = init_scale
        self.compiled = False
        """Whether weights whose outputs come first are made in C, forth and back in one pass over them each."""

    def norm(self, v: Tensor) -> Tensor:
        return torch.linalg.vector_norm(v, dim=[d for d in range(4) if d != self.outputs], keepdim=True)

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        if self.compiled and self.outputs == 0 and native.letters(g, v) == "ff" and _by_output(v):
            weight: Tensor = _Compiled.apply(g, v)
            return weight
        return v * (g / self.norm(v))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """g and V of an effective kernel: V is the kernel itself."""
        return self.norm(weight), weight


def _by_output(v: Tensor) -> bool:
    """Whether the weights of an output channel lie together in memory."""
    return v.is_contiguous() or v.is_contiguous(memory_format=torch.channels_last)


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, v: Tensor) -> Tensor:
        weight, scale = torch.empty_like(v), torch.empty_like(g)
        native.call("weight_norm", "", g, v, weight, scale, len(v), v[0].numel())
        ctx.save_for_backward(g, v, scale)
        return weight

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        g, v, scale = ctx.saved_tensors
        (of_weight,) = gradients
        if of_weight.stride() != v.stride():
            of_weight = torch.empty_like(v).copy_(of_weight)
        of_g, of_v = torch.empty_like(g), torch.empty_like(v)
        native.call("weight_norm_backward", "", of_weight, g, v, scale, of_g, of_v, len(v), v[0].numel())
        return of_g, of_v


def compile_weights(core: nn.Module) -> None:
    """The weights of ``core`` made by compiled C where it can be, from now on; without a compiler a MachineError."""
    native.library()
    for module in core.modules():
        if isinstance(module, WeightNorm):
            module.compiled = True


@torch.no_grad()
def weight_normalised(conv: Conv, init_scale: float = 1.0) -> Conv:
    """``conv`` with its weight as g V / ||V||: V ~ N(0, 0.05^2), g = 1, b = 0."""
    conv.weight.normal_(0, SPREAD)
    if conv.bias is not None:
        conv.bias.zero_()
    outputs = 1 if isinstance(conv, nn.ConvTranspose2d) else 0
    parametrize.register_parametrization(conv, "weight", WeightNorm(outputs, init_scale))
    g, _ = factors(conv)
    g.fill_(1.0)
    return conv


def factors(conv: nn.Module) -> tuple[nn.Parameter, nn.Parameter]:
    """g and V of a weight-normalised convolution, the parameters themselves."""
    weight: Any = conv.parametrizations["weight"]  # type: ignore[index]
    return weight.original0, weight.original1


def _norm_of(conv: nn.Module) -> WeightNorm:
    weight: Any = conv.parametrizations["weight"]  # type: ignore[index]
    norm: WeightNorm = weight[0]
    return norm


@torch.no_grad()
def _standardise(conv: Any, inputs: tuple[Any, ...]) -> None:
    """Moves g and b so that ``conv`` of ``inputs`` has mean 0 and standard deviation ``init_scale`` per channel."""
    raw, places = conv.uncropped(*inputs)  # (B, outputs, ...) and the number of positions that its moments are over
    raw = raw.double()  # in fp32 a constant channel has a variance of rounding errors
    mean = raw.sum((0, 2, 3)) / places
    variance = (raw.square().sum((0, 2, 3)) / places - mean.square()).clamp(min=0)
    # of how much of that differs from image to image: a coarse row of nothing but padding varies by its columns alone
    between = (raw - raw.mean(0)).square().sum((0, 2, 3)) / places if len(raw) > 1 else variance
    varies = (variance > _CONSTANT) & (between > _SAME_IN_ALL * variance)
    norm = _norm_of(conv)
    scale = torch.where(varies, norm.init_scale * (variance + _TINY).rsqrt(), 1.0)
    g, _ = factors(conv)
    g.mul_(scale.view(g.shape).to(g.dtype))
    # b was 0; the mean of the scaled output is what is taken off
    conv.bias.add_((conv.bias * (scale - 1) - mean * scale).to(conv.bias.dtype))


@torch.no_grad()
def data_dependent_init(core: nn.Module, *inputs: Any) -> None:
    """One forward pass of ``core`` in which every weight-normalised layer, in order, is standardised by its own input.

    A layer is called again after it was standardised, so the next one sees what it really gets. The moments of a
    transposed convolution go over its uncropped output, as in the original code (no paper says).
    """
    layers = [m for m in core.modules() if parametrize.is_parametrized(m, "weight")]
    hooks = [layer.register_forward_pre_hook(_standardise) for layer in layers]
    try:
        core(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
