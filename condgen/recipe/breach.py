"""What pydantic finds wrong with a recipe, as one sentence: file, line, field, what was expected, what was found."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from condgen.errors import RecipeError
from condgen.recipe.schema import Recipe
from condgen.recipe.strict_yaml import short, where

Place = tuple[str | None, int | None]
"""File and line; no file for what came from the command line or from Python."""

_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "set": "a list",
    "dict": "a section (key: value)",
    "model": "a section (key: value)",
    "none": "nothing",
    "finite": "a finite number",
}
"""By the first word of pydantic's error type."""
_BOUNDS = {
    "greater_than_equal": ("ge", "at least {}"),
    "greater_than": ("gt", "more than {}"),
    "less_than_equal": ("le", "at most {}"),
    "less_than": ("lt", "less than {}"),
    "multiple_of": ("multiple_of", "a multiple of {}"),
}


def found(value: Any) -> str:
    """``value`` in the words of a recipe."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {short(value)!r}"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return "a section"
    return short(value)


def no_such_field(name: str, known: Iterable[str], place: Place, *, also: Sequence[str] = ()) -> RecipeError:
    """The error for the unknown ``name``; ``known`` are the names of its section, ``also`` of others, all dotted."""
    known = list(known)
    last = {field.rpartition(".")[2]: field for field in reversed([*known, *also])}
    wanted = name.rpartition(".")[2]
    near = difflib.get_close_matches(name, known, 1) or [last[k] for k in difflib.get_close_matches(wanted, last, 1)]
    if wanted in last:  # right word, wrong section
        near = [last[wanted]]
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}."
    return RecipeError(f"{where(*place)}{short(name)}: no such field; {hint}", file=place[0], field=name)


def sentence(error: ValidationError, section: str, schema: type[BaseModel], places: Mapping[str, Place]) -> RecipeError:
    """The first breach (by line) of ``error``, which validating ``schema`` as ``section`` ("" for all) gave."""
    groups: dict[str, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        names = [str(part) for part in details["loc"][: 1 if section else 2]]
        groups.setdefault(".".join([section, *names] if section else names), []).append(details)

    def line(name: str) -> tuple[bool, int]:
        _, number = _place(name, places)
        return number is None, number or 0

    name = min(groups, key=line)
    return _one(name, groups[name], schema, places)


def _place(name: str, places: Mapping[str, Place]) -> Place:
    """Of the field, else of its section, else of the whole recipe."""
    section = name.partition(".")[0]
    return places.get(name) or places.get(section) or places.get("", (None, None))


def _one(name: str, details: list[ErrorDetails], schema: type[BaseModel], places: Mapping[str, Place]) -> RecipeError:
    kinds = {entry["type"] for entry in details}
    if kinds == {"extra_forbidden"}:
        known, others = _names(name, schema)
        return no_such_field(name, known, _place(name, places), also=others)
    if kinds == {"value_error"}:  # of our own validators: a sentence that begins with the field, or is about several
        text = str(details[0].get("ctx", {}).get("error", details[0]["msg"]))
        first = text.partition(" ")[0].rstrip(":")
        precise = f"{name}.{first}" if name else first
        if precise in places or "." in first:
            name = precise
            text = text if "." in first else f"{precise.rpartition('.')[0]}.{text}"
        elif name:
            text = f"{name}: {text}"
        place = _place(name, places)
        return RecipeError(f"{where(*place)}{text.rstrip('.')}.", file=place[0], field=name or None)
    # a union reports every branch: where one branch took the type and refused the value, that is the news
    values = [entry for entry in details if entry["type"].rpartition("_")[2] not in ("type", "parsing")] or details
    expected = " or ".join(dict.fromkeys(_expected(entry) for entry in values))
    value = values[0]["input"]
    hint = ""
    if "literal_error" in kinds and isinstance(value, str):
        choices = values[0].get("ctx", {}).get("expected", "").replace("'", "").replace(" or ", ", ").split(", ")
        near = difflib.get_close_matches(value, choices, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
    elif any(entry["type"] == "string_type" for entry in values) and isinstance(value, (int, float)):
        hint = "; put it in quotes."
    place = _place(name, places)
    text = f"{where(*place)}{short(name)}: expected {expected}, found {found(value)}{hint or '.'}"
    return RecipeError(text, file=place[0], field=name)


def _names(name: str, schema: type[BaseModel]) -> tuple[list[str], list[str]]:
    """The known fields beside ``name``, dotted, and those of all other sections."""
    sections = {
        key: list(field.annotation.model_fields)
        for key, field in Recipe.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    section, dot, _ = name.partition(".")
    if section == "encoder" and dot:
        sections["encoder"] = ["type", *schema.model_fields]
    dotted = {key: [f"{key}.{field}" for field in fields] for key, fields in sections.items()}
    known = dotted.get(section, []) if dot else ["extends", *Recipe.model_fields]
    return known, [field for key, fields in dotted.items() if not dot or key != section for field in fields]


def _expected(details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return words.format(context[key])
    if kind == "literal_error":
        return str(context["expected"])
    if kind in ("too_short", "too_long", "missing"):
        length = context.get("min_length") or context.get("max_length")
        return f"a list of {length}" if length else "a longer list"
    return _EXPECTED.get(kind.partition("_")[0], details["msg"][:1].lower() + details["msg"][1:])


def refuse_coerced(given: Any, taken: Any, name: str, places: Mapping[str, Place]) -> None:
    """Refuses text and truth values that pydantic took for numbers: ``010`` is eight to some and ten to others.

    Raises:
        RecipeError: somewhere in ``given`` (what was written) such a value stands where ``taken`` holds a number.
    """
    if isinstance(given, Mapping) and isinstance(taken, (Mapping, BaseModel)):
        for key, value in given.items():
            other = taken.get(key) if isinstance(taken, Mapping) else getattr(taken, str(key), None)
            refuse_coerced(value, other, f"{name}.{key}" if name else str(key), places)
    elif isinstance(given, (list, tuple)) and isinstance(taken, (list, tuple)):
        for value, other in zip(given, taken, strict=False):
            refuse_coerced(value, other, name, places)
    elif isinstance(given, (str, bool)) and isinstance(taken, (int, float)) and not isinstance(taken, bool):
        place = _place(name, places)
        text = f"{where(*place)}{short(name)}: expected a number, found {found(given)}; write it plainly, as 8 or 1e-3."
        raise RecipeError(text, file=place[0], field=name)
