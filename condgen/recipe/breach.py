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
    wanted = name.rpartition(".")[2]
    near = [field for field in also if field.rpartition(".")[2] == wanted]  # right word, wrong section
    for names in (known, also):
        words = {field.rpartition(".")[2]: field for field in names}
        near += [words[word] for word in difflib.get_close_matches(wanted, words, 1)]
    if near:
        hint = f"did you mean {near[0]}?"
    else:
        owner = known[0].rpartition(".")[0] if known else ""
        hint = f"{owner or 'a recipe'} has {', '.join(field.rpartition('.')[2] for field in known)}."
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
    """The sentence about the field ``name``; ``details`` are all errors there."""
    place = _place(name, places)
    kind = details[0]["type"]
    if kind == "extra_forbidden":
        known, others = _names(name, schema)
        if "." not in name and place[0] is not None:  # only a file extends another
            known = ["extends", *known]
        return no_such_field(name, known, place, also=others)
    if kind == "value_error":
        return _of_validator(name, str(details[0].get("ctx", {}).get("error", details[0]["msg"])), places)
    if kind == "missing" and details[0]["loc"][-1] == name.rpartition(".")[2]:
        text = f"{where(*place)}{short(name)}: this field has no default; give it a value."
        return RecipeError(text, file=place[0], field=name)
    # A union reports every branch: the one that took the value's type and found fault inside or with its size is the
    # one that was meant.
    depth = max(len(entry["loc"]) for entry in details)
    values = [entry for entry in details if entry["type"].rpartition("_")[2] not in ("type", "parsing")] or [
        entry for entry in details if len(entry["loc"]) == depth
    ]
    if values[-1]["type"] == "missing":  # one error for each absent value of a list
        values = values[-1:]
    expected = " or ".join(dict.fromkeys(_expected(entry) for entry in values))
    text = f"{where(*place)}{short(name)}: expected {expected}, found {found(values[0]['input'])}{_hint(values[0])}"
    return RecipeError(text, file=place[0], field=name)


def _of_validator(name: str, text: str, places: Mapping[str, Place]) -> RecipeError:
    """What one of our own validators says of the section ``name``, or of the whole recipe ("")."""
    first = text.partition(" ")[0].rstrip(":")
    if not name:  # begins with a dotted field or a section
        name = first
    elif f"{name}.{first}" in places:  # begins with a field of the section
        name, text = f"{name}.{first}", f"{name}.{text}"
    else:
        text = f"{name}: {text}"
    place = _place(name, places)
    return RecipeError(f"{where(*place)}{text.rstrip('.')}.", file=place[0], field=name)


def _hint(details: ErrorDetails) -> str:
    value = details["input"]
    if details["type"] == "literal_error" and isinstance(value, str):
        choices = str(details.get("ctx", {})["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
        near = difflib.get_close_matches(value, choices, 1)
        return f"; did you mean {near[0]}?" if near else "."
    if details["type"] == "string_type" and isinstance(value, (int, float)):
        return "; put it in quotes."
    return "."


def _names(name: str, schema: type[BaseModel]) -> tuple[list[str], list[str]]:
    """The known fields beside ``name``, dotted, and those of all other sections."""
    sections = {
        key: list(field.annotation.model_fields)
        for key, field in Recipe.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    section, dot, _ = name.partition(".")
    if section == "encoder" and dot:
        sections["encoder"] = [*sections["encoder"], *schema.model_fields]
    dotted = {key: [f"{key}.{field}" for field in fields] for key, fields in sections.items()}
    known = dotted.get(section, []) if dot else [*Recipe.model_fields]
    return known, [field for key, fields in dotted.items() if not dot or key != section for field in fields]


def _expected(details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return words.format(context[key])
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "missing":  # of a list of fixed length
        return f"at least {int(details['loc'][-1]) + 1} values"
    if kind in ("too_short", "too_long"):
        return f"a list of {context.get('min_length') or context.get('max_length')}"
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
