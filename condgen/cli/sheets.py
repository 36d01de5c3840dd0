"""A sheet and, in a folder of its name beside it, the single pictures: what several commands write."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

from condgen.cli.options import picture_path
from condgen.errors import RecipeError, shown


def sheet_path(out: str | None, stem: str, ours: re.Pattern[str], *, force: bool, film: bool = False) -> Path:
    """Where the sheet goes, with room for the folder beside it, and for the film of a command that has one.

    Args:
        out: what ``--out`` names; None: a new name that begins with ``stem``, in the working directory.
        ours: what the folder's files are called.
        film: whether the command may write one; asked for or not, a film that is there would be taken for the sheet's.

    Raises:
        RecipeError: one of them is there already, or ``out`` is no name for a picture.
    """
    from condgen.files import check_folder

    if out is None:
        stem = stem[:120]
        stems = (stem if k == 1 else f"{stem}-{k}" for k in itertools.count(1))
        free = (stem for stem in stems if not any(os.path.lexists(stem + end) for end in ("", ".png", ".gif")))
        return Path(f"{next(free)}.png")
    path = picture_path(out, force)
    check_folder(path.with_suffix(""), ours, force=force)
    beside = path.with_suffix(".gif")
    if film and beside.is_dir() and not beside.is_symlink():
        raise RecipeError(f"{shown(beside)} is a folder, where the film belongs; choose another name.", file=beside)
    if film and os.path.lexists(beside) and not force:
        raise RecipeError(f"{shown(beside)} exists; choose another name or add --force.", file=beside)
    return path
