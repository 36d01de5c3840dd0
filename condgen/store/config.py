"""``config.json``: what a run or a model folder is, enough to build its model without asking anybody."""

from __future__ import annotations

import dataclasses
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from condgen.condition import DataInfo
from condgen.errors import ModelError, RecipeError, shown
from condgen.recipe import Recipe, recipe_from_dict
from condgen.store.sealed import read_sealed

CONFIG = "config.json"
FORMAT = 1


def versions() -> dict[str, str]:
    """What made a file: condgen, torch and Python."""
    return {
        "condgen": metadata.version("condgen"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def config_of(recipe: Recipe, info: DataInfo) -> dict[str, Any]:
    """The content of ``config.json``, JSON types only."""
    return {
        "format": FORMAT,
        "recipe": recipe.model_dump(mode="json"),
        "info": {
            **dataclasses.asdict(info),
            "classes": list(info.classes),
            "attributes": list(info.attributes),
            "columns": dict(info.columns),
        },
        "versions": versions(),
    }


def parse_config(content: dict[str, Any], path: Path) -> tuple[Recipe, DataInfo]:
    """The recipe and data description in ``content`` (read from ``path``).

    Raises:
        ModelError: of another format, or not what a condgen writes.
    """
    if content.get("format") != FORMAT:
        raise ModelError(
            f"{shown(path)} has the format {shown(content.get('format'))}, this condgen reads {FORMAT}; "
            "use the condgen that wrote it.",
            file=path,
        )
    try:
        recipe = recipe_from_dict(content["recipe"], shown(path))
        found = content["info"]
        info = DataInfo(
            **{key: _whole(found[key]) for key in ("channels", "height", "width", "bit_depth")},
            classes=tuple(map(str, found["classes"])),
            attributes=tuple(map(str, found["attributes"])),
            columns={str(name): _whole(size) for name, size in found["columns"].items()},
        )
    except RecipeError as error:
        raise ModelError(f"{shown(path)} holds a recipe that cannot be used: {error.message}", file=path) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{shown(path)} is damaged: {shown(error)} is missing or of another type.", file=path
        ) from error
    return recipe, info


def _whole(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 1 << 20:
        raise TypeError(repr(value))
    return value


def read_config(path: Path) -> tuple[Recipe, DataInfo, dict[str, Any]]:
    """Recipe, data description and the whole content of a ``config.json``.

    Raises:
        ModelError: missing, damaged or of another format.
    """
    content = read_sealed(path)
    return *parse_config(content, path), content
