"""A sheet and, in a folder of its name beside it, the single pictures: what several commands write."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

from condgen.cli.options import picture_path
from condgen.errors import RecipeError, shown


def sheet_path(out: str | None, stem: str, ours: re.Pattern[str], *, force: bool, film: bool = False) -> Path:
    """Where the sheet goes, with room for the folder beside it, and for the film where there is to be one.

    Args:
        out: what ``--out`` names; None: a new name that begins with ``stem``, in the working directory.
        ours: what the folder's files are called.

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
    if film and os.path.lexists(path.with_suffix(".gif")) and not force:
        raise RecipeError(f"{shown(path.with_suffix('.gif'))} exists; choose another name or add --force.", file=path)
    return path
