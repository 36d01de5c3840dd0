"""``condgen train``: a recipe becomes a run, or an interrupted run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from condgen.cli.options import Debug, Device, Json, Overrides, Quiet, device_of
from condgen.cli.outcome import answer
from condgen.errors import shown

if TYPE_CHECKING:
    from condgen.train.plan import Plan


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name (condgen recipes) or a .yaml file.")],
    overrides: Overrides = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="DIR", help="The run folder; default: runs/NAME.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print sizes and the whole recipe, train nothing.")
    ] = False,
    init_from: Annotated[
        str | None,
        typer.Option("--init-from", metavar="MODEL", help="Start from a model's weights.", show_default=False),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus", metavar="N", min=1, max=1024, help="Train on N GPUs of this machine.", show_default=False
        ),
    ] = None,
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a recipe; the same command continues an interrupted run.

    condgen train fashion-mnist data.root=DATA train.max_minutes=20
    """
    from condgen.train.signals import Signals

    folder = Path(out) if out is not None else Path("runs") / Path(recipe).stem
    if dry_run:
        from condgen.recipe import read_recipe
        from condgen.train.plan import make_plan

        plan = make_plan(read_recipe(recipe, overrides or ()), device_of(device), gpus or 1)
        answer(plan.as_dict(), lambda: _plan_text(plan), as_json)
        return
    if gpus is not None:
        from condgen.recipe import read_recipe
        from condgen.train.launch import launch

        read_recipe(recipe, overrides or ())  # what is wrong with it is said once, not by every process
        options = [f"--out={folder}", *([f"--init-from={init_from}"] if init_from else [])]
        options += [f"--device={device}"] if device else []
        options += [name for name, on in (("--json", as_json), ("--quiet", quiet), ("--debug", debug)) if on]
        raise typer.Exit(launch(["train", *options, "--", recipe, *(overrides or ())], gpus, device))
    with Signals() as signals:  # before torch: importing it takes seconds in which a signal may come
        from condgen.recipe import read_recipe
        from condgen.store.models import find
        from condgen.train.plan import check_memory
        from condgen.train.run import run_training

        resolved = read_recipe(recipe, overrides or ())
        if init_from is not None:
            find(init_from)
        check_memory(resolved, device_of(device))
        result = run_training(resolved, out=folder, device=device, init_from=init_from, signals=signals)
    if result.figure is None:
        figure = "no validation"
    else:
        digits, words = {
            "bits_per_dim": (3, "bits/dim"),
            "squared_error": (5, "squared error per dimension"),
            "auc": (4, "AUC"),
        }[result.unit]
        spread = f" ± {result.ci95:.{digits}f}" if result.ci95 is not None else ""
        bound = " (variational bound)" if result.bound else ""
        figure = f"{result.figure:.{digits}f}{spread} {words}{bound} on validation images"
    text = f"{shown(result.run)}: {result.steps:,} steps, {figure}"
    found = {
        "run": str(result.run),
        "steps": result.steps,
        result.unit: result.figure,
        f"{result.unit}_ci95": result.ci95,
        **({"bound": True} if result.bound else {}),
    }
    answer(found, text, as_json)


def _plan_text(plan: Plan) -> str:
    from condgen.recipe import recipe_text

    memory = plan.memory
    classes = "" if plan.classes_known else " (with 10 classes: the data are not here)"
    lines = [
        f"parameters   {plan.parameters:,}{classes}",
        f"memory       about {_size(memory.total)}: {_size(memory.training)} for weights, gradients, Adam and average, "
        f"{_size(memory.activations)} for activations; the device has {_size(memory.available)}",
        "images       "
        + (", ".join(f"{split} {size:,}" for split, size in plan.data.items()) if plan.data else "the set is absent"),
        "",
        recipe_text(plan.recipe).rstrip("\n"),
    ]
    return "\n".join(lines)


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
