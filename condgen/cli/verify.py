"""``condgen verify``: the properties that make a model an exact density, shown on the very weights it has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from condgen.cli.options import Debug, Device, Json, Overrides, Quiet, Seed, changed, device_of
from condgen.cli.outcome import answer
from condgen.errors import CheckFailed

if TYPE_CHECKING:
    import torch

    from condgen.model import ConditionalModel


def verify(
    target: Annotated[
        str, typer.Argument(metavar="RUN_OR_RECIPE", help="A run, a model folder, a recipe file or a recipe's name.")
    ],
    overrides: Overrides = None,
    seed: Seed = None,
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show that a model is an exact density: causal, complete, normalised.

    Causality, coverage, colour order, normalisation, the condition reaching every pixel, samplers agreeing.

    A recipe is verified with random weights and needs no data. Ends with 1 if a property does not hold.
    """
    from condgen.evaluate import findings

    model = _model(target, overrides, device_of(device))
    found = findings(model, seed=seed or 0)
    signs = {True: "✓", False: "✗", None: "–"}
    width = max(len(name) for name in found)
    text = "\n".join(f"{signs[each.holds]} {name:<{width}}  {each.detail}" for name, each in found.items())
    answer({name: each.holds for name, each in found.items()}, text, as_json)
    failed = [name for name, each in found.items() if each.holds is False]
    if failed and as_json:
        raise typer.Exit(CheckFailed.exit_code)
    if failed:
        raise CheckFailed(f"{target} fails {', '.join(failed)}; do not trust its likelihoods or samples.", file=target)


def _model(target: str, overrides: list[str] | None, device: torch.device) -> ConditionalModel:
    from condgen.recipe import read_recipe, recipe_names
    from condgen.store import load_conditional

    is_file = target.endswith((".yaml", ".yml"))
    if is_file or (target in recipe_names() and not os.path.isdir(target)):
        from condgen.store.models import as_conditional, fresh_model
        from condgen.train.plan import planned_info

        recipe = read_recipe(target, overrides or ())
        return as_conditional(fresh_model(recipe, planned_info(recipe)), recipe, target).to(device).eval()
    model = load_conditional(target, device=device)
    changed(model.recipe, overrides, [])
    return model
