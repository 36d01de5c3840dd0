"""Models that ship with the package: model folders in ``condgen/pretrained``, found by name."""

from __future__ import annotations

from pathlib import Path

from condgen.store.config import CONFIG

_FOLDER = Path(__file__).resolve().parents[1] / "pretrained"


def shipped_names() -> tuple[str, ...]:
    """Their names, in order."""
    return tuple(sorted(path.parent.name for path in _FOLDER.glob(f"*/{CONFIG}")))


def shipped(name: str) -> Path | None:
    """The folder of the model ``name``; None where none of this name ships."""
    return _FOLDER / name if name in shipped_names() else None
