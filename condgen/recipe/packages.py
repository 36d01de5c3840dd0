"""Recipes that come with installed packages, by name: entry points of the group ``condgen.recipes``.

``NAME = "package.folder"`` says that ``NAME.yaml`` lies in that package's folder. The folder is looked for when the
name is asked for, and of the package no more is imported than what Python needs to know where it lies.
"""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path

from condgen.errors import ModelError, shown

GROUP = "condgen.recipes"


def package_recipes() -> list[str]:
    """The names, sorted."""
    return sorted({point.name for point in metadata.entry_points(group=GROUP)})


def package_recipe(name: str) -> Path:
    """The file of a name that ``package_recipes`` lists.

    Raises:
        ModelError: two packages claim the name, or the package cannot be imported or lacks the file.
    """
    points = {point.value: point for point in metadata.entry_points(group=GROUP) if point.name == name}
    owners = sorted(point.dist.name if point.dist is not None else value for value, point in points.items())
    if len(points) > 1:
        raise ModelError(f"The recipe {shown(name)} is claimed by {' and '.join(owners)}; uninstall one.", file=name)
    [target] = points
    try:
        spec = importlib.util.find_spec(target)
    except (Exception, SystemExit) as error:  # the parent package is imported, and may raise anything
        reason = shown(f"{type(error).__name__}: {error}")
        raise ModelError(
            f"The recipe {shown(name)} of {owners[0]} cannot be found ({reason}); mend or uninstall it.", file=name
        ) from error
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec is not None else []
    found = [folder / f"{name}.yaml" for folder in folders if (folder / f"{name}.yaml").is_file()]
    if not found:
        raise ModelError(
            f"The recipe {shown(name)} of {owners[0]} is not in its package ({shown(target)}); mend or uninstall it.",
            file=name,
        )
    return found[0]
