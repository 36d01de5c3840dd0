"""``condgen reconstruct``: images, what an autoencoder makes of them, and samples given their own embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    Debug,
    Device,
    Force,
    Json,
    Quiet,
    Seed,
    Weights,
    changed,
    device_of,
    free_path,
    one_of,
    picture_path,
    without_overrides,
)
from condgen.cli.outcome import answer
from condgen.errors import ModelError, RecipeError, shown

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from condgen.autoencoder import Autoencoder
    from condgen.condition import Condition
    from condgen.model import ConditionalModel, Encoded
    from condgen.recipe import Recipe

_LARGEST_SHEET = 2048


@dataclass(frozen=True)
class _Given:
    """The images: names, pixels (N, C, H, W) on the models' grid, and what an encoder may read of each, by itself."""

    names: list[str]
    pixels: Tensor
    batches: list[dict[str, Tensor]]
    resized: list[bool]


def reconstruct(
    image: Annotated[
        list[str] | None, typer.Argument(metavar="[IMAGE]...", help="Image files; also section.key=value.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="RUN", help="A model whose encoder embeds images. May be repeated."),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            "--baseline",
            metavar="RUN",
            help="An autoencoder of train.objective=squared_error, beside each model. May be repeated.",
            show_default=False,
        ),
    ] = None,
    data_split: Annotated[
        str | None,
        typer.Option(
            "--data-split",
            metavar="NAME",
            help="Images of the first model's own data: train, validation or test.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            "--images", metavar="K", min=1, max=1024, help="How many of --data-split; default: 8.", show_default=False
        ),
    ] = None,
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, max=100, help="Samples for each image.")] = 4,
    seed: Seed = None,
    temperature: OneTemperature = None,
    temperature_mixture: MixtureTemperature = None,
    temperature_logistic: LogisticTemperature = None,
    guidance: Guidance = None,
    sampler: Sampler = "auto",
    out: Out = None,
    force: Force = False,
    weights: Weights = "ema",
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw images again from their embeddings: original, an autoencoder's reconstruction, samples of p(x | h).

    A row for each image and model. The figures say how sharp the pictures are: gradient energy after a light blur, as
    a share of the originals'.

    condgen reconstruct --data-split test --model autoencoder --baseline autoencoder-mse
    """
    files, overrides = without_overrides(image or [])
    if not model:
        raise RecipeError("There is no model; name a run by --model.", field="model")
    if baseline and len(baseline) not in (1, len(model)):
        raise RecipeError(
            f"--baseline is given {len(baseline)} times; give it once or as often as --model ({len(model)}).",
            field="baseline",
        )
    if bool(files) == (data_split is not None):
        raise RecipeError(
            "Name image files, or a part of the model's own data by --data-split, not both.", field="IMAGE"
        )
    if files and images is not None:
        raise RecipeError("--images is how many of --data-split are taken; leave it out beside files.", field="images")
    images = images or 8
    split = None if data_split is None else one_of("data-split", data_split, ["train", "validation", "test"])
    path = None if out is None else picture_path(out, force)
    which, place = one_of("weights", weights, ["ema", "raw"]), device_of(device)
    total = (images if split else len(files)) * len(model) * (1 + bool(baseline) + count)
    if total > _LARGEST_SHEET:
        raise RecipeError(
            f"A sheet of {total:,} pictures is beyond the {_LARGEST_SHEET:,} allowed; take fewer images or samples.",
            field="count",
        )
    import numpy as np

    from condgen.draw import displayable
    from condgen.evaluate.sharpness import sharpness
    from condgen.store import load_conditional

    models = [_embedding(load_conditional(name, weights=which, device=place)) for name in model]
    baselines = [_baseline(name, which, place) for name in baseline or ()]
    _check_alike([*models, *baselines])
    recipe, depth = changed(models[0].recipe, overrides, ["data", "sample"]), models[0].info.bit_depth
    given = _of_data(recipe, split, images) if split else _of_files(files, models[0])
    options = asked(
        recipe.sample, temperature, guidance, sampler, mixture=temperature_mixture, logistic=temperature_logistic
    )
    seed = recipe.sample.seed if seed is None else seed
    original = displayable(given.pixels, depth)
    copies, samples, of_models, of_baselines = [], [], [], []
    for autoencoder in baselines:
        copies.append(displayable(autoencoder.reconstruct(_embedded(autoencoder, given)), depth))
        error = float(np.square((copies[-1].astype(np.float64) - original) / 255).mean())
        of_baselines.append(_facts(autoencoder, sharpness(copies[-1], original)) | {"squared_error": error})
    for each in models:
        pictures, log_probs = _sampled(each, given, count, seed, options)
        samples.append(displayable(pictures, depth))
        drawn_as = figures(each, given.names, count, seed, log_probs, options["guidance"])
        of_models.append(_facts(each, sharpness(samples[-1], original)) | drawn_as)
    path = path or free_path("reconstructions", ".png")
    _save(path, given.names, original, copies, samples, models, force)
    result = {
        "file": str(path),
        "images": files or given.names,
        "resized": given.resized,
        "models": of_models,
        "baselines": of_baselines,
    }
    lines = [f"{sum(map(len, samples))} samples: {shown(path)}"]
    for facts in (*of_models, *of_baselines):
        share = "?" if facts["sharpness"] is None else f"{facts['sharpness']:.2f}"
        lines.append(f"sharpness {share:>5}  {shown(facts['model'])} (m = {facts['vector_size']})")
    answer(result, "\n".join(lines), as_json)


def _sampled(
    model: ConditionalModel, given: _Given, count: int, seed: int, options: dict[str, Any]
) -> tuple[Tensor, list[float]]:
    """``count`` images for each that is given, in its order, and ln p of each."""
    import torch

    parts = list(drawn(model, _embedded(model, given), len(given.names), count, seed, **options))
    return torch.cat([images for images, _ in parts]), [value for _, nats in parts for value in nats.tolist()]


def _embedding(model: ConditionalModel) -> ConditionalModel:
    """``model``, whose encoder can read an image."""
    if "image" not in model.encoder.words:
        raise ModelError(
            f"{shown(model.source)} does not embed images (encoder.type={shown(model.recipe.encoder.type)}); give a "
            "run whose encoder does, as autoencoder.",
            file=model.source,
            field="encoder.type",
        )
    if model.encoder.task:
        raise ModelError(
            f"{shown(model.source)} draws from what is left of an image, not from its embedding; use condgen "
            f"{model.encoder.task}.",
            file=model.source,
            field="encoder.type",
        )
    return model


def _baseline(name: str, weights: Any, device: torch.device) -> Autoencoder:
    from condgen.autoencoder import Autoencoder
    from condgen.store import load

    model = load(name, weights=weights, device=device)
    if not isinstance(model, Autoencoder):
        raise ModelError(
            f"{shown(model.source)} is of train.objective={model.recipe.train.objective}; a baseline is trained by "
            "train.objective=squared_error.",
            file=model.source,
            field="train.objective",
        )
    return model


def _check_alike(models: Sequence[Encoded]) -> None:
    """Raises:
    ModelError: two models have images of different shapes.
    """
    shapes = [(m.info.channels, m.info.height, m.info.width, m.info.bit_depth) for m in models]
    for model, shape in zip(models, shapes, strict=True):
        if shape != shapes[0]:
            raise ModelError(
                f"{shown(model.source)} has images of {shape} (channels, height, width, bits), "
                f"{shown(models[0].source)} of {shapes[0]}; give models of one shape.",
                file=model.source,
            )


def _of_files(files: Sequence[str], model: ConditionalModel) -> _Given:
    """The pictures named on the command line, as the model's encoder reads them."""
    import torch

    from condgen.data import open_image

    info, data = model.info, model.recipe.data
    opened = [
        open_image(file, info.channels, info.height, info.width, data.fit, data.background, info.bit_depth)
        for file in files
    ]
    batches = [model.encoder.parse("image", file) for file in files]
    pixels = torch.stack([pixels for pixels, _ in opened])
    return _Given([Path(file).name for file in files], pixels, batches, [resized for _, resized in opened])


def _of_data(recipe: Recipe, split: Any, count: int) -> _Given:
    """``count`` images of a split, the same ones every time, from all over it."""
    from condgen.data import open_data
    from condgen.evaluate.bits import evaluated_indices

    data = open_data(recipe.data.model_copy(update={"pairs": "none"}), split)  # each image's own h, in every model
    indices = evaluated_indices(len(data), count)
    if not len(indices):
        raise RecipeError(f"--data-split: the {split} split has no images; choose another.", field="data-split")
    batches = [data.batch(indices[k : k + 1]) for k in range(len(indices))]
    import torch

    pixels = torch.cat([batch["image"] for batch in batches])
    return _Given([f"{split} {index}" for index in indices], pixels, batches, [False] * len(indices))


def _embedded(model: Encoded, given: _Given) -> Condition:
    """The conditions of the images, each made by itself: no picture depends on what else is drawn."""
    import torch

    from condgen.condition import Condition

    with torch.no_grad():
        return Condition.stack(
            [
                model.condition({name: value.to(model.device) for name, value in batch.items()})
                for batch in given.batches
            ]
        )


def _facts(model: Encoded, sharp: float | None) -> dict[str, Any]:
    return {"model": str(model.source), "vector_size": model.encoder.vector_size, "sharpness": sharp}


def _save(
    path: Path, names: Sequence[str], original: np.ndarray, copies: Sequence[np.ndarray],
    samples: Sequence[np.ndarray], models: Sequence[Encoded], force: bool,
) -> None:  # fmt: skip
    """The sheet of figure 6: a row for each image and model."""
    import numpy as np

    from condgen.draw import save_png, sheet

    rows, count = [], len(samples[0]) // len(names)
    for i, name in enumerate(names):
        for k, model in enumerate(models):
            copy = [copies[k if len(copies) > 1 else 0][i : i + 1]] if copies else []
            label = name if len(models) == 1 else f"{name}, m = {model.encoder.vector_size}"
            rows.append((label, np.concatenate([original[i : i + 1], *copy, samples[k][i * count : (i + 1) * count]])))
    heads = ["original", *(["squared error"] if copies else []), *["sample"] * count]
    save_png(path, sheet(rows, columns=heads), force=force)
