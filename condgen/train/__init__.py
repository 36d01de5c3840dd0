"""Training: ``condgen.train(...)`` in Python, one loop for every objective behind it.

run.py  from a recipe to a run      loop.py  the loop      state.py  what a checkpoint holds
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os

    from condgen.recipe import Overrides, Recipe


def train(
    recipe: str | os.PathLike[str] | Recipe,
    overrides: Overrides = (),
    *,
    out: str | os.PathLike[str] | None = None,
    device: str | None = None,
    init_from: str | os.PathLike[str] | None = None,
    quiet: bool | None = None,
) -> Path:
    """Trains a recipe, or goes on with a training that was interrupted; the run folder.

    Args:
        recipe: a name, a path, or a ``Recipe``.
        overrides: ``{"train.max_steps": 100}`` or ``["train.max_steps=100"]``.
        out: the run folder; default ``runs/NAME`` with the recipe's name.
        device: ``cpu``, ``cuda`` or ``cuda:N``; None: a GPU where there is one.
        init_from: run or model folder whose averaged weights a new run starts from.
        quiet: no progress.

    Raises:
        CondgenError: its subclasses say what can be cured; see ``condgen.train.run.run_training``.
    """
    from condgen.errors import RecipeError
    from condgen.recipe import Recipe, read_recipe, with_overrides
    from condgen.train.run import run_training

    if isinstance(recipe, Recipe):
        resolved = with_overrides(recipe, overrides)
        if out is None:
            raise RecipeError("A recipe without a name needs a run folder; give out=.", field="out")
    else:
        resolved = read_recipe(recipe, overrides)
        out = out or Path("runs") / Path(recipe).stem
    return run_training(resolved, out=out, device=device, init_from=init_from, quiet=quiet).run


class _Callable(ModuleType):
    """Importing ``condgen.train.run`` binds this package to the name ``condgen.train``: it is the function as well."""

    def __call__(self, *args: Any, **kwargs: Any) -> Path:
        return train(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
