"""The golden files: numbers that the original implementations gave for known weights and images."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from condgen.condition import Condition

FOLDER = Path(os.environ.get("CONDGEN_GOLDEN", Path(__file__).parents[2] / "shared" / "reference" / "golden"))
ORIGINAL = [
    f"pixelcnnpp_{name}.npz"
    for name in (
        *("r1_f8_m3_8x8", "r1_f8_m3_8x8_elu", "r1_f8_m10_16x16_labels", "r1_f8_m10_32x32"),
        *("r2_f12_m10_16x16", "r2_f12_m3_8x8_labels"),
    )
]
INIT = "pixelcnnpp_init_r1_f8_m10_16x16_labels.npz"
PORT = ["pclucas14_r1_f8_m3_8x8.npz", "pclucas14_r1_f6_m10_8x12.npz"]

needed = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the golden files are not there; CONDGEN_GOLDEN names their folder"
)


class Golden:
    """One file's content."""

    def __init__(self, name: str) -> None:
        self.path = FOLDER / name
        with np.load(self.path, allow_pickle=False) as npz:
            self.arrays: dict[str, Any] = {key: npz[key] for key in npz.files}
        self.config = json.loads(str(self.arrays["config"]))

    @property
    def images(self) -> Tensor:
        """uint8 (N, C, H, W)."""
        return torch.from_numpy(self.arrays["images"]).permute(0, 3, 1, 2).contiguous()

    @property
    def condition(self) -> Condition:
        if "labels" not in self.arrays:
            return Condition()
        labels = torch.from_numpy(self.arrays["labels"]).long()
        return Condition(torch.nn.functional.one_hot(labels, self.config["num_classes"]).float())

    @property
    def output(self) -> Tensor:
        """float32 (N, outputs, H, W)."""
        output = torch.from_numpy(self.arrays["output"])
        return output if self.path.name.startswith("pclucas14") else output.permute(0, 3, 1, 2)
