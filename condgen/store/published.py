"""``import_weights``: published weights of PixelCNN++ become a condgen model; its sizes follow from their shapes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condgen.condition import DataInfo
from condgen.errors import ModelError, RecipeError, shown
from condgen.model import ConditionalModel
from condgen.recipe import Recipe, recipe_from_dict
from condgen.recipe.build import build_model
from condgen.store.foreign import ForeignWeights, read_foreign
from condgen.store.layouts import Entry, norms, original_entries, per_output, port_entries
from condgen.store.models import check_free, save_model
from condgen.store.sizes import Sizes, check_sizes, original_sizes, port_sizes
from condgen.store.tensors import check_finite

AVERAGE = "/ExponentialMovingAverage"
"""What the original's checkpoints append to a variable's name for its Polyak average: the published weights."""
NONLINEARITIES = {2: ("concat_elu",), 1: ("elu", "relu")}
"""By the factor in which they widen their input; the first one is taken where nothing else is said."""
_MOST_PIXELS = 1024


def import_weights(
    source: str | Path,
    folder: str | Path,
    *,
    nonlinearity: str | None = None,
    image_size: tuple[int, int] | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Makes a model folder out of the weights at ``source``; returns what was found out, JSON types only.

    Args:
        source: see ``read_foreign``.
        folder: the model folder, which must not exist.
        nonlinearity, image_size: see ``model_of``.
        force: replace a model folder that lies there.

    Raises:
        As ``read_foreign``, ``model_of`` and ``save_model``.
    """
    if not os.fspath(folder):  # as a path it would be the working directory
        raise RecipeError("--out: the name is empty; name the model folder to make.", field="out")
    source, folder = Path(source), Path(folder)
    check_free(folder, force)  # before the work, not after it
    model, recipe, facts = model_of(read_foreign(source), nonlinearity=nonlinearity, image_size=image_size)
    save_model(model, recipe, folder, _readme(source, facts), force=force)
    return {"model": str(folder), **facts}


def model_of(
    found: ForeignWeights, *, nonlinearity: str | None = None, image_size: tuple[int, int] | None = None
) -> tuple[ConditionalModel, Recipe, dict[str, Any]]:
    """The model that ``found`` are the weights of, its recipe, and what was found out, JSON types only.

    Args:
        nonlinearity: of the resnets; ``elu`` and ``relu`` cannot be told from shapes. Default: what the file says,
            else ``concat_elu`` where widths are doubled and ``elu`` where not.
        image_size: (height, width); default: that of images in the file, else 32 x 32. No weight depends on it.

    Raises:
        ModelError: the weights are no PixelCNN++'s; an entry is missing, too many, of another shape, or holds NaN.
        RecipeError: the nonlinearity or the image size is impossible for these weights.
    """
    names, averaged = _averaged(found)
    shapes = {name: found.shapes[there] for name, there in names.items()}
    program, sizes_of, entries_of = _program(shapes, found)
    sizes = sizes_of(shapes, found)
    check_sizes(sizes, found)
    chosen = _nonlinearity(nonlinearity, sizes, found)
    height, width = _image_size(image_size, found)
    recipe = _recipe(sizes, chosen, height, width, program)
    info = DataInfo(sizes.channels, height, width, classes=tuple(map(str, range(sizes.classes))))
    with torch.device("meta"):  # the shapes first: a file may claim a model that fits in no memory
        entries = entries_of(build_model(recipe, info).core)
    _check(shapes, entries, found)
    of_file = found.read(list(names.values()))
    tensors = {name: of_file[there] for name, there in names.items()}
    _check_numbers(tensors, entries, found)
    model = build_model(recipe, info)
    with torch.no_grad():
        fitting = per_output(tensors) if entries_of is port_entries else tensors
        for name, entry in entries_of(model.core).items():
            entry.place.copy_(fitting[name].reshape(entry.place.shape))
    return model.eval(), recipe, {
        "program": program,
        "averaged": averaged,
        "core": recipe.model.core,
        "filters": sizes.filters,
        "resnets": sizes.resnets,
        "mixtures": sizes.mixtures,
        "nonlinearity": chosen,
        "classes": sizes.classes,
        "channels": sizes.channels,
        "height": height,
        "width": width,
        "parameters": sum(weight.numel() for weight in model.parameters()),
    }  # fmt: skip


def _averaged(found: ForeignWeights) -> tuple[dict[str, str], bool]:
    """Names of weights and their names in the file: of averages where the file has them; and whether it has."""
    averages = {name.removesuffix(AVERAGE): name for name in found.shapes if name.endswith(AVERAGE)}
    raw = {name: name for name in found.shapes if not name.endswith(AVERAGE)}
    if averages and raw and set(averages) != set(raw):
        odd = min(set(averages) ^ set(raw))
        raise ModelError(
            f"{shown(found.path)} has averages of some variables and not of others, like {shown(odd)[:200]}; save all "
            f"averages (...{AVERAGE}), or none.",
            file=found.path,
        )
    return averages or raw, bool(averages)


def _program(
    shapes: Mapping[str, object], found: ForeignWeights
) -> tuple[str, Callable[[Mapping[str, tuple[int, ...]], ForeignWeights], Sizes], Callable[[Any], dict[str, Entry]]]:
    """Who wrote the weights, how their sizes are found, and the entries they consist of."""
    if any(name.startswith("model/") for name in shapes):
        return "openai/pixel-cnn", original_sizes, original_entries
    if any(name.startswith(("u_init.", "ul_init.", "up_layers.", "down_layers.")) for name in shapes):
        return "pclucas14/pixel-cnn-pp", port_sizes, port_entries
    first = f" (its first name is {shown(next(iter(shapes)))[:200]})" if shapes else ""
    raise ModelError(
        f"{shown(found.path)} holds no weights of openai/pixel-cnn or pclucas14/pixel-cnn-pp{first}; give a file of "
        "one of these.",
        file=found.path,
    )


def _nonlinearity(asked: str | None, sizes: Sizes, found: ForeignWeights) -> str:
    possible = NONLINEARITIES[sizes.widening]
    if asked is not None and asked not in possible:
        known = asked in (name for names in NONLINEARITIES.values() for name in names)
        why = (
            f"the widths in {shown(found.path)} fit {' or '.join(possible)}" if known else "there is none of this name"
        )
        choices = possible if known else tuple(name for names in NONLINEARITIES.values() for name in names)
        raise RecipeError(
            f"--nonlinearity {shown(asked)[:60]}: {why}; choose {' or '.join(choices)}.", field="nonlinearity"
        )
    if asked or not found.nonlinearity:
        return asked or possible[0]
    if found.nonlinearity not in possible:
        raise ModelError(
            f"{shown(found.path)} says {shown(found.nonlinearity)[:60]} (in config), but its widths fit "
            f"{' or '.join(possible)}; give --nonlinearity {possible[0]} if the weights are right.",
            file=found.path,
            field="nonlinearity",
        )
    return found.nonlinearity


def _image_size(asked: tuple[int, int] | None, found: ForeignWeights) -> tuple[int, int]:
    """(height, width): as asked, else of the file's images, else 32 x 32."""
    height, width = asked or found.image_size or (32, 32)
    if all(side % 4 == 0 and 4 <= side <= _MOST_PIXELS for side in (height, width)):
        return height, width
    fault = f"these models have two halvings, which take multiples of 4 up to {_MOST_PIXELS:,}"
    if asked:
        raise RecipeError(
            f"--image-size: {height}x{width} pixels are impossible: {fault}; choose other sides.", field="image-size"
        )
    raise ModelError(
        f"{shown(found.path)} speaks of images of {height}x{width} pixels, and {fault}; give --image-size.",
        file=found.path,
        field="image-size",
    )


def _recipe(sizes: Sizes, nonlinearity: str, height: int, width: int, program: str) -> Recipe:
    encoder = {"type": "labels", "code": "one_hot"} if sizes.classes else {"type": "none"}
    values = {
        "description": f"PixelCNN++, weights of {program}",
        # all of a set without splits is test: nothing of it was trained on here
        "data": {
            "source": "npz",
            "image_size": [height, width],
            "channels": sizes.channels,
            "validation": 0.0,
            "test": 1.0,
        },
        "encoder": encoder,
        "model": {
            "core": "pixelcnn++",
            "filters": sizes.filters,
            "resnets": sizes.resnets,
            "nonlinearity": nonlinearity,
            "likelihood": "logistic_mixture",
            "mixtures": sizes.mixtures,
            "vector_width": max(64, sizes.classes),  # each resnet has weights for every class
        },
        "train": {"max_steps": 1},  # a recipe has an end; these weights were trained elsewhere
    }
    return recipe_from_dict(values, "--image-size")


def _check(shapes: Mapping[str, tuple[int, ...]], entries: Mapping[str, Entry], found: ForeignWeights) -> None:
    """Raises:
    ModelError: an entry is missing, unknown, or has another shape; the sentence names the first and counts them.
    """
    where = shown(found.path)
    missing = [name for name in entries if name not in shapes]
    if missing:
        raise ModelError(
            f"{where} lacks {missing[0]} ({len(missing)} of {len(entries)} entries are missing); save all of the "
            "model's weights.",
            file=found.path,
            field=missing[0],
        )
    extra = sorted(name for name in shapes if name not in entries)
    if extra:
        raise ModelError(
            f"{where} holds {shown(extra[0])[:200]}, which a PixelCNN++ of this size does not have ({len(extra)} "
            f"{'entry' if len(extra) == 1 else 'entries'} too many); leave out what is no weight of it.",
            file=found.path,
            field=shown(extra[0])[:200],
        )
    odd = [name for name, entry in entries.items() if shapes[name] != entry.shape]
    if odd:
        raise ModelError(
            f"{where}: {odd[0]} is {shapes[odd[0]]}, but by the other sizes {entries[odd[0]].shape} "
            f"({len(odd)} of {len(entries)} entries do not fit); give the weights of one whole model.",
            file=found.path,
            field=odd[0],
        )


def _check_numbers(tensors: Mapping[str, Tensor], entries: Mapping[str, Entry], found: ForeignWeights) -> None:
    """Raises:
    ModelError: a number is not finite or too large for fp32; a V has a slice whose norm, by which its program divides,
        is zero or too large.
    """
    check_finite(tensors, found.path)
    for name, entry in entries.items():
        if not bool(torch.isfinite(tensors[name].float()).all()):
            raise ModelError(
                f"{shown(found.path)}: {name} holds numbers that do not fit fp32; give weights that work in it.",
                file=found.path,
                field=name,
            )
        if entry.normalised is None:
            continue
        norm = norms(tensors[name], entry.normalised)
        bad = (~((norm > 0) & norm.isfinite())).nonzero()
        if len(bad):
            row = int(bad[0])
            raise ModelError(
                f"{shown(found.path)}: {name} has the norm {float(norm[row]):g} in channel {row} ({len(bad)} of "
                f"{len(norm)} are such), and weights are divided by it; give weights that were initialised.",
                file=found.path,
                field=name,
            )


def _readme(source: Path, facts: Mapping[str, Any]) -> str:
    kind = "averaged weights" if facts["averaged"] else "weights"
    classes = f", {facts['classes']} classes" if facts["classes"] else ""
    return f"""# PixelCNN++, imported

The {kind} of {facts["program"]} in `{shown(source.name)}`: {facts["resnets"]} resnets a block,
{facts["filters"]} filters, {facts["mixtures"]} mixture components, {facts["nonlinearity"]}{classes};
{facts["parameters"]:,} parameters.

    condgen evaluate MODEL data.source=npz data.root=IMAGES.npz model.likelihood_rule=classic train.precision=fp64
    condgen sample MODEL
"""
