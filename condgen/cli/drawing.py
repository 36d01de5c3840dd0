"""What the commands that draw images share: their options, the bar, the figures of what was drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from condgen.errors import NumericalError
from condgen.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from condgen.condition import Condition
    from condgen.model import ConditionalModel
    from condgen.recipe import SampleSection

Sampler = Annotated[
    str,
    typer.Option("--sampler", metavar="NAME", help="auto (cached), cached, fixed_point or naive: equal, not as fast."),
]
OneTemperature = Annotated[
    float | None,
    typer.Option("--temperature", metavar="T", help="Below 1: less varied; default: the recipe's.", show_default=False),
]
MixtureTemperature = Annotated[
    float | None,
    typer.Option(
        "--temperature-mixture", metavar="T", help="Of a mixture's choice of the component.", show_default=False
    ),
]
LogisticTemperature = Annotated[
    float | None,
    typer.Option("--temperature-logistic", metavar="T", help="Of the component's own width.", show_default=False),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        "--guidance",
        metavar="W",
        help="Above 0: nearer to the condition; -1: without it; default: the recipe's.",
        show_default=False,
    ),
]
Out = Annotated[
    str | None, typer.Option("--out", metavar="F.png", help="Default: a new name here.", show_default=False)
]


def asked(
    sample: SampleSection, temperature: float | None, guidance: float | None, sampler: str = "auto", *,
    mixture: float | None = None, logistic: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The options of ``model.stream``: what the command line says, and the recipe's ``sample`` where it says nothing.

    Args:
        mixture: temperature of the choice of the component; None: as ``temperature``.
        logistic: and of its width; the same number for both is the one of other likelihoods.
    """
    both = sample.temperature if temperature is None else temperature
    return {
        "temperature": (both if mixture is None else mixture, both if logistic is None else logistic),
        "guidance": sample.guidance if guidance is None else guidance,
        "sampler": sampler,
        "tile": sample.tile,
    }


def drawn(
    model: ConditionalModel, condition: Condition, conditions: int, count: int, seed: int, *, skip: int = 0,
    **options: Any,
) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
    """``model.stream`` behind a bar that counts images and knows how far the tile in hand is.

    Raises:
        NumericalError: a log-probability is NaN or infinite.
    """
    total = conditions * count
    with Progress("sampling", total, "images", done=skip) as progress:

        def advance(done: int, pixels: int) -> None:
            progress.fraction((skip + (total - skip) * done / pixels) / total)

        progress.fraction(skip / total)
        number = skip
        for images, log_probs in model.stream(condition, count, seed, skip=skip, progress=advance, **options):
            for value in log_probs.tolist():
                if not math.isfinite(value):
                    raise NumericalError(
                        f"The log-probability of image {number} is {value}; use an earlier checkpoint."
                    )
                number += 1
            progress.advance(len(images))
            yield images, log_probs


def figures(
    model: ConditionalModel, names: list[str], count: int, seed: int, log_probs: list[float], guidance: float = 0.0
) -> dict[str, Any]:
    """What ``--json`` says of the images, row by row; their probability is that of the guided distribution."""
    rows = [log_probs[i : i + count] for i in range(0, len(log_probs), count)]
    bits = -1 / math.log(2) / model.info.dimensions
    return {
        "labels": names,
        "count": count,
        "seeds": [[seed, k] for k in range(count)],
        "guidance": guidance,
        "log_prob": rows,
        "bits_per_dim": [[value * bits for value in row] for row in rows],
    }
