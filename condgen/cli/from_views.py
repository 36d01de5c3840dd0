"""``condgen upscale`` and ``colorize``: pictures, what a model is shown of each, and its samples, on one sheet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

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
    Weights,
    changed,
    checkpoint_of,
    conditions_of_images,
    device_of,
    free_path,
    one_of,
    picture_path,
    split_words,
    without_overrides,
)
from condgen.cli.outcome import answer
from condgen.errors import ModelError, RecipeError, shown

Images = Annotated[list[str], typer.Argument(metavar="IMAGE", help="Image files; also section.key=value.")]
Count = Annotated[int, typer.Option("--count", metavar="N", min=1, max=100, help="Samples for each image.")]


@dataclass(frozen=True)
class _Task:
    """What is one command's own.

    Attributes:
        verb: the command, and ``task`` of the encoders that it is made for.
        done: what the sheet of ``a.png`` is called: ``a-DONE.png``.
        otherwise: what is said of a model of another encoder.
        text: the help.
    """

    verb: str
    done: str
    otherwise: str
    text: str


def _command(task: _Task) -> Callable[..., None]:
    """The command: a row for each image, with what the model is shown of it, samples, and at the end the image itself
    where it shows more than that."""

    def command(
        images: Images,
        model_name: ModelOption,
        label: Labels = None,
        count: Count = 4,
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
        which, step = one_of("weights", weights, ["ema", "raw"]), checkpoint_of(checkpoint)
        words, rest = split_words(images, label, None)
        files, overrides = without_overrides(rest)
        if not files:
            raise RecipeError(f"There is no image to {task.verb}; name a file.", field="IMAGE")
        path = None if out is None else picture_path(out, force)
        import numpy as np
        import torch

        from condgen.draw import displayable, save_png, sheet
        from condgen.store import load_conditional

        model = load_conditional(model_name, weights=which, checkpoint=step, device=device_of(device))
        encoder, depth = model.encoder, model.info.bit_depth
        if encoder.task != task.verb:
            raise ModelError(f"{shown(model_name)} {task.otherwise}.", file=model_name, field="encoder.type")
        settings = changed(model.recipe, overrides, ["sample"]).sample
        given = [encoder.parse("image", file) for file in files]
        condition = conditions_of_images(model, words, given)
        seed = settings.seed if seed is None else seed
        drawing = asked(
            settings, temperature, guidance, sampler, mixture=temperature_mixture, logistic=temperature_logistic
        )
        parts = drawn(model, condition, len(files), count, seed, **drawing)
        found, log_probs = (torch.cat(part) for part in zip(*parts, strict=True))
        rows, originals = [], []
        for file, batch, samples in zip(
            files, given, displayable(found, depth).reshape(len(files), count, -1), strict=True
        ):
            image, view = batch["image"], encoder.view(batch)
            pictures = [samples.reshape(count, *image.shape[1:])]
            if view is not None:
                pictures.insert(0, displayable(view, depth))
            originals.append(view is None or not torch.equal(view, image))
            if originals[-1]:
                pictures.append(displayable(image, depth))
            rows.append((Path(file).name, np.concatenate(pictures)))
        path = path or free_path(f"{Path(files[0]).stem}-{task.done}", ".png")
        columns = ("input", *map(str, range(count)), *(["original"] if any(originals) else []))
        save_png(path, sheet(rows, columns=columns), force=force)
        result = {"file": str(path), "images": files, "original_known": originals}
        result |= figures(model, files, count, seed, log_probs.tolist(), drawing["guidance"])
        answer(result, f"{len(found)} samples of {len(files)} images: {shown(path)}", as_json)

    command.__name__, command.__doc__ = task.verb, task.text
    return command


upscale = _command(
    _Task(
        "upscale",
        "upscaled",
        "sees no low resolution; give a model with encoder.type=low_resolution",
        """Draw images of a higher resolution, several for each low one, with a model of encoder.type=low_resolution.

        An image of the low size is taken as it is; a larger one is brought to the full size and reduced from there; a
        smaller one is refused. The sheet shows the input, its samples, and the image itself where it was larger. One
        --label holds for all images; otherwise there is one for each, in order.
        """,
    )
)
colorize = _command(
    _Task(
        "colorize",
        "colorized",
        "sees no grey images; give a model with encoder.type=grey",
        """Draw colours for images, several times for each, with a model of encoder.type=grey.

        Of an image in colour its luma is taken, and the sheet shows the image itself behind the samples. One --label
        holds for all images; otherwise there is one for each, in order.
        """,
    )
)
