"""``condgen import``: published weights of PixelCNN++ become a model folder."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from condgen.cli.options import Debug, Force, Json, Quiet
from condgen.cli.outcome import answer
from condgen.errors import RecipeError, shown


def import_(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="An .npz, .pth or .safetensors file, or a TensorFlow checkpoint.")
    ],
    out: Annotated[str, typer.Option("--out", metavar="MODEL", help="The model folder to make.")],
    nonlinearity: Annotated[
        str | None,
        typer.Option(
            "--nonlinearity",
            metavar="NAME",
            help="concat_elu, elu or relu; default: by the widths, elu before relu.",
            show_default=False,
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            "--image-size",
            metavar="N|HxW",
            help="Height and width; default: of images in FILE, else 32.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a condgen model of published PixelCNN++ weights.

    Reads the original's variables (an .npz, or its TensorFlow checkpoint) and the state dict of its PyTorch port; sizes
    follow from their shapes. Nothing in a file is executed.
    """
    size = None if image_size is None else _size(image_size)
    from condgen.store.published import import_weights

    found = import_weights(file, out, nonlinearity=nonlinearity, image_size=size, force=force)
    kind = "averaged weights" if found["averaged"] else "weights"
    text = (
        f"{shown(out)}: {kind} of {found['program']}, {found['parameters']:,} parameters\n"
        f"  {found['resnets']} resnets a block, {found['filters']} filters, {found['mixtures']} mixture components, "
        f"{found['nonlinearity']}, {found['classes'] or 'no'} classes; "
        f"{found['height']}x{found['width']} pixels of {found['channels']} channels"
    )
    answer(found, text, as_json)


def _size(text: str) -> tuple[int, int]:
    """(height, width) of ``32`` or ``24x32``.

    Raises:
        RecipeError: it is neither.
    """
    match = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", text, re.ASCII)
    if match is None:
        raise RecipeError(
            f"--image-size: expected a side or height x width, as in 32 or 24x32, found {shown(text)[:60]!r}.",
            field="image-size",
        )
    return int(match[1]), int(match[2] or match[1])
