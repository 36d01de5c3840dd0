"""``condgen recipes``: the experiments that come along."""

from __future__ import annotations

from typing import Annotated

import typer

from condgen.cli.options import Debug, Json, Quiet
from condgen.cli.outcome import answer


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Print this recipe.", show_default=False)] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List the recipes of condgen and of installed packages, or print one."""
    from condgen.recipe import recipe_names, recipe_source

    if name is not None:
        text = recipe_source(name)
        answer({"name": name, "text": text}, text.rstrip("\n"), as_json)
        return
    rows = [{"name": each, "description": _description(each)} for each in recipe_names()]
    width = max((len(row["name"]) for row in rows), default=0)
    lines = "\n".join(f"{row['name']:<{width}}  {row['description']}" for row in rows)
    answer({"recipes": rows}, lines, as_json)


def _description(name: str) -> str:
    from condgen.errors import CondgenError
    from condgen.recipe import recipe_description

    try:
        return recipe_description(name)
    except CondgenError as error:  # of a package that spoils only its own
        return f"broken: {error.message}"
