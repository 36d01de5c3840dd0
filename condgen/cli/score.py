"""``condgen score``: what single images cost, and where in them the bits are spent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from condgen.cli.options import (
    Debug,
    Device,
    Force,
    Json,
    Labels,
    Quiet,
    Run,
    Vectors,
    changed,
    conditions,
    conditions_of_images,
    device_of,
    picture_path,
    split_words,
    without_overrides,
)
from condgen.cli.outcome import answer
from condgen.errors import ModelError, RecipeError, shown

if TYPE_CHECKING:
    from condgen.condition import Condition
    from condgen.model import ConditionalModel


def score(
    run: Run,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE", help="Image files; also section.key=value.")],
    label: Labels = None,
    vector: Vectors = None,
    map_file: Annotated[
        str | None, typer.Option("--map", metavar="OUT.png", help="Draw where the bits are spent.", show_default=False)
    ] = None,
    force: Force = False,
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Score images under a model, and map where in them the bits are spent.

    One --label holds for all images; otherwise there is one for each, in order.
    """
    words, rest = split_words(images, label, vector)
    files, overrides = without_overrides(rest)
    if not files:
        raise RecipeError("There is no image to score; name a file.", field="IMAGE")
    out = None if map_file is None else picture_path(map_file, force)
    import torch

    from condgen.data import open_image
    from condgen.evaluate import score as scores_of
    from condgen.store import load_conditional

    model = load_conditional(run, device=device_of(device))
    data, info = changed(model.recipe, overrides, ["data"]).data, model.info
    opened = [
        open_image(file, info.channels, info.height, info.width, data.fit, data.background, info.bit_depth)
        for file in files
    ]
    pixels = torch.stack([image for image, _ in opened])
    scores = scores_of(model, pixels, _condition(model, words, pixels), files)
    rows: list[dict[str, Any]] = [
        {"file": file, "bits_per_dim": found.bits_per_dim, "bits": float(found.bits.sum()), "resized": resized}
        for file, found, (_, resized) in zip(files, scores, opened, strict=True)
    ]
    if out is not None:
        from condgen.draw import displayable, heat_maps, save_png

        seen = displayable(pixels, info.bit_depth)
        named = [f"{Path(row['file']).name}: {row['bits_per_dim']:.2f} bits/dim" for row in rows]
        maps = [(name, image, found.bits.numpy()) for name, image, found in zip(named, seen, scores, strict=True)]
        save_png(out, heat_maps(maps), force=force)
    size = f"resized to {info.width}x{info.height}"
    lines = [
        f"{row['bits_per_dim']:8.4f} bits/dim  {shown(row['file'])}{f' ({size})' if row['resized'] else ''}"
        for row in rows
    ]
    lines += [] if out is None else [f"map: {shown(out)}"]
    answer({"images": rows, "map": None if out is None else str(out)}, "\n".join(lines), as_json)


def _condition(model: ConditionalModel, words: list[tuple[str, str]], pixels: Any) -> Condition:
    """One condition for all images or one for each: of the words, or of the images where the encoder reads those."""
    from condgen.condition import Condition

    encoder = model.encoder
    if encoder.task == "complete":
        raise ModelError(
            "A model that completes images scores none without a hole; condgen evaluate measures it.",
            field="encoder.type",
        )
    if "image" in encoder.reads and all(word == "label" for word, _ in words):
        return conditions_of_images(model, words, [{"image": image[None]} for image in pixels])
    if not words and (encoder.vector_size or encoder.map_channels):
        known = " or ".join(f"--{word}" for word in encoder.words) or "conditions through Python"
        raise RecipeError(f"The model is conditional; say with {known} what the images show.", field="label")
    found = [condition for _, condition in conditions(model, words)]
    if len(found) not in (1, len(pixels)):
        raise RecipeError(
            f"There are {len(found)} conditions for {len(pixels)} images; give one, or one for each.", field=words[0][0]
        )
    return Condition.stack(found)
