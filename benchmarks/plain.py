"""PixelCNN++ without any care for speed: what the benchmarks are measured against.

The network of Salimans et al. 2017 as the public PyTorch ports write it: NCHW, weights folded from g and V at every
forward pass by ``torch.nn.utils.parametrizations.weight_norm``, ``F.pad`` and unpadded convolutions, ``cat([x, -x])``
and ``F.elu``, ``torch.sigmoid`` gates, the original's likelihood with all its cases, ``torch.optim.Adam`` as it comes.
Layer for layer and number for number it is the function of ``condgen.cores.pixelcnnpp`` with the same weights (a test
holds them together).

Dropout is the one place where ports differ. The original drops single elements, and so does this network, by the
obvious call ``F.dropout``, whose generator is serial on a CPU; the most used port drops whole channels
(``F.dropout2d``), which costs nothing and is another regularisation. ``whole_channels`` chooses; the benchmark reports
both.

Legend: B images, F filters, K mixture components, R resnets of a block, H x W pixels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

LOG_SCALE_FLOOR = -7.0


def concat_elu(x: Tensor) -> Tensor:
    """(B, n, H, W) -> (B, 2 n, H, W)."""
    return F.elu(torch.cat([x, -x], dim=1))


class Padded(nn.Module):
    """Zeros above, left and right, then an unpadded convolution.

    Args:
        sides: zero columns at the left and at the right; above there are ``rows - 1`` zero rows.
    """

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], sides: tuple[int, int], stride: int = 1):
        super().__init__()
        self.pad = (*sides, kernel[0] - 1, 0)
        self.conv = weight_norm(nn.Conv2d(inputs, outputs, kernel, stride))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.pad))


def down_shifted(inputs: int, outputs: int, kernel: tuple[int, int] = (2, 3), stride: int = 1) -> Padded:
    side = (kernel[1] - 1) // 2
    return Padded(inputs, outputs, kernel, (side, side), stride)


def down_right_shifted(inputs: int, outputs: int, kernel: tuple[int, int] = (2, 2), stride: int = 1) -> Padded:
    return Padded(inputs, outputs, kernel, (kernel[1] - 1, 0), stride)


class Deconvolution(nn.Module):
    """Transposed convolution of stride 2, (B, n, H, W) -> (B, n, 2 H, 2 W): ``first`` is the first column kept."""

    def __init__(self, filters: int, kernel: tuple[int, int], first: int) -> None:
        super().__init__()
        self.first = first
        self.conv = weight_norm(nn.ConvTranspose2d(filters, filters, kernel, 2), dim=1)  # g belongs to the outputs

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[2:]
        return self.conv(x)[:, :, : 2 * H, self.first : self.first + 2 * W]


def shift_down(x: Tensor) -> Tensor:
    return F.pad(x[:, :, :-1], (0, 0, 1, 0))


def shift_right(x: Tensor) -> Tensor:
    return F.pad(x[:, :, :, :-1], (1, 0))


class Resnet(nn.Module):
    """c1 = conv(f(x)) + nin(f(aux)); (a, b) = conv(dropout(f(c1))); x + a sigmoid(b), f being ``concat_elu``."""

    def __init__(self, make: Any, filters: int, auxiliary: int, dropout: float, whole_channels: bool) -> None:
        super().__init__()
        self.conv_in = make(2 * filters, filters)
        self.nin = weight_norm(nn.Conv2d(2 * auxiliary, filters, 1)) if auxiliary else None
        self.conv_out = make(2 * filters, 2 * filters)
        self.dropout: nn.Module = nn.Dropout2d(dropout) if whole_channels else nn.Dropout(dropout)

    def forward(self, x: Tensor, auxiliary: Tensor | None = None) -> Tensor:
        y = self.conv_in(concat_elu(x))
        if self.nin is not None and auxiliary is not None:
            y = y + self.nin(concat_elu(auxiliary))
        a, b = self.conv_out(self.dropout(concat_elu(y))).chunk(2, dim=1)
        return x + a * torch.sigmoid(b)


class Scale(nn.Module):
    """The gated resnets of both streams at one resolution."""

    def __init__(self, count: int, filters: int, above: int, left: int, dropout: float, whole_channels: bool) -> None:
        super().__init__()
        self.u = nn.ModuleList(Resnet(down_shifted, filters, above, dropout, whole_channels) for _ in range(count))
        self.ul = nn.ModuleList(
            Resnet(down_right_shifted, filters, left, dropout, whole_channels) for _ in range(count)
        )
        self.u_resize: Any = None
        self.ul_resize: Any = None


class PlainPixelCNNpp(nn.Module):
    """Images on [-1, 1], (B, 3, H, W), to the 10 K parameters of every pixel, (B, 10 K, H, W)."""

    def __init__(
        self, filters: int = 40, resnets: int = 5, mixtures: int = 10, scales: int = 3, dropout: float = 0.5,
        whole_channels: bool = False, channels: int = 3,
    ) -> None:  # fmt: skip
        super().__init__()
        n = filters
        self.start_above = down_shifted(channels + 1, n)
        self.start_row = down_shifted(channels + 1, n, (1, 3))
        self.start_left = down_right_shifted(channels + 1, n, (2, 1))
        self.down: Any = nn.ModuleList(Scale(resnets, n, 0, n, dropout, whole_channels) for _ in range(scales))
        self.up: Any = nn.ModuleList(
            Scale(resnets + (k > 0), n, n, 2 * n, dropout, whole_channels) for k in range(scales)
        )
        for scale in self.down[:-1]:
            scale.u_resize = down_shifted(n, n, stride=2)
            scale.ul_resize = down_right_shifted(n, n, stride=2)
        for scale in self.up[:-1]:
            scale.u_resize = Deconvolution(n, (2, 3), first=1)
            scale.ul_resize = Deconvolution(n, (2, 2), first=0)
        self.out = weight_norm(nn.Conv2d(n, 10 * mixtures if channels == 3 else 3 * mixtures, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)  # a channel that tells a grey pixel from padding
        us = [shift_down(self.start_above(x))]
        uls = [shift_down(self.start_row(x)) + shift_right(self.start_left(x))]
        for scale in self.down:
            for above, left in zip(scale.u, scale.ul, strict=True):
                us.append(above(us[-1]))
                uls.append(left(uls[-1], us[-1]))
            if scale.u_resize is not None:
                us.append(scale.u_resize(us[-1]))
                uls.append(scale.ul_resize(uls[-1]))
        u, ul = us.pop(), uls.pop()
        for scale in self.up:
            for above, left in zip(scale.u, scale.ul, strict=True):
                u = above(u, us.pop())
                ul = left(ul, torch.cat([u, uls.pop()], dim=1))
            if scale.u_resize is not None:
                u, ul = scale.u_resize(u), scale.ul_resize(ul)
        return self.out(F.elu(ul))


def plain_loss(parameters: Tensor, x: Tensor) -> Tensor:
    """-ln p of each image in nats, (B,): ``parameters`` (B, 10 K, H, W), ``x`` on [-1, 1] (B, 3, H, W).

    The original's rule for 8 bits: the difference of two sigmoids, or the density at the bin's centre times the bin's
    width where that is below 1e-5.
    """
    B, _, H, W = x.shape
    K = parameters.shape[1] // 10
    p = parameters.permute(0, 2, 3, 1)
    logits, rest = p[..., :K], p[..., K:].reshape(B, H, W, 3, 3 * K)
    log_scales = torch.clamp(rest[..., K : 2 * K], min=LOG_SCALE_FLOOR)
    coefficients = torch.tanh(rest[..., 2 * K :])
    values = x.permute(0, 2, 3, 1).unsqueeze(-1) + torch.zeros_like(log_scales)  # (B, H, W, 3, K)
    red, green = values[..., 0, :], values[..., 1, :]
    means = torch.stack(
        [
            rest[..., 0, :K],
            rest[..., 1, :K] + coefficients[..., 0, :] * red,
            rest[..., 2, :K] + coefficients[..., 1, :] * red + coefficients[..., 2, :] * green,
        ],
        dim=3,
    )
    centred = values - means
    inverse = torch.exp(-log_scales)
    plus, minus, middle = (inverse * (centred + shift) for shift in (1 / 255, -1 / 255, 0.0))
    mass = torch.sigmoid(plus) - torch.sigmoid(minus)
    density = middle - log_scales - 2 * F.softplus(middle) - math.log(127.5)
    inner = torch.where(mass > 1e-5, torch.log(torch.clamp(mass, min=1e-12)), density)
    lowest, highest = plus - F.softplus(plus), -F.softplus(minus)
    log_p = torch.where(values < -0.999, lowest, torch.where(values > 0.999, highest, inner))
    total = log_p.sum(3) + torch.log_softmax(logits, dim=-1)
    return -torch.logsumexp(total, dim=-1).sum((1, 2))


class PlainTraining:
    """A training step as a script writes it: loss, backward, Adam, and an average of the weights one by one."""

    def __init__(self, network: PlainPixelCNNpp, decay: float = 0.9995) -> None:
        self.network = network.train()
        self.optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        self.averages = [parameter.detach().clone() for parameter in network.parameters()]
        self.decay = decay

    def step(self, images: Tensor) -> None:
        """``images``: uint8 (B, 3, H, W)."""
        x = images.float() / 127.5 - 1
        self.optimizer.zero_grad()
        loss = plain_loss(self.network(x), x).mean()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for average, parameter in zip(self.averages, self.network.parameters(), strict=True):
                average.mul_(self.decay).add_(parameter, alpha=1 - self.decay)
