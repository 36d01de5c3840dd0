"""``condgen evaluate``: bits per dimension of a split, beside those of lossless files; of an embedding, how well it
tells people apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from condgen.cli.options import (
    Checkpoint,
    Debug,
    Device,
    Force,
    Json,
    Overrides,
    Quiet,
    Run,
    Seed,
    Weights,
    changed,
    checkpoint_of,
    device_of,
    one_of,
    picture_path,
)
from condgen.cli.outcome import answer
from condgen.cli.verification import evaluate_embedding
from condgen.errors import RecipeError
from condgen.progress import warn

if TYPE_CHECKING:
    from condgen.model import ConditionalModel
    from condgen.recipe import Recipe


def evaluate(
    run: Run,
    overrides: Overrides = None,
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="train, validation or test.")] = "test",
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", metavar="N", min=1, help="Evaluate N images, the same ones every time.", show_default=False
        ),
    ] = None,
    roc: Annotated[
        str | None,
        typer.Option("--roc", metavar="FILE.png", help="Of an embedding: draw the curve.", show_default=False),
    ] = None,
    force: Force = False,
    weights: Weights = "ema",
    checkpoint: Checkpoint = "last",
    seed: Seed = None,
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure a model in bits per dimension on a split, beside PNG and WebP; an embedding by all pairs of pictures.

    Overrides choose other data: condgen evaluate RUN data.source=npz data.root=F.npz; model.likelihood_rule=classic
    computes as the PixelCNN++ code does, train.precision=fp64 in double precision.
    """
    which, step = one_of("weights", weights, ["ema", "raw"]), checkpoint_of(checkpoint)
    part = one_of("split", split, ["train", "validation", "test"])
    picture = None if roc is None else picture_path(roc, force)
    from condgen.data import open_data
    from condgen.data.embeddings import with_conditions
    from condgen.embedding import Embedding
    from condgen.evaluate import likelihood_report
    from condgen.store import load
    from condgen.store.models import as_conditional

    loaded = load(run, weights=which, checkpoint=step, device=device_of(device))
    if isinstance(loaded, Embedding):
        evaluate_embedding(loaded, overrides, part, limit, picture, as_json)
        return
    model = as_conditional(loaded, loaded.recipe, loaded.source)
    if roc is not None:
        raise RecipeError(
            "--roc: only an embedding (train.objective=triplet) has that curve; leave it out.", field="roc"
        )
    recipe = changed(model.recipe, overrides, ["data"], ["model.likelihood_rule", "train.precision"])
    if recipe.train.precision == "bf16" and any(each.startswith("train.precision") for each in overrides or ()):
        raise RecipeError(
            "train.precision: models are evaluated in fp32 or fp64, not bf16; choose one of them.",
            field="train.precision",
        )
    _compute_as(model, recipe)
    data = with_conditions(open_data(recipe.data, part), model.encoder, model.device)
    if data.resized and recipe.data != model.recipe.data:  # of its own data a model knows no others
        warn(
            f"{data.resized:,} images of the data set were resized to {data.info.width}x{data.info.height}, and the "
            "figures are of these (published weights can be imported at another size: condgen import --image-size)"
        )
    report = likelihood_report(model, data, limit=limit, seed=seed or 0)
    answer(report, lambda: _table(report), as_json)


def _compute_as(model: ConditionalModel, recipe: Recipe) -> None:
    """Gives ``model`` the rule and the precision of ``recipe``; nothing is evaluated in less than fp32."""
    import torch

    from condgen.recipe.build import build_likelihood

    model.to(torch.float64 if recipe.train.precision == "fp64" else torch.float32)
    if recipe.model.likelihood_rule != model.recipe.model.likelihood_rule:
        model.likelihood = build_likelihood(recipe, model.info)


def _table(report: dict[str, Any]) -> str:
    """The report for people, a line per figure."""

    def line(name: str, value: float | None, interval: float | None = None, unit: str = "bits/dim") -> str:
        if value is None:
            return ""
        spread = f" ± {interval:.4f}" if interval is not None else " " * 9
        return f"  {name:<26}{value:>9.4f}{spread:<10} {unit}"

    model = "model, variational bound" if report.get("bound") else "model"
    lines = [
        f"{report['examples']:,} images of the {report['split']} split, {report['dimensions']:,} sub-pixels of "
        f"{report['bit_depth']} bits each",
        line(model, report["bits_per_dim"], report["bits_per_dim_ci95"]),
        line("model, discretised", report.get("bits_per_dim_exact"), report.get("bits_per_dim_exact_ci95")),
        line("  in unknown pixels", report.get("bits_per_unknown_dim"), report.get("bits_per_unknown_dim_ci95")),
        line("lossless WebP, one mosaic", report["baseline_webp"]),
        line("lossless PNG, one mosaic", report["baseline_png"]),
        line("model, others' conditions", report["bits_per_dim_shuffled"]),
        line("  gap", report["shuffle_gap_bits"], report["shuffle_gap_bits_ci95"], "bits/image"),
        line("model, no condition", report["bits_per_dim_no_condition"]),
        line("  what the condition saves", report["condition_bits"], report["condition_bits_ci95"], "bits/image"),
    ]
    return "\n".join(filter(None, lines))
