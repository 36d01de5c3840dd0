"""From files, names and overrides to a ``Recipe``; whatever is wrong is said with file, line and field."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from condgen.errors import ModelError, RecipeError, shown
from condgen.files import read_regular
from condgen.recipe.breach import Place, found, refuse_coerced, sentence
from condgen.recipe.packages import package_recipe, package_recipes
from condgen.recipe.schema import EncoderSection, Recipe
from condgen.recipe.strict_yaml import LIMIT, decoded, dump, parse, short, where

if TYPE_CHECKING:
    from condgen.condition import Options

Overrides = Sequence[str] | Mapping[str, object]
"""``["train.max_steps=100"]``, ``{"train.max_steps": 100}`` or ``{"train": {"max_steps": 100}}``."""

_LONGEST_CHAIN = 10
_OF_THE_ENCODER = ("labels", "guidance")
"""Fields of ``sample`` that go with the section ``encoder``."""
_SECTIONS = [name for name, info in Recipe.model_fields.items() if isinstance(info.default, BaseModel)]


@dataclass
class _Draft:
    """A recipe before it is checked: its values by section, and where each was written."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)

    def lay(self, upper: _Draft) -> None:
        """Puts ``upper`` over this draft, field by field.

        Another encoder type takes the place of the whole section, of the labels that grids ask the old one for, and of
        the guidance, which needs the section's dropout: none of them means anything to it.
        """
        new = upper.encoder_type()
        if new is not None and new != self.encoder_type():
            self.values.pop("encoder", None)
            sample = self.values.get("sample")
            if isinstance(sample, dict):
                kept = {name: value for name, value in sample.items() if name not in _OF_THE_ENCODER}
                self.values["sample"] = kept
        for name, value in upper.values.items():
            self.put(name, value)
        self.places |= upper.places

    def encoder_type(self) -> object:
        section = self.values.get("encoder")
        return section.get("type") if isinstance(section, dict) else None

    def put(self, name: str, value: Any) -> None:
        """Sets a top-level value; of a section only the fields that ``value`` has."""
        below = self.values.get(name)
        self.values[name] = {**below, **value} if isinstance(below, dict) and isinstance(value, dict) else value


def read_recipe(target: str | os.PathLike[str], overrides: Overrides = ()) -> Recipe:
    """The recipe at a path (it ends in .yaml, or has a folder in it) or of one that comes along, by name.

    Raises:
        RecipeError: there is none, it cannot be read, a field is unknown or wrong, or an override is.
        ModelError: the encoder it names is installed but broken, or so is the package that the recipe comes with.
    """
    target = os.fspath(target)
    path = _find(target)
    draft = _read(path, shown(target if _is_path(target) else path.name), ())
    draft.lay(_overrides(overrides))
    return _checked(draft)


def with_overrides(recipe: Recipe, overrides: Overrides) -> Recipe:
    """``recipe`` with some fields changed.

    Raises:
        RecipeError: an override names no field or has a wrong value.
        ModelError: the encoder is installed but broken.
    """
    draft = _Draft(recipe.model_dump(mode="json"))
    draft.lay(_overrides(overrides))
    return _checked(draft)


def recipe_from_dict(values: Mapping[str, object], source: str) -> Recipe:
    """The recipe that a program wrote down (``Recipe.model_dump``); its encoder is not looked for.

    Raises:
        RecipeError: ``values`` breach the schema; the sentence names ``source``.
    """
    return _validated(_Draft(dict(values), {"": (source, None)}))


def recipe_text(recipe: Recipe) -> str:
    """Every field of ``recipe`` as YAML; reading it gives the same recipe."""
    return dump(recipe.model_dump(mode="json"))


def recipe_names() -> list[str]:
    """The recipes that come with condgen or with an installed package."""
    return sorted({*_own(), *package_recipes()})


def recipe_source(name: str) -> str:
    """The text of a recipe that comes along, as its author wrote it.

    Raises:
        RecipeError: there is none of this name.
        ModelError: the package that it comes with is broken.
    """
    return decoded(_named(name).read_bytes(), f"{name}.yaml")


def recipe_description(name: str) -> str:
    """Its line ``description``, without checking anything else."""
    value, _ = parse(recipe_source(name), f"{name}.yaml")
    return str(value.get("description", "")) if isinstance(value, dict) else ""


def encoder_options(section: EncoderSection) -> Options:
    """The encoder's own fields, checked by the encoder that ``section.type`` names.

    Raises:
        RecipeError: no such encoder is installed, or a field is unknown or wrong.
        ModelError: the encoder is broken.
    """
    return _encoder_options(section, {})


def _encoder_options(section: EncoderSection, places: Mapping[str, Place]) -> Options:
    from condgen.plugins import find_encoder  # torch comes with it

    schema = find_encoder(section.type).Options
    taken = sorted(set(schema.model_fields) & set(EncoderSection.model_fields))
    if taken:
        raise ModelError(
            f"encoder.type: {shown(section.type)} has a field of its own called {taken[0]}, which the section has for "
            "every encoder; rename it in the encoder.",
            field="encoder.type",
        )
    try:
        options = schema.model_validate(section.options)
    except ValidationError as error:
        raise sentence(error, "encoder", schema, places) from error
    refuse_coerced(section.options, options, "encoder", places)
    return options


def _checked(draft: _Draft) -> Recipe:
    """The recipe of ``draft``, its encoder's fields checked and filled in."""
    recipe = _validated(draft)
    place = draft.places.get("encoder.type", (None, None))
    try:
        options = _encoder_options(recipe.encoder, draft.places)
    except RecipeError as error:
        if error.field == "encoder.type":  # no such encoder is installed
            raise RecipeError(f"{where(*place)}{error.message}", file=place[0], field=error.field) from error
        raise
    _check_pairs(recipe, draft.places)
    own = {"type": recipe.encoder.type, "dropout": recipe.encoder.dropout}
    filled = EncoderSection.model_validate({**options.model_dump(mode="json"), **own})
    return recipe.model_copy(update={"encoder": filled})


def _check_pairs(recipe: Recipe, places: Mapping[str, Place]) -> None:
    """Raises:
    RecipeError: ``data.pairs`` would show another image to an encoder that shows the image itself around a hole.
    """
    from condgen.plugins import find_encoder

    if recipe.data.pairs == "none" or find_encoder(recipe.encoder.type).task != "complete":
        return
    place = places.get("data.pairs", (None, None))
    raise RecipeError(
        f"{where(*place)}data.pairs: encoder.type={recipe.encoder.type} shows what is known of the image itself, which "
        "that of another image is not; leave data.pairs at none.",
        file=place[0],
        field="data.pairs",
    )


def _validated(draft: _Draft) -> Recipe:
    try:
        recipe = Recipe.model_validate(draft.values)
    except ValidationError as error:
        raise sentence(error, "", Recipe, draft.places) from error
    refuse_coerced(draft.values, recipe, "", draft.places)
    return recipe


def _shipped() -> Path:
    return Path(str(resources.files("condgen.recipes")))


def _own() -> list[str]:
    return [path.stem for path in _shipped().glob("*.yaml")]


def _named(name: str) -> Path:
    if name in _own():  # first: no package puts another recipe under its name
        return _shipped() / f"{name}.yaml"
    if name in package_recipes():
        return package_recipe(name)
    near = difflib.get_close_matches(name, recipe_names(), 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(recipe_names())}; a path ends in .yaml."
    raise RecipeError(f"There is no recipe {short(name)!r}; {hint}", file=name)


def _is_path(target: str) -> bool:
    return target.endswith((".yaml", ".yml")) or "/" in target or os.sep in target


def _find(target: str) -> Path:
    return Path(target) if _is_path(target) else _named(target)


def _read(path: Path, source: str, chain: tuple[Path, ...]) -> _Draft:
    """The draft of one file, over those it extends."""
    text = decoded(read_regular(path, LIMIT, error=RecipeError), source)
    values, lines = parse(text, source)
    if not isinstance(values, dict):
        what = "the recipe is empty" if values is None else f"a recipe is made of sections, found {found(values)}"
        raise RecipeError(f"{where(source)}{what}; write train: and its fields, for one.", file=source)
    draft = _Draft(values, {".".join(keys): (source, line) for keys, line in lines.items()} | {"": (source, None)})
    for name in _SECTIONS:
        if draft.values.get(name, {}) is None:  # "train:" and nothing below it
            draft.values[name] = {}
    if "extends" not in values:
        return draft
    parent = draft.values.pop("extends")
    place = draft.places.pop("extends")
    chain = (*chain, path.resolve())
    below_path = _parent(parent, path, place)
    if below_path.resolve() in chain:
        raise _extends(place, "recipes that extend each other in a circle; remove one extends.")
    if len(chain) > _LONGEST_CHAIN:
        raise _extends(place, f"more than {_LONGEST_CHAIN} recipes in a chain; write the fields out.")
    below = _read(below_path, below_path.name, chain)
    below.lay(draft)
    return below


def _parent(name: object, path: Path, place: Place) -> Path:
    """The file that ``extends: name`` in ``path`` means: beside it (or below), or a recipe that comes along."""
    if not isinstance(name, str):
        raise _extends(place, f"expected the name of one recipe, found {found(name)}.")
    folder = path.parent.resolve()
    beside = path.parent / name
    try:
        inside = beside.resolve().is_relative_to(folder)
    except (ValueError, OSError, RuntimeError):  # a NUL, a name too long, a loop of links
        inside = False
    if not inside or Path(name).is_absolute():
        raise _extends(place, f"{short(name)} lies outside the recipe's folder; copy it beside the recipe.")
    if os.path.isfile(beside):
        return beside
    stem = name.removesuffix(".yaml")
    if stem in recipe_names():
        return _named(stem)
    files = {file.stem: file.name for file in folder.glob("*.yaml")}
    near = difflib.get_close_matches(stem, [*files, *recipe_names()], 1)
    hint = (
        f"did you mean {shown(files.get(near[0], near[0]))}?"
        if near
        else "give the name of a file beside this one, or of a recipe."
    )
    raise _extends(place, f"no recipe {short(name)} beside this file or in condgen; {hint}")


def _extends(place: Place, reason: str) -> RecipeError:
    return RecipeError(f"{where(*place)}extends: {reason}", file=place[0], field="extends")


def _overrides(overrides: Overrides) -> _Draft:
    """All overrides as one draft; of two for one field the later wins."""
    draft = _Draft()
    if isinstance(overrides, str):
        raise RecipeError(f"Overrides are a list or a mapping, found {found(overrides)}.")
    pairs = list(overrides.items()) if isinstance(overrides, Mapping) else [_split(entry) for entry in overrides]
    for name, value in pairs:
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        section, dot, key = str(name).partition(".")
        fields = {key: value} if dot else dict(value) if isinstance(value, Mapping) else None
        draft.put(section, value if fields is None else fields)
        names = [f"{section}.{key}" for key in fields or ()]
        if fields is None or section not in _SECTIONS:
            names.append(section)
        draft.places |= dict.fromkeys(names, (None, None))
    return draft


def _split(entry: str) -> tuple[str, Any]:
    name, equals, text = entry.partition("=")
    if not equals or not name.strip():
        raise RecipeError(f"{short(entry)}: an override is section.key=value, as in train.max_steps=100.", field=name)
    try:
        value, _ = parse(text, None)
    except RecipeError as error:
        raise RecipeError(f"{short(name)}: {error.message}", field=name) from error
    return name.strip(), value
