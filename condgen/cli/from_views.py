"""What ``upscale`` and ``colorize`` share: pictures, what a model is shown of each, and its samples, on one sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from condgen.cli.drawing import drawn, figures
from condgen.cli.options import changed, conditions_of_images, free_path, picture_path, split_words, without_overrides
from condgen.cli.outcome import answer
from condgen.errors import ModelError, RecipeError, shown

if TYPE_CHECKING:
    from condgen.model import ConditionalModel
    from condgen.recipe import SampleSection

Images = Annotated[list[str], typer.Argument(metavar="IMAGE", help="Image files; also section.key=value.")]
Model = Annotated[
    str, typer.Option("--model", metavar="RUN", help="A run folder, a model folder, or the name of a run in ./runs.")
]
Count = Annotated[int, typer.Option("--count", metavar="N", min=1, max=100, help="Samples for each image.")]
Out = Annotated[
    str | None, typer.Option("--out", metavar="F.png", help="Default: a new name here.", show_default=False)
]

_DONE = {"upscale": "upscaled", "colorize": "colorized"}
_OTHERWISE = {
    "upscale": "sees no low resolution; give a model with encoder.type=low_resolution",
    "colorize": "sees no grey images; give a model with encoder.type=grey",
}


def draw_from_views(
    task: str,
    arguments: Sequence[str],
    label: Sequence[str] | None,
    load: Callable[[], ConditionalModel],
    *,
    run: str,
    count: int,
    seed: int | None,
    options: Callable[[SampleSection], dict[str, Any]],
    out: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """The command ``task``: a row for each image, with what the model is shown of it, samples, and at the end the image
    itself where it shows more than that.

    Args:
        arguments: images, overrides, words of the encoder.
        load: the model of ``run``.
        options: those of ``model.stream``, given the recipe's section ``sample``.

    Raises:
        RecipeError: no image, or a word that the encoder does not know.
        InputError: an image cannot be used.
        ModelError: the model was trained for something else.
    """
    words, rest = split_words(arguments, label, None)
    files, overrides = without_overrides(rest)
    if not files:
        raise RecipeError(f"There is no image to {task}; name a file.", field="IMAGE")
    path = None if out is None else picture_path(out, force)
    import numpy as np
    import torch

    from condgen.draw import displayable, save_png, sheet

    model = load()
    encoder, depth = model.encoder, model.info.bit_depth
    if encoder.task != task:
        raise ModelError(f"{shown(run)} {_OTHERWISE[task]}.", file=run, field="encoder.type")
    settings = changed(model.recipe, overrides, ["sample"]).sample
    given = [encoder.parse("image", file) for file in files]
    condition = conditions_of_images(model, words, given)
    seed = settings.seed if seed is None else seed
    drawing = options(settings)
    parts = drawn(model, condition, len(files), count, seed, tile=settings.tile, **drawing)
    images, log_probs = (torch.cat(part) for part in zip(*parts, strict=True))
    rows, originals = [], []
    for file, batch, samples in zip(
        files, given, displayable(images, depth).reshape(len(files), count, -1), strict=True
    ):
        image, view = batch["image"], encoder.view(batch)
        pictures = [samples.reshape(count, *image.shape[1:])]
        if view is not None:
            pictures.insert(0, displayable(view, depth))
        originals.append(view is None or not torch.equal(view, image))
        if originals[-1]:
            pictures.append(displayable(image, depth))
        rows.append((Path(file).name, np.concatenate(pictures)))
    path = path or free_path(f"{Path(files[0]).stem}-{_DONE[task]}", ".png")
    columns = ("input", *map(str, range(count)), *(["original"] if any(originals) else []))
    save_png(path, sheet(rows, columns=columns), force=force)
    result = {"file": str(path), "images": files, "original_known": originals}
    result |= figures(model, files, count, seed, log_probs.tolist(), drawing["guidance"])
    answer(result, f"{len(images)} samples of {len(files)} images: {shown(path)}", as_json)
