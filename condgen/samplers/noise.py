"""The noise that sampling is a function of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from condgen import streams


def noise(seed: int, numbers: Sequence[int], planes: int, height: int, width: int) -> Tensor:
    """Uniforms in (0, 1) of the samples ``numbers``: float64 (len(numbers), planes, H, W) on the CPU.

    Sample k of a seed has the same noise for every condition, command and batch. The planes are the colours in order
    and, for mixtures, a last one for the component: plane c means the same to every likelihood.
    """
    drawn = [streams.uniforms(planes * height * width, seed, "sample", k) for k in numbers]
    return torch.from_numpy(np.stack(drawn)).view(len(drawn), planes, height, width)
