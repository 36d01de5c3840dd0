"""``condgen interpolate``: pictures on the way from one image to another, each row with noise of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from condgen.cli.drawing import Guidance, OneTemperature, asked, drawn
from condgen.cli.embed import check_pictures, embedding_images
from condgen.cli.options import (
    Checkpoint,
    Debug,
    Device,
    Force,
    Json,
    Labels,
    Quiet,
    Seed,
    Weights,
    changed,
    checkpoint_of,
    conditions_of_images,
    device_of,
    one_of,
    split_words,
    without_overrides,
)
from condgen.cli.outcome import answer
from condgen.cli.photos import Aligned, Box, Face, Sought
from condgen.cli.portraits import SHIPPED, Model, model_path
from condgen.cli.sheets import sheet_path
from condgen.errors import RecipeError, shown
from condgen.progress import warn

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

_LARGEST = 2048
_OURS = re.compile(r"\d+-\d+\.png")


def interpolate(
    image: Annotated[
        list[str], typer.Argument(metavar="IMAGE", help="Two image files, the ends; also section.key=value.")
    ],
    model_name: Model = None,
    steps: Annotated[
        int, typer.Option("--steps", metavar="N", min=2, help="Pictures of a row, both ends included.")
    ] = 9,
    rows: Annotated[int, typer.Option("--rows", metavar="N", min=1, help="Rows, each with noise of its own.")] = 4,
    curve: Annotated[
        str,
        typer.Option("--curve", metavar="lerp|slerp", help="A straight line, or the great circle of unit vectors."),
    ] = "lerp",
    label: Labels = None,
    face: Face = None,
    box: Box = None,
    aligned: Aligned = False,
    seed: Seed = None,
    temperature: OneTemperature = None,
    guidance: Guidance = None,
    gif: Annotated[bool, typer.Option("--gif", help="Write a film of all rows as well.")] = False,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="I.png", help="The sheet; default: a new name here.", show_default=False),
    ] = None,
    force: Force = False,
    weights: Weights = "ema",
    checkpoint: Checkpoint = "last",
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Walk from one image to another: a sheet with a row for each seed, and the pictures by themselves in a folder.

    Row k has the noise of sample k of the seed throughout, so that neighbours change smoothly; its ends are sample k of
    the first image and of the second. Pictures are I/ROW-STEP.png beside I.png, the film I.gif. Without --model: the
    model of condgen portraits that ships with condgen.
    """
    words, rest = split_words(image, label, None)
    files, overrides = without_overrides(rest)
    if len(files) != 2:
        raise RecipeError(f"There are {len(files)} images; name two, the ends of the walk.", field="IMAGE")
    one_of("curve", curve, ["lerp", "slerp"])
    if steps * rows > _LARGEST:
        raise RecipeError(
            f"{steps} steps in {rows} rows are {steps * rows:,} pictures, beyond the {_LARGEST:,} allowed; take fewer.",
            field="steps",
        )
    sheet = sheet_path(out, f"{Path(files[0]).stem}-{Path(files[1]).stem}", _OURS, force=force, film=True)
    which, step = one_of("weights", weights, ["ema", "raw"]), checkpoint_of(checkpoint)
    sought = Sought.of(face, box, aligned)
    check_pictures(files)
    import torch

    from condgen.draw import displayable
    from condgen.evaluate.smoothness import walk_distances
    from condgen.files import remove
    from condgen.store import load_conditional

    model = embedding_images(
        load_conditional(model_path(model_name), weights=which, checkpoint=step, device=device_of(device))
    )
    settings = changed(model.recipe, overrides, ["sample"]).sample
    given = [sought.read(model.encoder, file) for file in files]
    ends = conditions_of_images(model, words, given)
    if all(torch.equal(part[0], part[1]) for part in ends.parts):
        warn("both ends have the same condition, so the pictures of a row are all alike")
    walk = ends[0].interpolate(ends[1], steps, curve)
    options = asked(settings, temperature, guidance)
    seed = settings.seed if seed is None else seed
    images = torch.cat([tile for tile, _ in drawn(model, walk, steps, rows, seed, **options)])
    pictures = displayable(images, model.info.bit_depth)  # (steps * rows, C, H, W), grouped by condition
    pictures = pictures.reshape(steps, rows, *pictures.shape[1:]).swapaxes(0, 1)
    along, across = walk_distances(pictures)
    if not gif:
        remove(sheet.with_suffix(".gif"))  # of the sheet that --force replaces
    written = _save(sheet, pictures, files, given, model.info.bit_depth, force)
    film = _save_film(sheet.with_suffix(".gif"), pictures, force) if gif else None
    result = {
        "sheet": str(sheet),
        "files": written,
        "gif": film,
        "model": SHIPPED if model_name is None else model_name,
        "steps": steps,
        "rows": rows,
        "seed": seed,
        "curve": curve,
        "guidance": options["guidance"],
        "smoothness": {"neighbours": along, "rows": across},
    }
    beside = "" if across is None else f", two rows by {across:.2f}"
    text = f"{steps} steps in {rows} rows: {shown(sheet)}\nNeighbours differ by {along:.2f} of 255{beside}."
    answer(result, text + (f"\nfilm: {shown(film)}" if film else ""), as_json)


def _save(
    sheet: Path, pictures: np.ndarray, files: list[str], given: list[dict[str, Tensor]], bit_depth: int, force: bool
) -> list[str]:
    """Writes the sheet and the single pictures, (rows, steps, C, H, W); the names of the latter, row by row."""
    import numpy as np

    from condgen import draw
    from condgen.files import write_folder

    rows, steps = pictures.shape[:2]
    folder = sheet.with_suffix("")
    wide = len(str(steps - 1))
    names = [f"{row}-{step:0{wide}d}.png" for row in range(rows) for step in range(steps)]
    flat = pictures.reshape(-1, *pictures.shape[2:])
    write_folder(folder, zip(names, map(draw.png, flat), strict=True), _OURS, force=force)
    originals = [draw.displayable(batch["image"], bit_depth) for batch in given]
    columns = [f"{step / (steps - 1):.3g}" for step in range(steps)] if steps <= 17 else []
    lines = [("", row) for row in pictures]
    if all(original.shape[1:] == pictures.shape[2:] for original in originals):
        paper = np.full_like(originals[0], 255)
        sides = [originals, *[[paper, paper]] * (rows - 1)]
        lines = [("", np.concatenate([a, row, b])) for (a, b), row in zip(sides, pictures, strict=True)]
        columns = [Path(files[0]).name, *columns, Path(files[1]).name] if columns else []
    draw.save_png(sheet, draw.sheet(lines, columns=columns), force=force)
    return [str(folder / name) for name in names]


def _save_film(path: Path, pictures: np.ndarray, force: bool) -> str:
    from condgen import draw

    columns = min(pictures.shape[0], 4)
    draw.save_gif(path, [draw.grid(pictures[:, step], columns) for step in range(pictures.shape[1])], force=force)
    return str(path)
