"""Section 3.4 of the PixelCNN++ paper at small scale: python benchmarks/ablations.py FOLDER [--out DIR] [--json]

Four findings are examined. FOLDER holds photographs, perhaps below ``train`` and ``test``. Every run is a recipe that
comes with condgen (``cifar10`` and its ablations), made small by the same overrides, from the same seed, over the same
images in the same order for the same number of steps. A finding is a pair of runs under conditions where the claim can
show:

- ``softmax`` trains more slowly than the mixture of logistics; ``continuous`` mixtures (the bound that the paper gives,
  and beside it the exact likelihood of the same weights) are worse than discretised ones; without short-cuts training
  fails. Many images, seen about once, so nothing can overfit; no dropout, which would slow every run alike.
- ``no dropout`` overfits: few images, seen over and over, with and without dropout.

Figures: bits/dim of the averaged weights on the same test images, so that the ``difference`` of a pair is known better
than either figure; ``worse`` means by more than its 95 % interval; ``reached_after`` is the step after which the main
run's validation was as good as the ablation's in the end; ``seconds_per_step`` is of this machine, validations
included. The curves are in ablations.png.

Runs lie below --out. One that is finished is not trained again; one that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

import condgen
from condgen import streams
from condgen.data import data_sizes
from condgen.draw import curve, panels, save_png
from condgen.evaluate.bits import evaluated_indices, mean_and_ci95
from condgen.recipe import Recipe, read_recipe
from condgen.store.run import read_log

VALIDATIONS = 25
"""Of each run, evenly over its steps."""
HIDDEN = 0.1
"""Share of a run that its curves leave out."""
SMOOTHED = 0.02
"""Share of a run over which the loss of training is averaged for its curve."""


@dataclass(frozen=True)
class Trial:
    """One run: a recipe by name, and whether it has many images or few."""

    name: str
    recipe: str
    few: bool = False


MAIN = Trial("mixture", "cifar10")
SOFTMAX = Trial("softmax", "cifar10-softmax")
CONTINUOUS = Trial("continuous", "cifar10-continuous")
NO_SHORT_CUTS = Trial("no short-cuts", "cifar10-no-short-cuts")
DROPOUT = Trial("dropout", "cifar10", few=True)
NO_DROPOUT = Trial("no dropout", "cifar10-no-dropout", few=True)
TRIALS = (MAIN, SOFTMAX, CONTINUOUS, NO_SHORT_CUTS, DROPOUT, NO_DROPOUT)


@dataclass
class Outcome:
    """What a run came to; bits/dim, with half-widths of 95 % intervals."""

    recipe: str
    parameters: int
    steps: int
    seconds_per_step: float
    test: float
    test_ci95: float | None
    train: float
    bound: float | None
    """Where training raises a bound: that bound on the test images."""
    validation: dict[int, float] = field(default_factory=dict)
    """By step; of the bound where there is one."""
    training: dict[int, float] = field(default_factory=dict)
    """By step, as training saw it: dropout and all, averaged over the last few steps."""
    each: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False)
    """Bits/dim of each test image."""
    each_bound: np.ndarray | None = field(default=None, repr=False)
    """Its bound, where training raises one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", metavar="FOLDER", help="photographs")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), help="where runs and picture go")
    parser.add_argument("--steps", type=int, default=1500, help="of every run")
    parser.add_argument("--size", type=int, default=16, help="side of the images in pixels; divides by 4")
    parser.add_argument("--filters", type=int, default=24)
    parser.add_argument("--resnets", type=int, default=2)
    parser.add_argument("--few", type=int, default=200, help="training images of the two runs about dropout")
    parser.add_argument("--test-images", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    outcomes = {trial.name: outcome(trial, arguments) for trial in TRIALS}
    result = {
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()},
        "runs": {
            name: {key: value for key, value in asdict(found).items() if not key.startswith("each")}
            for name, found in outcomes.items()
        },
        "findings": findings(outcomes),
        "picture": str(arguments.out / "ablations.png"),
    }
    save_png(arguments.out / "ablations.png", pictures(outcomes), force=True)
    print(json.dumps(result) if arguments.json else table(result))


def recipe_of(trial: Trial, arguments: argparse.Namespace) -> Recipe:
    """The trial's recipe, made small; the same overrides for all but the number of images and the dropout there."""
    overrides: dict[str, Any] = {
        "data.source": "folder",
        "data.root": arguments.data,
        "data.image_size": arguments.size,
        "data.validation": 0.05,
        "model.filters": arguments.filters,
        "model.resnets": arguments.resnets,
        "train.seed": arguments.seed,
        "train.batch_size": 16,
        "train.micro_batch": None,
        "train.max_steps": arguments.steps,
        "train.learning_rate": 2e-3,  # a small network in few steps
        "train.evaluate_images": 256,
        "train.evaluate_every": max(1, arguments.steps // VALIDATIONS),
        "train.checkpoint_every": arguments.steps,
        "train.tensorboard": False,
        "sample.count": 0,
    }
    if not trial.few:
        return read_recipe(trial.recipe, overrides | {"model.dropout": 0.0})
    sizes = data_sizes(read_recipe(trial.recipe, overrides).data) or {}
    kept = 1 - arguments.few / (sizes["train"] + sizes["validation"])  # for validation
    return read_recipe(trial.recipe, overrides | {"data.validation": kept})


def outcome(trial: Trial, arguments: argparse.Namespace) -> Outcome:
    """Trains, unless that was done, and measures."""
    recipe, folder = recipe_of(trial, arguments), arguments.out / trial.name.replace(" ", "-")
    run = condgen.train(recipe, out=folder)
    model = condgen.load(run)
    each, bounds = bits_of(model, "test", arguments.test_images)
    mean, interval = mean_and_ci95(each)
    checkpoint = max((run / "checkpoints").glob("step-*"))
    counters = json.loads((checkpoint / "state.json").read_bytes())["counters"]
    log = read_log(run / "metrics.jsonl")
    window = max(1, round(SMOOTHED * len(log)))
    losses = np.array([line["bits_per_dim"] for line in log])
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    name = "validation_bits_per_dim"
    return Outcome(
        recipe=trial.recipe,
        parameters=sum(weight.numel() for weight in model.parameters()),
        steps=counters["updates"],
        seconds_per_step=counters["seconds"] / counters["updates"],
        test=mean,
        test_ci95=interval,
        train=float(bits_of(model, "train", 256)[0].mean()),
        bound=None if bounds is None else float(bounds.mean()),
        validation={line["step"]: line[name] for line in log if name in line},
        training={log[window - 1 + i]["step"]: float(smooth[i]) for i in range(0, len(smooth), window)},
        each=each,
        each_bound=bounds,
    )


@torch.no_grad()
def bits_of(model: condgen.ConditionalModel, split: Any, limit: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Bits/dim of the same ``limit`` images every time, and the bound on them where training raises one."""
    images = condgen.open_data(model.recipe.data, split)
    each, bounds, unit = [], [], -1 / (np.log(2) * model.info.dimensions)
    for indices in np.array_split(evaluated_indices(len(images), limit), -(-limit // 64)):
        x = images.batch(indices)["image"]
        exact, bound = model.log_prob_and_bound(x, None, streams.example_keys(indices, 0, "bound"))
        each.append(exact.double().numpy() * unit)
        bounds.append(bound.double().numpy() * unit)
    return np.concatenate(each), np.concatenate(bounds) if model.likelihood.bound else None


def findings(outcomes: dict[str, Outcome]) -> dict[str, dict[str, Any]]:
    """Each claim of the paper beside what was found; ``worse``: by more than the interval of the difference."""
    main, few, without = (outcomes[trial.name] for trial in (MAIN, DROPOUT, NO_DROPOUT))
    found: dict[str, dict[str, Any]] = {}
    for claim, trial in (
        ("softmax trains more slowly", SOFTMAX),
        ("a continuous mixture is worse", CONTINUOUS),
        ("without short-cuts training fails", NO_SHORT_CUTS),
    ):
        other = outcomes[trial.name]
        last = other.validation[max(other.validation)]
        reached = [step for step, value in main.validation.items() if value <= last]
        found[claim] = difference(other, main) | {
            "reached_after": min(reached) if reached else None,
            "of_steps": main.steps,
            "time_of_a_step": other.seconds_per_step / main.seconds_per_step,
        }
        if other.each_bound is not None:
            found[claim]["exact_difference"] = other.test - main.test
    found["without dropout it overfits"] = difference(without, few) | {
        "gap_to_training_images": without.test - without.train,
        "gap_with_dropout": few.test - few.train,
        "best_validation": min(without.validation.values()),
        "best_validation_with_dropout": min(few.validation.values()),
    }
    return found


def difference(other: Outcome, main: Outcome) -> dict[str, Any]:
    """Bits/dim that ``other`` needs more on the same test images; of a bound where it has one, as in the paper."""
    each = other.each if other.each_bound is None else other.each_bound
    mean, interval = mean_and_ci95(each - main.each)
    return {"worse": mean > (interval or 0), "difference": mean, "difference_ci95": interval}


def pictures(outcomes: dict[str, Outcome]) -> Any:
    """Panels for each finding, without the first steps, which are all alike and would take most of the height."""
    start = HIDDEN * outcomes[MAIN.name].steps

    def validation(trials: Sequence[Trial], seconds: bool = False) -> dict[str, tuple[list[float], list[float]]]:
        lines = {}
        for trial in trials:
            found = outcomes[trial.name]
            unit = found.seconds_per_step / 60 if seconds else 1.0
            name = f"{trial.name} (bound)" if found.bound is not None else trial.name
            late = {step * unit: value for step, value in found.validation.items() if step >= start}
            lines[name] = (list(late), list(late.values()))
        return lines

    def training(trials: Sequence[Trial]) -> dict[str, tuple[list[float], list[float]]]:
        late = {
            trial.name: {step: value for step, value in outcomes[trial.name].training.items() if step >= start}
            for trial in trials
        }
        return {name: ([float(step) for step in line], list(line.values())) for name, line in late.items()}

    def panel(lines: dict[str, tuple[list[float], list[float]]], title: str, x_label: str, of: str) -> Any:
        return curve(lines, title=title, x_label=x_label, y_label=f"bits/dim, {of}", size=(640, 360))

    many = "validation"
    return panels(
        [
            panel(validation([MAIN, SOFTMAX]), "Softmax, by steps", "steps", many),
            panel(validation([MAIN, SOFTMAX], seconds=True), "Softmax, by time", "minutes", many),
            panel(validation([MAIN, CONTINUOUS]), "Continuous mixture", "steps", many),
            panel(validation([MAIN, NO_SHORT_CUTS]), "No short-cuts", "steps", many),
            panel(validation([DROPOUT, NO_DROPOUT]), "No dropout, few images", "steps", many),
            panel(training([DROPOUT, NO_DROPOUT]), "The same in training", "steps", "training batches"),
        ]
    )


def table(result: dict[str, Any]) -> str:
    lines = [f"{'run':<16}{'test':>8}{'':>9}{'train':>8}{'bound':>8}{'s a step':>10}{'parameters':>12}"]
    for name, run in result["runs"].items():
        spread = "" if run["test_ci95"] is None else f" ± {run['test_ci95']:.3f}"
        bound = "" if run["bound"] is None else f"{run['bound']:.3f}"
        lines.append(
            f"{name:<16}{run['test']:>8.3f}{spread:<9}{run['train']:>8.3f}{bound:>8}"
            f"{run['seconds_per_step']:>10.3f}{run['parameters']:>12,}"
        )
    for claim, found in result["findings"].items():
        figures = ", ".join(
            f"{name.replace('_', ' ')} {value:.3f}" if isinstance(value, float) else f"{name.replace('_', ' ')} {value}"
            for name, value in found.items()
            if name != "worse" and value is not None
        )
        lines.append(f"{claim}: {'worse' if found['worse'] else 'not worse'} ({figures})")
    lines.append(result["picture"])
    return "\n".join(lines)


if __name__ == "__main__":
    main()
