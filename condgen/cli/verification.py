"""``condgen evaluate`` of an embedding: who is who, over all pairs of pictures of unseen people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from condgen.cli.options import changed
from condgen.cli.outcome import answer
from condgen.errors import shown

if TYPE_CHECKING:
    from condgen.embedding import Embedding


def evaluate_embedding(
    model: Embedding,
    overrides: Sequence[str] | None,
    split: str,
    limit: int | None,
    roc: Path | None,
    as_json: bool,
) -> None:
    """Measures ``model`` on ``split`` and answers; ``roc`` is where the curve goes."""
    from condgen.data import open_data
    from condgen.draw import save_png
    from condgen.evaluate import roc_picture, verification_report

    recipe = changed(model.recipe, overrides, ["data"])
    part: Any = split
    report, curves = verification_report(model, open_data(recipe.data, part), limit=limit)
    if roc is not None:
        save_png(roc, roc_picture(curves, f"{report['people']} people of the {split} split"), force=True)
    answer({**report, "roc": None if roc is None else str(roc)}, lambda: _table(report, roc), as_json)


def _table(report: dict[str, Any], roc: Path | None) -> str:
    """The report for people, a line per figure."""
    accuracy = report["verification_accuracy"]
    lines = [
        f"{report['examples']:,} images of {report['people']:,} people of the {report['split']} split: "
        f"{report['same_pairs']:,} pairs of one person, {report['different_pairs']:,} of two",
        f"  {'area under the ROC curve':<44}{report['auc']:>8.4f}",
        f"  {'true accepts at 1 false one in 1,000':<44}{report['tar_at_far_1e-3']:>8.4f}",
        f"  {'balanced accuracy, thresholds of other people':<44}{'' if accuracy is None else f'{accuracy:>8.4f}'}",
        f"  {'raw pixels, brightness taken off: area':<44}{report['baseline_auc']:>8.4f}",
        f"  {'  true accepts at 1 false one in 1,000':<44}{report['baseline_tar_at_far_1e-3']:>8.4f}",
    ]
    return "\n".join(lines + ([f"{shown(roc)}: the curve"] if roc is not None else []))
