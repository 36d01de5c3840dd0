"""Recipes: their schema, and reading them from files, names and overrides."""

from __future__ import annotations

from condgen.recipe.reading import (
    Overrides,
    encoder_options,
    read_recipe,
    recipe_description,
    recipe_from_dict,
    recipe_names,
    recipe_source,
    recipe_text,
    with_overrides,
)
from condgen.recipe.schema import DataSection, EncoderSection, ModelSection, Recipe, SampleSection, TrainSection

__all__ = [
    "DataSection",
    "EncoderSection",
    "ModelSection",
    "Overrides",
    "Recipe",
    "SampleSection",
    "TrainSection",
    "encoder_options",
    "read_recipe",
    "recipe_description",
    "recipe_from_dict",
    "recipe_names",
    "recipe_source",
    "recipe_text",
    "with_overrides",
]
