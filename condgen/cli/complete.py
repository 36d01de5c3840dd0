"""``condgen complete``: an image of which some pixels are known, drawn to its end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from condgen.cli.drawing import (
    Guidance,
    LogisticTemperature,
    MixtureTemperature,
    OneTemperature,
    Out,
    Sampler,
    asked,
    drawn,
    figures,
)
from condgen.cli.options import (
    Checkpoint,
    Debug,
    Device,
    Force,
    Json,
    Labels,
    ModelOption,
    Quiet,
    Seed,
    Vectors,
    Weights,
    changed,
    checkpoint_of,
    conditions,
    device_of,
    free_path,
    one_of,
    picture_path,
    split_words,
    without_overrides,
)
from condgen.cli.outcome import answer
from condgen.errors import InputError, RecipeError, shown

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_REGIONS = ("top", "bottom", "left", "right")


def complete(
    image: Annotated[list[str], typer.Argument(metavar="IMAGE", help="An image file; also section.key=value.")],
    model_name: ModelOption,
    mask: Annotated[
        str | None,
        typer.Option("--mask", metavar="M.png", help="Black: known and kept; white: drawn.", show_default=False),
    ] = None,
    rows: Annotated[
        int | None, typer.Option("--rows", metavar="N", min=1, help="The first N rows are known.", show_default=False)
    ] = None,
    region: Annotated[
        str | None,
        typer.Option("--region", metavar="HALF", help="The known half: top, bottom, left, right.", show_default=False),
    ] = None,
    label: Labels = None,
    vector: Vectors = None,
    count: Annotated[
        int, typer.Option("--count", metavar="N", min=1, max=100, help="Completions for each condition.")
    ] = 4,
    seed: Seed = None,
    temperature: OneTemperature = None,
    temperature_mixture: MixtureTemperature = None,
    temperature_logistic: LogisticTemperature = None,
    guidance: Guidance = None,
    sampler: Sampler = "auto",
    out: Out = None,
    force: Force = False,
    weights: Weights = "ema",
    checkpoint: Checkpoint = "last",
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw what is missing of an image, several times; known pixels are kept exactly.

    A model whose encoder is masked sees all known pixels, any other those that come before in raster order.
    The sheet shows, for each condition, the image, what is known of it, and its completions. A mask has the size of
    the model's images. Labels and other words as in condgen sample.
    """
    words, rest = split_words(image, label, vector)
    files, overrides = without_overrides(rest)
    if len(files) != 1:
        raise RecipeError(f"There are {len(files)} images to complete; name one.", field="IMAGE")
    if sum(choice is not None for choice in (mask, rows, region)) != 1:
        raise RecipeError("Say what is known by one of --mask, --rows and --region.", field="mask")
    half = None if region is None else one_of("region", region, _REGIONS)
    path = None if out is None else picture_path(out, force)
    which, step = one_of("weights", weights, ["ema", "raw"]), checkpoint_of(checkpoint)
    import torch

    from condgen.condition import Condition
    from condgen.data import open_image
    from condgen.draw import displayable
    from condgen.store import load_conditional

    model = load_conditional(model_name, weights=which, checkpoint=step, device=device_of(device))
    recipe, info = changed(model.recipe, overrides, ["data", "sample"]), model.info
    pixels, resized = open_image(
        files[0], info.channels, info.height, info.width, recipe.data.fit, recipe.data.background, info.bit_depth
    )
    known = _known(mask, rows, half, info.height, info.width)
    model.recipe = model.recipe.model_copy(update={"sample": recipe.sample})
    sees_all = model.encoder.task == "complete"
    named = conditions(model, words, {"image": pixels[None], "known": known[None]} if sees_all else None)
    seed = recipe.sample.seed if seed is None else seed
    drawing = asked(
        recipe.sample, temperature, guidance, sampler, mixture=temperature_mixture, logistic=temperature_logistic
    )
    parts = drawn(
        model,
        Condition.stack([h for _, h in named]),
        len(named),
        count,
        seed,
        known=pixels[None],
        mask=known,
        **drawing,
    )
    images, log_probs = (torch.cat(part) for part in zip(*parts, strict=True))
    path = path or free_path(f"{Path(files[0]).stem}-completed", ".png")
    names = [name for name, _ in named]
    _save(path, names, displayable(pixels[None], info.bit_depth), known, displayable(images, info.bit_depth), force)
    note = f"The model sees all {int(known.sum())} known pixels." if sees_all else _what_is_seen(known)
    result: dict[str, Any] = {"file": str(path), "resized": resized, "known": int(known.sum()), "note": note}
    result |= figures(model, names, count, seed, log_probs.tolist(), drawing["guidance"])
    size = f"\nThe image was resized to {info.width}x{info.height}." if resized else ""
    answer(result, f"{len(images)} completions: {shown(path)}{size}\n{note}", as_json)


def _known(mask: str | None, rows: int | None, region: str | None, height: int, width: int) -> Tensor:
    """bool (H, W).

    Raises:
        InputError: the mask cannot be used; also if all is known, or nothing.
    """
    import torch

    from condgen.data import open_mask

    if mask is not None:
        known, name = open_mask(mask, height, width), shown(mask)
    else:
        known = torch.zeros(height, width, dtype=torch.bool)
        if rows is not None:
            known[:rows], name = True, f"--rows {rows}"
        else:
            part = {
                "top": known[: height // 2],
                "bottom": known[math.ceil(height / 2) :],
                "left": known[:, : width // 2],
                "right": known[:, math.ceil(width / 2) :],
            }[region or ""]
            part[:] = True
            name = f"--region {region}"
    if bool(known.all()):
        raise InputError(f"{name} leaves nothing to draw of {width}x{height} pixels; give some (white).", field="mask")
    if not bool(known.any()):
        raise InputError(
            f"{name} keeps none of {width}x{height} pixels; give some (black), or use condgen sample.", field="mask"
        )
    return known


def _what_is_seen(known: Tensor) -> str:
    """The sentence about what a model that does not read the known pixels as its condition makes of them."""
    order = known.flatten().tolist()
    late = sum(order[order.index(False) :])
    which = f"{late} of {sum(order)} come after the first pixel drawn" if late else f"here all {sum(order)} do"
    return f"The model draws in raster order and sees only those known pixels that come earlier; {which}."


def _save(
    path: Path, names: list[str], original: np.ndarray, known: Tensor, completed: np.ndarray, force: bool
) -> None:
    import numpy as np

    from condgen.draw import blanked, save_png, sheet

    given = np.concatenate([original, blanked(original, known.numpy())])
    rows = completed.reshape(len(names), -1, *completed.shape[1:])
    shown_rows = [(name, np.concatenate([given, row])) for name, row in zip(names, rows, strict=True)]
    columns = ("image", "known", *(str(k) for k in range(rows.shape[1])))
    save_png(path, sheet(shown_rows, columns=columns), force=force)
