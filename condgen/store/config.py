"""``config.json``: what a run or a model folder is, enough to build its model without asking anybody."""

from __future__ import annotations

import dataclasses
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from condgen.condition import DataInfo
from condgen.errors import ModelError, RecipeError, shown
from condgen.plugins import find_encoder, package_of
from condgen.recipe import Recipe, recipe_from_dict
from condgen.store.sealed import read_sealed

CONFIG = "config.json"
FORMAT = 1
_OF_A_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,99}")
"""Names and versions of packages: a config may come from a stranger."""


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
        "encoder": {
            "version": find_encoder(recipe.encoder.type).version,
            "package": list(package_of(recipe.encoder.type) or ()),
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
    _check_version(content, recipe.encoder.type, path)
    return recipe, info


def _check_version(content: dict[str, Any], name: str, path: Path) -> None:
    """Raises:
    ModelError: the encoder here yields other conditions than the one that the model was trained with.
    """
    entry = content.get("encoder")
    there = entry.get("version", 1) if isinstance(entry, dict) else 1
    try:
        here = find_encoder(name).version
    except RecipeError as error:
        raise ModelError(f"{shown(path)} cannot be used: {error.message}{_remedy(content)}", file=path) from error
    if there != here:
        raise ModelError(
            f"{shown(path)} was trained with version {shown(there)} of the encoder {shown(name)}, and here is version "
            f"{here}, whose conditions are others; use the package that it was trained with.{_remedy(content)}",
            file=path,
            field="encoder.type",
        )


def _remedy(content: dict[str, Any]) -> str:
    """How pip gets the encoder that a model was trained with, where its package is known and not condgen itself."""
    entry = content.get("encoder")
    package = entry.get("package") if isinstance(entry, dict) else None
    if not (isinstance(package, list) and len(package) == 2 and package[0] != "condgen"):
        return ""
    if not all(isinstance(part, str) and _OF_A_PACKAGE.fullmatch(part) for part in package):
        return ""
    return f" It came with pip install {package[0]}=={package[1]}."


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
