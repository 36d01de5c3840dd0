"""``condgen sample``: a sheet of new images, a row for each condition."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from condgen.cli.options import (
    Checkpoint,
    Debug,
    Device,
    Force,
    Json,
    Labels,
    Overrides,
    Quiet,
    Run,
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
)
from condgen.cli.outcome import answer
from condgen.errors import shown
from condgen.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from condgen.condition import Condition
    from condgen.model import ConditionalModel


def sample(
    run: Run,
    overrides: Overrides = None,
    label: Labels = None,
    vector: Vectors = None,
    count: Annotated[
        int | None,
        typer.Option("--count", metavar="N", min=1, max=10_000, help="Images of each condition.", show_default=False),
    ] = None,
    seed: Seed = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature", metavar="T", help="Below 1: less varied; default: the recipe's.", show_default=False
        ),
    ] = None,
    sampler: Annotated[str, typer.Option("--sampler", metavar="NAME", help="auto or naive.")] = "auto",
    out: Annotated[
        str | None, typer.Option("--out", metavar="F.png", help="Default: a new name here.", show_default=False)
    ] = None,
    force: Force = False,
    weights: Weights = "ema",
    checkpoint: Checkpoint = "last",
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw new images into one PNG, a row for each condition.

    Without --label or --vector: a row for each of the encoder's own examples. Words of other encoders are options too:
    --WORD VALUE. The same seed gives image k of every condition the same noise.
    """
    words, rest = split_words(overrides, label, vector)
    path = None if out is None else picture_path(out, force)
    which, step = one_of("weights", weights, ["ema", "raw"]), checkpoint_of(checkpoint)
    from condgen.store import load

    model = load(run, weights=which, checkpoint=step, device=device_of(device))
    settings = changed(model.recipe, rest, ["sample"]).sample
    model.recipe = model.recipe.model_copy(update={"sample": settings})
    rows = conditions(model, words)
    count = count or max(1 if len(rows) == 1 else 2, math.ceil((settings.count or 16) / len(rows)))
    seed = settings.seed if seed is None else seed
    images = _drawn(model, rows, count, seed, temperature or settings.temperature, sampler, settings.tile)
    path = path or free_path(f"{Path(run).name or 'model'}-samples", ".png")
    _save(path, model, [name for name, _ in rows], images, force)
    result = {
        "file": str(path),
        "labels": [name for name, _ in rows],
        "count": count,
        "seeds": [[seed, k] for k in range(count)],
        "bits_per_dim": _bits(model, rows, images),
    }
    answer(result, f"{len(images)} images: {shown(path)}", as_json)


def _drawn(
    model: ConditionalModel,
    rows: list[tuple[str, Condition]],
    count: int,
    seed: int,
    temperature: float,
    sampler: str,
    tile: int,
) -> Tensor:
    """uint8 (rows * count, C, H, W), row by row."""
    from condgen.condition import Condition

    with Progress("sampling", None, "pixels") as progress:

        def advance(done: int, total: int) -> None:
            progress.total = total
            progress.advance()

        return model.sample(
            Condition.stack([condition for _, condition in rows]),
            count,
            seed,
            temperature=temperature,
            sampler=sampler,
            tile=tile,
            progress=advance,
        )


def _save(path: Path, model: ConditionalModel, names: list[str], images: Tensor, force: bool) -> None:
    from condgen.draw import displayable, grid, save_png, sheet

    pictures = displayable(images, model.info.bit_depth)
    if names == [""]:
        save_png(path, grid(pictures), force=force)
    else:
        parts = pictures.reshape(len(names), -1, *pictures.shape[1:])
        save_png(path, sheet(list(zip(names, parts, strict=True))), force=force)


def _bits(model: ConditionalModel, rows: list[tuple[str, Condition]], images: Tensor) -> list[list[float]]:
    """bits/dim of every image under the condition it was drawn with, row by row."""
    from condgen.evaluate import score

    parts = images.reshape(len(rows), -1, *images.shape[1:])
    return [
        [found.bits_per_dim for found in score(model, part, condition)]
        for part, (_, condition) in zip(parts, rows, strict=True)
    ]
