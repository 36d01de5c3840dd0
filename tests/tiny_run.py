"""Trainings of a second: 37 gray images of 8x8 in four levels, batches of 6, so that epochs end inside batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from condgen.recipe import Recipe, recipe_from_dict, with_overrides
from condgen.train.signals import Signals

TRAIN, VALIDATION = 37, 11

RECIPE: dict[str, Any] = {
    "data": {"source": "npz", "image_size": 8, "channels": 1, "bit_depth": 2, "flip": True, "test": 0.0},
    "encoder": {"type": "labels", "dropout": 0.3},
    "model": {"filters": 4, "layers": 2, "kernel_size": 3, "dropout": 0.3, "conditioning": "both", "map_channels": 2},
    "train": {
        "batch_size": 6,
        "max_steps": 12,
        "warmup_steps": 3,
        "learning_rate": 0.001,
        "clip_norm": 20.0,
        "ema_decay": 0.9,
        "evaluate_images": 5,
        "evaluate_every": 5,
        "checkpoint_every": 100,
        "tensorboard": False,
    },
    "sample": {"count": 0},
}


def tiny_recipe(folder: Path, **overrides: object) -> Recipe:
    """The recipe above on images in ``folder / "data"``, which are made where they are missing; ``train__seed=1``
    stands for ``train.seed=1``."""
    root = folder / "data"
    if not root.exists():
        root.mkdir()
        generator = np.random.default_rng(0)
        for name, count in (("train", TRAIN), ("validation", VALIDATION)):
            images = generator.integers(0, 256, (count, 8, 8), dtype=np.uint8)
            np.savez(root / f"{name}.npz", x=images, y=np.arange(count) % 3)
    recipe = with_overrides(recipe_from_dict(RECIPE, "tests"), {"data.root": str(root)})
    return with_overrides(recipe, {name.replace("__", "."): value for name, value in overrides.items()})


class StopAfter(Signals):
    """As if SIGINT came in step number ``count`` of this process. The loop looks at ``save`` once a step."""

    def __init__(self, count: int) -> None:
        self._left = count
        super().__init__()

    @property
    def save(self) -> bool:
        self._left -= 1
        return False

    @save.setter
    def save(self, value: bool) -> None:
        pass

    @property
    def stop(self) -> int | None:
        return 130 if self._left == 0 else None

    @stop.setter
    def stop(self, value: int | None) -> None:
        pass


def contents(run: Path) -> dict[str, Any]:
    """What must be equal bit for bit: the tensors' files of the last checkpoint, its counters, the log."""
    last = max((run / "checkpoints").glob("step-*"))
    counters = json.loads((last / "state.json").read_text())["counters"]
    counters.pop("seconds")
    return {
        "step": last.name,
        "counters": counters,
        "metrics": (run / "metrics.jsonl").read_bytes(),
        **{path.name: path.read_bytes() for path in last.glob("*.safetensors")},
    }
