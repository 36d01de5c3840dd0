"""YAML as recipes use it: small, one document, no surprises.

Anchors, aliases, tags and duplicate keys are refused; so are large and deeply nested files. Of plain words only
``true``, ``false``, ``null``, ``~`` and numbers as YAML 1.2 and JSON write them are more than text: ``no`` stays
``no``, ``1:30`` is not 90, and ``1e-3`` is a number. The schema says what a text may then stand for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from condgen.errors import RecipeError, shown

LIMIT = 64 * 1024
"""Bytes of a recipe or of one override."""
_DEPTH = 20
_DIGITS = 400
"""Longest number: more is no number that a field takes, and Python refuses to read some of it."""

Lines = dict[tuple[str, ...], int]
"""The line on which each key stands, by the keys that lead to it."""

_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_BOOL = "tag:yaml.org,2002:bool"
_NULL = "tag:yaml.org,2002:null"
_WHOLE = "(?:0|[1-9][0-9]*)"  # 010 is text: eight to some readers of YAML, ten to others
_SIGNS = "-+0123456789"
_PATTERNS = {  # tag: what a plain word looks like, and its possible first characters ("" of the empty word)
    _NULL: (re.compile(r"(?:null|~|)\Z"), "n~"),
    _BOOL: (re.compile(r"(?:true|false)\Z"), "tf"),
    _INT: (re.compile(rf"[-+]?{_WHOLE}\Z"), _SIGNS),
    _FLOAT: (
        re.compile(rf"[-+]?(?:{_WHOLE}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z|[-+]?\.inf\Z|\.nan\Z"),
        _SIGNS + ".",
    ),
}


def where(source: str | None, line: int | None = None) -> str:
    """The beginning of a sentence about a place: ``fashion.yaml, line 7: ``, or nothing for the command line."""
    if source is None:
        return ""
    return f"{shown(source)}, line {line}: " if line else f"{shown(source)}: "


def short(text: object, limit: int = 60) -> str:
    """``text`` as it may be printed, cut to ``limit`` characters."""
    full = str(text)
    return shown(full if len(full) <= limit else full[: limit - 1] + "…")


class _Loader(yaml.SafeLoader):
    """The Python loader: the C one overflows its stack on nested input."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def __init__(self, text: str, source: str | None) -> None:
        super().__init__(text)
        self.source = source
        self.depth = 0

    def refuse(self, mark: Any, reason: str) -> RecipeError:
        return RecipeError(f"{where(self.source, mark.line + 1)}{reason}", file=self.source)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise self.refuse(event.start_mark, "anchors and aliases (& and *) are not allowed; write the value out.")
        if getattr(event, "tag", None) is not None:
            raise self.refuse(event.start_mark, "tags (!) are not allowed; write a plain value, or quote the text.")
        if self.depth == _DEPTH:
            raise self.refuse(event.start_mark, f"more than {_DEPTH} levels of nesting; a recipe has two or three.")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def plain(self, node: yaml.Node, path: tuple[str, ...], lines: Lines) -> Any:
        """The value of ``node``; the lines of the keys below it go into ``lines``."""
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(item, path, {}) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            mapping: dict[str, Any] = {}
            first: dict[str, int] = {}
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise self.refuse(key.start_mark, "a key must be a word, not a list or a section.")
                name, line = key.value, key.start_mark.line + 1
                if name in mapping:
                    reason = f"{short(name)} stands here and on line {first[name]}; keep one of them."
                    raise self.refuse(key.start_mark, reason)
                first[name] = lines[(*path, name)] = line
                mapping[name] = self.plain(value, (*path, name), lines)
            return mapping
        return self.scalar(node)

    def scalar(self, node: yaml.Node) -> Any:
        text = node.value
        if node.tag == _NULL:
            return None
        if node.tag == _BOOL:
            return text == "true"
        if node.tag in (_INT, _FLOAT):
            if len(text) > _DIGITS:
                raise self.refuse(node.start_mark, f"a number of {len(text)} digits is too long; shorten it.")
            return int(text) if node.tag == _INT else float(text.replace(".inf", "inf").replace(".nan", "nan"))
        return text


class _Dumper(yaml.SafeDumper):
    """Quotes every text that either our rules or YAML 1.1's would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, (_pattern, _first) in _PATTERNS.items():
    _Loader.add_implicit_resolver(_tag, _pattern, [*_first, ""])
    _Dumper.add_implicit_resolver(_tag, _pattern, [*_first, ""])
_Dumper.add_representer(
    str,  # unprintable characters and line breaks survive between double quotes alone
    lambda dumper, value: dumper.represent_scalar(
        "tag:yaml.org,2002:str", value, style=None if value.isprintable() else '"'
    ),
)
_Dumper.add_representer(
    list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)


def decoded(data: bytes, source: str) -> str:
    """The text of a recipe file, UTF-8 with or without a byte order mark.

    Raises:
        RecipeError: it is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecipeError(f"{where(source, line)}not UTF-8 text; save the file as UTF-8.", file=source) from error


def parse(text: str, source: str | None) -> tuple[Any, Lines]:
    """The one value that ``text`` holds, of dict, list, str, int, float, bool and None, and the lines of its keys.

    ``source`` names the file in errors; None: an override, which needs no name.

    Raises:
        RecipeError: the text is no YAML, or breaks one of the rules above.
    """
    if len(text) > LIMIT or len(text.encode("utf-8", "surrogatepass")) > LIMIT:
        raise RecipeError(f"{where(source)}more than {LIMIT // 1024} KiB of YAML; shorten it.", file=source)
    lines: Lines = {}
    try:
        loader = _Loader(text, source)
        node = loader.get_single_node()
        return (None if node is None else loader.plain(node, (), lines)), lines
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise RecipeError(
            f"{where(source, line)}the character U+{error.character:04X}, which YAML does not allow; remove it.",
            file=source,
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        several = "single document" in str(error.context)
        reason = "a second document (---)" if several else f"not valid YAML ({shown(error.problem)})"
        advice = "keep one" if several else "check its indentation (spaces, no tabs), colons and quotes"
        raise RecipeError(
            f"{where(source, mark.line + 1 if mark else None)}{reason}; {advice}.", file=source
        ) from error
    except RecursionError as error:  # the parser's own recursion, should it outrun our count of levels
        raise RecipeError(
            f"{where(source)}too deeply nested; a recipe has two or three levels.", file=source
        ) from error


def dump(value: Mapping[str, Any]) -> str:
    """YAML that ``parse`` reads back as ``value``: a line per key, lists on one line."""
    return yaml.dump(dict(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
