"""``condgen portraits``: new portraits of the person in one photograph, and how like that person they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from condgen.cli.drawing import Guidance, OneTemperature, asked, drawn
from condgen.cli.embed import check_pictures
from condgen.cli.options import (
    Checkpoint,
    Debug,
    Device,
    Force,
    Json,
    Overrides,
    Quiet,
    Seed,
    Weights,
    changed,
    checkpoint_of,
    conditions_of_images,
    device_of,
    one_of,
)
from condgen.cli.outcome import answer
from condgen.cli.photos import Aligned, Box, Face, Sought
from condgen.cli.sheets import sheet_path
from condgen.errors import RecipeError, shown

if TYPE_CHECKING:
    import numpy as np

SHIPPED = "portraits"
"""The model that is taken where none is named."""
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="RUN",
        help="A run or model folder, or its name; default: the model that ships with condgen.",
        show_default=False,
    ),
]
_OURS = re.compile(r"\d+\.png")
_MOST_ACROSS = 8


def portraits(
    overrides: Overrides = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="FILE", help="A photograph with a face.", show_default=False)
    ] = None,
    model_name: Model = None,
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, max=1024, help="Portraits.")] = 16,
    face: Face = None,
    box: Box = None,
    aligned: Aligned = False,
    seed: Seed = None,
    temperature: OneTemperature = None,
    guidance: Guidance = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="P.png", help="The sheet; default: a new name here.", show_default=False),
    ] = None,
    force: Force = False,
    weights: Weights = "ema",
    checkpoint: Checkpoint = "last",
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw new portraits of the person in a photograph: a sheet, and the pictures by themselves in a folder.

    The face is found, brought to its place and embedded; portraits are drawn given that. Their likeness, to the source
    and to the average stranger, is the cosine of the model's own embeddings. Without --model: the model that ships with
    condgen, which has seen drawn portraits alone. Pictures are P/K.png beside P.png, which has the source at the left.
    """
    if source is None:
        raise RecipeError("There is no photograph; name one by --source FILE.", field="source")
    sheet = sheet_path(out, f"{Path(source).stem}-portraits", _OURS, force=force)
    which, step = one_of("weights", weights, ["ema", "raw"]), checkpoint_of(checkpoint)
    sought = Sought.of(face, box, aligned)
    check_pictures([source])
    import torch

    from condgen.draw import displayable
    from condgen.evaluate.likeness import check_faces, identities, likeness, strangers
    from condgen.store import load_conditional

    model = load_conditional(model_path(model_name), weights=which, checkpoint=step, device=device_of(device))
    check_faces(model)
    settings = changed(model.recipe, overrides, ["sample"]).sample
    given = sought.read(model.encoder, source)
    person = identities(model, given["image"])
    options = asked(settings, temperature, guidance)
    seed = settings.seed if seed is None else seed
    condition = conditions_of_images(model, [], [given])
    images = torch.cat([tile for tile, _ in drawn(model, condition, 1, count, seed, **options)])
    found = identities(model, images)
    others, who = strangers(model)
    similarities = likeness(found, person).tolist()
    strange = likeness(found, others).tolist()
    depth = model.info.bit_depth
    written = _save(sheet, displayable(given["image"], depth), displayable(images, depth), force)
    name = SHIPPED if model_name is None else model_name
    result = {
        "sheet": str(sheet),
        "files": written,
        "similarities": similarities,
        "stranger_similarity": sum(strange) / count,
        "stranger_similarities": strange,
        "strangers": who,
        "model": name,
        "trained_on": trained_on(model),
        "seed": seed,
        "temperature": options["temperature"][0],
        "guidance": options["guidance"],
    }
    lines = [f"{file}: {own:.2f}, {other:.2f}" for file, own, other in zip(written, similarities, strange, strict=True)]
    text = (
        f"{count} portraits: {shown(sheet)}\n"
        f"Model {shown(name)}, trained on {result['trained_on']}.\n"
        "Likeness to the source, and to the average stranger "
        f"({who}): {sum(similarities) / count:.2f}, {sum(strange) / count:.2f} on average\n"
        + "\n".join(map(shown, lines))
    )
    answer(result, text, as_json)


def model_path(name: str | None) -> str | Path:
    """What ``--model`` names; without it always the shipped model, whatever runs there are.

    Raises:
        ModelError: the installation lacks it.
    """
    if name is not None:
        return name
    from condgen.errors import ModelError
    from condgen.store.shipped import shipped

    folder = shipped(SHIPPED)
    if folder is None:
        raise ModelError(
            f"The model {SHIPPED} is missing from this installation; name one by --model RUN.", field="model"
        )
    return folder


def trained_on(model: Any) -> str:
    """In words what a model has seen."""
    source = model.recipe.data.source
    return "drawn portraits alone, and never on a photograph" if source == "portraits" else f"images ({source})"


def _save(sheet: Path, source: np.ndarray, pictures: np.ndarray, force: bool) -> list[str]:
    """Writes the sheet and the single pictures, (N, C, H, W); the names of the latter."""
    import numpy as np

    from condgen import draw
    from condgen.files import write_folder

    folder, count = sheet.with_suffix(""), len(pictures)
    wide = len(str(count - 1))
    names = [f"{k:0{wide}d}.png" for k in range(count)]
    write_folder(folder, zip(names, map(draw.png, pictures), strict=True), _OURS, force=force)
    paper = np.full_like(source, 255)
    rows = [pictures[start : start + _MOST_ACROSS] for start in range(0, count, _MOST_ACROSS)]
    lines = [("", np.concatenate([paper if k else source, row])) for k, row in enumerate(rows)]
    draw.save_png(sheet, draw.sheet(lines, columns=["source"]), force=force)
    return [str(folder / name) for name in names]
