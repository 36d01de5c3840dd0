"""``condgen upscale``: pictures of a higher resolution that agree with a low one."""

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


def upscale(
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
    """Draw images of a higher resolution, several for each low one, with a model of encoder.type=low_resolution.

    An image of the low size is taken as it is; any other is brought to the full size and reduced from there. The sheet
    shows the input, its samples, and the image itself where it was larger. One --label holds for all images; otherwise
    there is one for each, in order.
    """
    which, step = one_of("weights", weights, ["ema", "raw"]), checkpoint_of(checkpoint)

    def load() -> ConditionalModel:
        from condgen.store import load_conditional

        return load_conditional(model_name, weights=which, checkpoint=step, device=device_of(device))

    draw_from_views(
        "upscale",
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
