"""A recipe of minutes as one of seconds, and the type of a fixture."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

SMALL = {
    "data.identities": 24,
    "data.views": 2,
    "model.filters": 8,
    "model.layers": 2,
    "model.first_kernel_size": 3,
    "model.map_channels": 4,
    "train.max_steps": 3,
    "train.evaluate_images": 0,
    "sample.count": 2,
}
"""Makes a recipe of minutes one of seconds."""

Command = Callable[..., subprocess.CompletedProcess[str]]
