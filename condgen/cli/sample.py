"""``condgen sample``: new images, as a sheet with a row for each condition, as picture files, or as one .npz."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from condgen.cli.drawing import (
    Guidance,
    LogisticTemperature,
    MixtureTemperature,
    OneTemperature,
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
from condgen.errors import Interrupted, ModelError, RecipeError, shown

if TYPE_CHECKING:
    from condgen.condition import Condition
    from condgen.model import ConditionalModel
    from condgen.store.samples import SampleJob

_SHEET = 256
"""Images that go onto one sheet unless something else is asked for."""
_LARGEST_SHEET = 1024


def sample(
    run: Run,
    overrides: Overrides = None,
    label: Labels = None,
    vector: Vectors = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count", metavar="N", min=1, max=1_000_000, help="Images of each condition.", show_default=False
        ),
    ] = None,
    seed: Seed = None,
    temperature: OneTemperature = None,
    temperature_mixture: MixtureTemperature = None,
    temperature_logistic: LogisticTemperature = None,
    guidance: Guidance = None,
    sampler: Sampler = "auto",
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="PATH",
            help="F.png: one sheet; FOLDER: a PNG for each image; or F.npz.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    weights: Weights = "ema",
    checkpoint: Checkpoint = "last",
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw new images: a sheet, or by the thousand a folder or an .npz.

    A sheet has a row for each condition. Folder and .npz are written while images are drawn, sample.tile of them at a
    time (more is faster); if the command is interrupted, the same command goes on where it stopped.

    Without --label or --vector: a row for each of the encoder's own examples. Words of other encoders are options too:
    --WORD VALUE. The same seed gives image k of every condition the same noise.
    """
    words, rest = split_words(overrides, label, vector)
    path, kind = _destination(out, force)
    which, step = one_of("weights", weights, ["ema", "raw"]), checkpoint_of(checkpoint)
    from condgen.condition import Condition
    from condgen.store import load_conditional
    from condgen.store.jobs import job_of

    model = load_conditional(run, weights=which, checkpoint=step, device=device_of(device))
    if model.encoder.task == "complete":
        raise ModelError(
            f"{shown(run)} completes images; use condgen complete IMAGE --mask M.png --model {shown(run)}.", file=run
        )
    settings = changed(model.recipe, rest, ["sample"]).sample
    model.recipe = model.recipe.model_copy(update={"sample": settings})
    rows = conditions(model, words)
    count = count or max(1 if len(rows) == 1 else 2, math.ceil((settings.count or 16) / len(rows)))
    seed = settings.seed if seed is None else seed
    sampler = "cached" if sampler == "auto" else sampler  # a job is that of one sampler, under its own name
    options = asked(
        settings, temperature, guidance, sampler, mixture=temperature_mixture, logistic=temperature_logistic
    )
    names, condition = [name for name, _ in rows], Condition.stack([h for _, h in rows])
    model.stream(condition, count, seed, **options)  # what is wrong with the options is said before a file is made
    total, stem = len(rows) * count, f"{Path(run).name or 'model'}-samples"
    if kind == "sheet" and total > _LARGEST_SHEET:
        raise RecipeError(
            f"A sheet of {total:,} images is beyond the {_LARGEST_SHEET:,} allowed; give a folder or a name in .npz.",
            field="out",
        )
    there = 0
    if kind == "sheet" or (kind == "" and total <= _SHEET):
        path = path or free_path(stem, ".png")
        log_probs = _sheet(path, model, names, condition, count, seed, options, force)
    else:
        job = job_of(model, names, condition, count=count, seed=seed, **options)
        with _job(path, kind, stem, job, model, force) as target:
            there, path = target.done, path or target.folder
            log_probs = _streamed(target, path, model, condition, seed, options)
    result = {"file": str(path), "drawn": total - there} | figures(
        model, names, count, seed, log_probs, options["guidance"]
    )
    before = f" ({there} were there already)" if there else ""
    answer(result, f"{total} images: {shown(path)}{before}", as_json)


def _destination(out: str | None, force: bool) -> tuple[Path | None, str]:
    """What ``--out`` names, and whether that is a ``sheet``, a ``folder`` or an ``npz``; "" where it says nothing."""
    if out is None:
        return None, ""
    path = Path(out)
    if out.endswith(os.sep) or path.suffix == "" or path.is_dir():
        kind = "folder"
    elif path.suffix.lower() == ".npz":
        kind = "npz"
    else:
        return picture_path(out, force), "sheet"
    if not path.parent.is_dir():
        raise RecipeError(f"{shown(path)}: there is no folder {shown(path.parent)}; make it first.", file=path)
    return path, kind


def _job(
    path: Path | None, kind: str, stem: str, job: dict[str, Any], model: ConditionalModel, force: bool
) -> SampleJob:
    from condgen.draw import png
    from condgen.store.sample_file import SampleFile
    from condgen.store.samples import SampleFolder

    if kind == "npz" and path is not None:
        return SampleFile(path, job, force=force)
    if path is None:  # a new name, or that of this very job
        names = (Path(stem if k == 1 else f"{stem}-{k}") for k in itertools.count(1))
        path = next(name for name in names if not os.path.lexists(name) or SampleFolder.is_of(name, job))
    return SampleFolder(path, job, png, force=force)


def _streamed(
    target: SampleJob, path: Path, model: ConditionalModel, condition: Condition, seed: int, options: dict[str, Any]
) -> list[float]:
    """Draws what is missing of a job; ln p of all its images."""
    from condgen.draw import displayable

    job = target.job
    try:
        if target.done < target.total:
            for images, log_probs in drawn(
                model, condition, len(job["labels"]), job["count"], seed, skip=target.done, **options
            ):
                target.add(displayable(images, model.info.bit_depth), log_probs.tolist())
        target.finish()
    except KeyboardInterrupt as stop:
        raise Interrupted(
            f"{target.done} of {target.total} images of {shown(path)} are drawn; the same command goes on.",
            exit_code=getattr(stop, "exit_code", 130),
        ) from None
    return target.log_probs


def _sheet(
    path: Path, model: ConditionalModel, names: list[str], condition: Condition, count: int, seed: int,
    options: dict[str, Any], force: bool,
) -> list[float]:  # fmt: skip
    """Draws all images and puts them onto one sheet; ln p of each."""
    import torch

    from condgen.draw import displayable, grid, save_png, sheet

    parts = list(drawn(model, condition, len(names), count, seed, **options))
    pictures = displayable(torch.cat([images for images, _ in parts]), model.info.bit_depth)
    if names == [""]:
        save_png(path, grid(pictures), force=force)
    else:
        rows = pictures.reshape(len(names), count, *pictures.shape[1:])
        save_png(path, sheet(list(zip(names, rows, strict=True))), force=force)
    return [value for _, log_probs in parts for value in log_probs.tolist()]
