"""The same numbers as a map and as a vector: python benchmarks/conditions.py [--recipe inpaint] [--minutes 3] [--json]

Drawn portraits by the recipe ``superres``, of 8x8 means of blocks, or ``inpaint`` (without labels), of the image with a
hole and where it is: once as the map that their encoder makes of them (equation 5 of van den Oord et al. 2016), and
once flattened into a vector, which enters each layer as a bias (equation 4), or also by place through m(h), the
deconvolutional net over a vector. A vector of inpainting, 4 numbers a pixel, is projected to 32 numbers first.

All have the same number of parameters, as nearly as whole numbers of filters allow, and the same processor time, so
that other work on the machine favours none: steps of all are timed in turns, the quickest turn of each counts, and its
run has as many steps as the minutes hold. All else is the same: images, their order, learning rate. Figures are of the
same test images, with 95 % intervals, over unknown pixels; ``difference`` is paired, image by image.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import condgen
from condgen.encoders.masks import Masked
from condgen.encoders.spatial import LowResolution
from condgen.evaluate.bits import evaluated_indices, mean_and_ci95
from condgen.recipe import Recipe, read_recipe
from condgen.recipe.build import build_model
from condgen.train.plan import planned_info

TURNS, TIMED_STEPS = 3, 20
FIELDS: dict[str, dict[str, Any]] = {"superres": {}, "inpaint": {"encoder.label": "none"}}
FLAT: dict[str, dict[str, Any]] = {
    "superres": {"encoder.type": "low_resolution_flat", "encoder.factor": 4, "encoder.features": 0},
    "inpaint": {"encoder.type": "masked_flat", "encoder.features": 0},
}
VARIANTS: dict[str, dict[str, Any] | None] = {
    "map": None,
    "vector": {"model.conditioning": "global"},
    "vector, also by place": {"model.conditioning": "both", "model.map_channels": 8},
}
PROJECTED = 32
"""Numbers that remain of the 4 for each pixel of inpainting."""


@condgen.register_encoder("low_resolution_flat")
class FlatLowResolution(LowResolution):
    """The means of blocks as a vector."""

    def __init__(self, options: Any, info: condgen.DataInfo) -> None:
        super().__init__(options, info)
        self.vector_size, self.map_channels = info.channels * self.low_height * self.low_width, 0

    def encode(self, batch: condgen.Batch) -> condgen.Condition:
        return condgen.Condition(vector=self.on_scale(self.low(batch["image"])).flatten(1))


@condgen.register_encoder("masked_flat")
class FlatMasked(Masked):
    """The image with a hole, and where it is known, as a vector, which a matrix makes shorter: one for each layer would
    have no room in as many parameters as the map's model has."""

    def __init__(self, options: Any, info: condgen.DataInfo) -> None:
        super().__init__(options, info)
        self.vector_size, self.map_channels = PROJECTED, 0
        self.project = torch.nn.Linear(self.seen() * info.height * info.width, PROJECTED)

    def encode(self, batch: condgen.Batch) -> condgen.Condition:
        return condgen.Condition(vector=self.project(self.look(batch).flatten(1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--recipe", choices=list(FLAT), default="superres")
    parser.add_argument("--minutes", type=float, default=3.0, help="of processor time, for each variant")
    parser.add_argument("--test-images", type=int, default=1000)
    parser.add_argument("--size", type=int, default=32, help="side of the images in pixels; divides by 4")
    parser.add_argument("--out", type=Path, default=Path("runs/conditions"), help="where the runs go")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    wanted = size_of(recipe_of("map", arguments, None))
    filters = {name: filters_for(name, arguments, wanted) for name in VARIANTS}
    costs = [{name: cost_of_a_step(name, arguments, filters[name]) for name in VARIANTS} for _ in range(TURNS)]
    steps = {name: round(60 * arguments.minutes / min(turn[name] for turn in costs)) for name in VARIANTS}
    found = {name: outcome(name, arguments, filters[name], steps[name]) for name in VARIANTS}
    main_bits = found["map"].pop("each")
    for name, run in found.items():
        if name != "map":
            run["difference"], run["difference_ci95"] = mean_and_ci95(run.pop("each") - main_bits)
    result = {
        "recipe": arguments.recipe,
        "minutes": arguments.minutes,
        "threads": torch.get_num_threads(),
        "size": arguments.size,
        "runs": found,
    }
    print(json.dumps(result) if arguments.json else table(found))


def recipe_of(name: str, arguments: argparse.Namespace, filters: int | None, **train: Any) -> Recipe:
    flat = VARIANTS[name]
    overrides = {
        "data.image_size": arguments.size,
        "train.max_minutes": None,
        "train.max_steps": 1,
        "train.evaluate_images": 0,
        "train.checkpoint_every": 10**6,
        "train.tensorboard": False,
        "sample.count": 0,
        **FIELDS[arguments.recipe],
        **({} if flat is None else FLAT[arguments.recipe] | flat),
        **({} if filters is None else {"model.filters": filters}),
        **{f"train.{key}": value for key, value in train.items()},
    }
    return read_recipe(arguments.recipe, overrides)


def size_of(recipe: Recipe) -> int:
    """Parameters of core and encoder."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in build_model(recipe, planned_info(recipe)).parameters())


def filters_for(name: str, arguments: argparse.Namespace, wanted: int) -> int:
    """The number of filters whose model comes nearest to ``wanted`` parameters."""
    return min(range(8, 97), key=lambda filters: abs(size_of(recipe_of(name, arguments, filters)) - wanted))


def trained(name: str, arguments: argparse.Namespace, filters: int, steps: int, out: Path) -> float:
    """Seconds of the processor that a training of ``steps`` takes."""
    begun = time.process_time()
    condgen.train(recipe_of(name, arguments, filters, max_steps=steps), out=out, quiet=True)
    return time.process_time() - begun


def cost_of_a_step(name: str, arguments: argparse.Namespace, filters: int) -> float:
    """Seconds of the processor, without what opening and saving take."""
    taken = []
    for steps in (1, 1 + TIMED_STEPS):
        with tempfile.TemporaryDirectory() as folder:
            taken.append(trained(name, arguments, filters, steps, Path(folder) / "run"))
    return (taken[1] - taken[0]) / TIMED_STEPS


def outcome(name: str, arguments: argparse.Namespace, filters: int, steps: int) -> dict[str, Any]:
    """Trains one variant and measures it; ``each``: bits/dim of each test image."""
    folder = arguments.out / name.replace(", ", "-").replace(" ", "-")
    seconds = trained(name, arguments, filters, steps, folder)
    model = condgen.load(folder)
    each = bits_of(model, arguments.test_images)
    mean, interval = mean_and_ci95(each)
    return {
        "filters": filters,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "steps": steps,
        "processor_seconds": seconds,
        "bits_per_dim": mean,
        "bits_per_dim_ci95": interval,
        "each": each,
    }


@torch.no_grad()
def bits_of(model: condgen.ConditionalModel, limit: int) -> np.ndarray:
    """Bits of the same ``limit`` test images every time, in units of the unknown sub-pixels of a mean image."""
    images = condgen.open_data(model.recipe.data, "test")
    found, unknown = [], 0.0
    for indices in np.array_split(evaluated_indices(len(images), limit), -(-limit // 50)):
        batch = images.batch(indices)
        nats = model.log_prob_map(batch["image"], model.condition(batch)).double()  # (B, H, W)
        known = model.encoder.known(batch)
        counts = torch.ones_like(nats) if known is None else (~known).double()
        found.append((nats * counts).sum((1, 2)).numpy())
        unknown += float(counts.sum())
    each = np.concatenate(found)
    return -each / (np.log(2) * model.info.channels * unknown / len(each))


def table(found: dict[str, dict[str, Any]]) -> str:
    lines = [
        f"{'condition':<24}{'bits/dim':>9}{'':>9}{'more than the map':>20}{'parameters':>12}{'steps':>8}{'CPU s':>8}"
    ]
    for name, run in found.items():
        more = f"{run['difference']:.3f} ± {run['difference_ci95']:.3f}" if "difference" in run else ""
        lines.append(
            f"{name:<24}{run['bits_per_dim']:>9.3f} ± {run['bits_per_dim_ci95']:.3f} {more:>20}{run['parameters']:>12,}"
            f"{run['steps']:>8,}{run['processor_seconds']:>8.0f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
