"""``condgen colorize``: colours for grey pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from condgen.cli.drawing import (
    Guidance,
    LogisticTemperature,
    MixtureTemperature,
    OneTemperature,
    Sampler,
    temperatures,
)
from condgen.cli.from_views import Count, Images, Model, Out, draw_from_views
from condgen.cli.options import (
    Checkpoint,
    Debug,
    Device,
    Force,
    Json,
    Labels,
    Quiet,
    Seed,
    Weights,
    checkpoint_of,
    device_of,
    one_of,
)

if TYPE_CHECKING:
    from condgen.model import ConditionalModel


def colorize(
    images: Images,
    model_name: Model,
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
    """Draw colours for images, several times for each, with a model of encoder.type=grey.

    Of an image in colour its luma is taken, and the sheet shows the image itself behind the samples. One --label holds
    for all images; otherwise there is one for each, in order.
    """
    which, step = one_of("weights", weights, ["ema", "raw"]), checkpoint_of(checkpoint)

    def load() -> ConditionalModel:
        from condgen.store import load_conditional

        return load_conditional(model_name, weights=which, checkpoint=step, device=device_of(device))

    draw_from_views(
        "colorize",
        images,
        label,
        load,
        run=model_name,
        count=count,
        seed=seed,
        options=lambda sample: {
            "temperature": temperatures(temperature, temperature_mixture, temperature_logistic, sample.temperature),
            "guidance": sample.guidance if guidance is None else guidance,
            "sampler": sampler,
        },
        out=out,
        force=force,
        as_json=as_json,
    )
