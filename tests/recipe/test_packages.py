"""Recipes that packages bring along, found by entry point: used, extended, missing, broken, claimed twice."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from condgen.errors import ModelError, RecipeError
from condgen.recipe import read_recipe, recipe_description, recipe_names, recipe_source
from condgen.recipe.packages import GROUP

TEXT = "# measured nowhere\ndescription: Mine\nextends: quickstart\ntrain:\n  batch_size: 3\n"

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes a package ``strange_recipes`` with files, and entry points (name, target, distribution)."""

    def made(*points: tuple[str, str, str], init: str = "", **files: str) -> None:
        folder = tmp_path / "site" / "strange_recipes"
        (folder / "data").mkdir(parents=True)
        (folder / "__init__.py").write_text(init)
        for name, text in files.items():
            (folder / "data" / f"{name}.yaml").write_text(text)
        monkeypatch.syspath_prepend(str(folder.parent))
        monkeypatch.delitem(sys.modules, "strange_recipes", raising=False)
        found = [SimpleNamespace(name=n, value=v, dist=SimpleNamespace(name=d)) for n, v, d in points]
        others = metadata.entry_points
        monkeypatch.setattr(metadata, "entry_points", lambda group: found if group == GROUP else others(group=group))

    return made


def test_a_package_s_recipe_is_as_good_as_condgen_s(install: Install, tmp_path: Path) -> None:
    install(("mine", "strange_recipes.data", "strange"), mine=TEXT)
    assert "mine" in recipe_names() and recipe_names() == sorted(recipe_names())
    assert recipe_source("mine") == TEXT and recipe_description("mine") == "Mine"
    recipe = read_recipe("mine", {"train.max_steps": 7})
    assert (recipe.train.batch_size, recipe.train.max_steps, recipe.data.source) == (3, 7, "portraits")
    (tmp_path / "further.yaml").write_text("extends: mine\ntrain:\n  max_steps: 9\n")
    assert read_recipe(tmp_path / "further.yaml").train.batch_size == 3
    with pytest.raises(RecipeError, match=r"^mine\.yaml, line 5: train\.batch_size"):  # named as the package's file is
        (tmp_path / "site" / "strange_recipes" / "data" / "mine.yaml").write_text(TEXT.replace(": 3", ": 0"))
        read_recipe("mine")
    with pytest.raises(RecipeError, match="did you mean mine"):
        read_recipe("mime")


def test_no_package_takes_the_name_of_one_of_condgen_s(install: Install) -> None:
    install(("quickstart", "strange_recipes.data", "strange"), quickstart=TEXT)
    assert recipe_names().count("quickstart") == 1
    assert read_recipe("quickstart").train.batch_size != 3


def test_a_listing_runs_nothing_of_a_package(install: Install) -> None:
    install(("mine", "strange_recipes.data", "strange"), init="raise RuntimeError('ran')", mine=TEXT)
    assert "mine" in recipe_names()
    read_recipe("quickstart")
    with pytest.raises(ModelError, match=r"^The recipe mine of strange cannot be found \(RuntimeError: ran\); mend"):
        read_recipe("mine")


@pytest.mark.parametrize("target", ["strange_recipes.data", "strange_recipes.elsewhere", "math"])
def test_a_file_that_is_not_there(install: Install, target: str) -> None:
    install(("mine", target, "strange"))
    with pytest.raises(ModelError, match=r"^The recipe mine of strange is not in its package \("):
        recipe_source("mine")


def test_two_owners_of_a_name_are_both_named(install: Install) -> None:
    points = [("mine", "strange_recipes.data", "two"), ("mine", "strange_recipes.other", "one")]
    install(*points, mine=TEXT)
    with pytest.raises(ModelError, match=r"^The recipe mine is claimed by one and two; uninstall one\.$"):
        read_recipe("mine")
