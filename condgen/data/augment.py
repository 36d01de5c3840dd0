"""Training pictures as other photographs might have been: moved, turned, blurred, lit otherwise, without colour.

Legend: B pictures, C channels, H x W pixels; u uniforms of the example's own stream, on -1 .. 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from condgen.streams import example_uniforms

_STREAM = -6
"""Of an example's key; see ``condgen.streams.example_bytes``."""
_DRAWS = 15
SHIFT = 0.06
"""Of a side, either way, at strength 1."""
TURN = 0.09
"""Tangent of half the angle: 10 degrees either way."""
ZOOM = 0.10
GAIN = 0.30
"""Of the picture's values about middle grey, for contrast."""
BRIGHTNESS = 0.15
"""Of the range of values."""
LAMP = 0.25
"""What a light from one side adds there and takes on the other, of the picture's values."""
TINT = 0.10
"""Gain of a single colour."""
GREY = 0.15
"""Probability of losing all colour."""
_LUMA = (0.299, 0.587, 0.114)


def augmented(images: Tensor, keys: Tensor, strength: float, bit_depth: int = 8) -> Tensor:
    """Integers (B, C, H, W) on 0 .. 2^bit_depth - 1 -> others like them, each a function of picture and key alone.

    Args:
        keys: the examples' own streams, int64 (B,).
        strength: 0 leaves pictures as they are; 1 is what is usual for faces; every range grows with it.
    """
    u = (2 * example_uniforms(keys, _STREAM, _DRAWS) - 1).float() * strength  # (B, draws)
    top = 2**bit_depth - 1
    moved = _moved(images.float() / top, u[:, :4])
    lit = _lit(_blurred(moved, u[:, 14]), u[:, 4:13])
    if images.shape[1] >= 3:
        grey = (u[:, 13] + strength) / 2 < GREY * strength * strength  # u on 0 .. strength
        luma = sum(w * lit[:, c : c + 1] for c, w in enumerate(_LUMA))
        lit[:, :3] = torch.where(grey[:, None, None, None], luma, lit[:, :3])
    return (lit.clamp(0, 1) * top).round().to(images.dtype)


def _moved(x: Tensor, u: Tensor) -> Tensor:
    """Turned, scaled and shifted in one bilinear reading; what comes in from outside repeats the border."""
    H, W = x.shape[2:]
    half = TURN * u[:, 0]  # tan(angle / 2): sine and cosine without a library's last bit
    cosine, sine = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    zoom = 1 / (1 + ZOOM * u[:, 1])
    across, down = 2 * SHIFT * u[:, 2], 2 * SHIFT * u[:, 3]  # in units of half a side
    turn = torch.stack(
        [zoom * cosine, zoom * -sine * (H / W), across, zoom * sine * (W / H), zoom * cosine, down], dim=1
    ).view(-1, 2, 3)
    grid = F.affine_grid(turn, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _blurred(x: Tensor, u: Tensor) -> Tensor:
    """Half of the pictures as they are, the others mixed with what two means over 3x3 pixels leave of them: what a
    lens out of focus does, or having been 2 to 3 times smaller once."""
    soft = x
    for _ in range(2):
        soft = F.avg_pool2d(F.pad(soft, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = u.clamp(0, 1)[:, None, None, None]
    return x + share * (soft - x)


def _lit(x: Tensor, u: Tensor) -> Tensor:
    """Contrast, brightness, a lamp at one side, and the light's colour; a fourth channel (alpha) keeps its values."""
    _, C, H, W = x.shape
    u = u[:, :, None, None]  # (B, 9, 1, 1)
    colours = x[:, :3]
    rows, columns = torch.linspace(-1, 1, H)[:, None], torch.linspace(-1, 1, W)
    lamp = 1 + LAMP * (u[:, 0:1] * rows + u[:, 1:2] * columns) / 2  # (B, 1, H, W)
    lit = (colours - 0.5) * (1 + GAIN * u[:, 2:3]) + 0.5 + BRIGHTNESS * u[:, 3:4]
    lit = lit * lamp
    if C >= 3:
        lit = lit * (1 + TINT * u[:, 4:7])
    return torch.cat([lit, x[:, 3:]], dim=1)
