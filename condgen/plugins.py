"""Encoders by name: those of this process first, then the entry points of the group ``condgen.encoders``.

Nothing is imported before it is asked for, and a plug-in that fails to import spoils only itself.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib import metadata

from condgen.condition import Encoder
from condgen.errors import ModelError, RecipeError, shown

GROUP = "condgen.encoders"
_registered: dict[str, type[Encoder]] = {}


def register_encoder(name: str) -> Callable[[type[Encoder]], type[Encoder]]:
    """Class decorator: makes an encoder of this process known as ``encoder.type: NAME``.

    Models trained with it load only where it is registered again; a package with an entry point has no such limit.
    """

    def register(encoder: type[Encoder]) -> type[Encoder]:
        _registered[name] = encoder
        return encoder

    return register


def _entry_points() -> dict[str, list[metadata.EntryPoint]]:
    found: dict[str, list[metadata.EntryPoint]] = {}
    for point in metadata.entry_points(group=GROUP):
        # an editable install can list one distribution twice: the same target is the same encoder
        if point.value not in [other.value for other in found.setdefault(point.name, [])]:
            found[point.name].append(point)
    return found


def encoder_names() -> list[str]:
    """Every name that ``encoder.type`` may take here, sorted."""
    return sorted(set(_entry_points()) | set(_registered))


def _owner(point: metadata.EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def package_of(name: str) -> tuple[str, str] | None:
    """Name and version of the distribution that brings the encoder ``name``; None for one of this process."""
    points = [] if name in _registered else _entry_points().get(name, [])
    dist = points[0].dist if len(points) == 1 else None
    return None if dist is None else (dist.name, dist.version)


def find_encoder(name: str) -> type[Encoder]:
    """The encoder class called ``name``.

    Raises:
        RecipeError: no such encoder is installed (the sentence names the nearest).
        ModelError: it is installed but cannot be imported, or two distributions claim the name.
    """
    if name in _registered:
        return _registered[name]
    points = _entry_points().get(name, [])
    if not points:
        near = difflib.get_close_matches(name, encoder_names(), 1)
        hint = f"known here: {', '.join(encoder_names())}; pip install the package that brings it."
        if near:
            hint = f"did you mean {near[0]!r}, or is there a package to pip install?"
        raise RecipeError(f"encoder.type: no encoder {shown(name)!r} is installed; {hint}", field="encoder.type")
    if len(points) > 1:
        owners = " and ".join(sorted(_owner(point) for point in points))
        raise ModelError(f"encoder.type: {name!r} is claimed by {owners}; uninstall one.", field="encoder.type")
    try:
        loaded = points[0].load()
    except (Exception, SystemExit) as error:  # a stranger's module may raise anything at import
        reason = shown(f"{type(error).__name__}: {error}")
        raise ModelError(
            f"encoder.type: {name!r} of {_owner(points[0])} cannot be imported ({reason}); mend or uninstall it.",
            field="encoder.type",
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Encoder)):
        raise ModelError(
            f"encoder.type: {name!r} of {_owner(points[0])} is not a subclass of condgen.Encoder.", field="encoder.type"
        )
    return loaded


def describe_encoders() -> list[dict[str, str]]:
    """One row per encoder: name, where it comes from, its first line of documentation or why it is broken."""
    rows = []
    points = _entry_points()
    for name in encoder_names():
        source = "this process" if name in _registered else ", ".join(_owner(point) for point in points[name])
        try:
            summary, error = (find_encoder(name).__doc__ or "").strip().split("\n")[0], ""
        except (RecipeError, ModelError) as broken:
            summary, error = "", broken.message
        rows.append({"name": name, "source": source, "summary": summary, "error": error})
    return rows
