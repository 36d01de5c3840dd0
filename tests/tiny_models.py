"""Model folders of untrained models that draw in milliseconds."""

from __future__ import annotations

from pathlib import Path

import torch

from condgen.condition import DataInfo
from condgen.recipe import recipe_from_dict
from condgen.recipe.build import build_model
from condgen.store import save_model

HEIGHT, WIDTH = 5, 4


def save_tiny_models(runs: Path) -> None:
    """``pets`` (two classes, cat and a/dog), ``other`` (of other weights) and ``plain`` (unconditional): mixtures over
    RGB images of three bits."""
    runs.mkdir()
    for name, encoder, seed in (("pets", "labels", 0), ("other", "labels", 1), ("plain", "none", 0)):
        recipe = recipe_from_dict(
            {
                "data": {"source": "npz", "image_size": [HEIGHT, WIDTH], "channels": 3, "bit_depth": 3},
                "encoder": {"type": encoder},
                "model": {"filters": 3, "layers": 2, "kernel_size": 3, "likelihood": "logistic_mixture", "mixtures": 2},
                "train": {"max_steps": 1},
                "sample": {"tile": 4},
            },
            "tests",
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build_model(recipe, DataInfo(3, HEIGHT, WIDTH, 3, classes=("cat", "a/dog")))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in model.core.parameters():
                weight += 0.2 * torch.randn(weight.shape, generator=generator)
        save_model(model, recipe, runs / name, "A test.\n")
