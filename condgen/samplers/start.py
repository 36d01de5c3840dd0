"""What every sampler begins with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from condgen.likelihoods import Likelihood


def canvas(
    core: Any, likelihood: Likelihood, noise: Tensor, known: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, torch.dtype]:
    """The image before anything is drawn, uint8 (B, C, H, W), known pixels in their places, and the core's dtype."""
    B, _, H, W = noise.shape
    x = torch.zeros(B, likelihood.channels, H, W, dtype=torch.uint8, device=noise.device)
    if known is not None and mask is not None:
        x = torch.where(mask, known.to(torch.uint8), x)
    return x, next(core.parameters()).dtype
