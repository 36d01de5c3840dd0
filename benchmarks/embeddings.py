"""What kept conditions save of a training step: python benchmarks/embeddings.py [--recipes NAME ...] [--json]

A frozen encoder of a face network's size, facenet-pytorch's InceptionResnetV1 (512 numbers of 160x160 pixels; random
weights, whose time is that of any others), conditions the decoder of a recipe on RGB images of 32x32, which it sees
enlarged. The same step of training (loss, gradient, Adam, average) is timed in turn with the encoder run on the batch
and with its conditions in the batch, as ``condgen.data.embeddings`` puts them there. On the CPU all has one thread and
is timed by the processor's time.

- ``step_seconds``, ``step_seconds_kept``: medians of the rounds, of the whole batch.
- ``share_saved``: of the first, what the second does without.
- ``encoder_seconds_per_image``: what an epoch costs by itself, and the first one still does, once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

if __name__ == "__main__":  # before torch is imported
    os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.nn.functional as F
from facenet_pytorch import InceptionResnetV1
from machine import Anchors, instruction_set, timed

from condgen import streams
from condgen.condition import KEPT, Batch, Condition, DataInfo, Encoder, Options
from condgen.plugins import register_encoder
from condgen.progress import Progress
from condgen.recipe import Recipe, read_recipe
from condgen.recipe.build import build_model
from condgen.train.objective import LikelihoodObjective
from condgen.train.ranks import choose_device
from condgen.train.state import TrainState

SIDE, SEEN = 32, 160


@register_encoder("benchmark_face")
class Face(Encoder):
    """InceptionResnetV1 with random weights."""

    reads = ("image",)
    vector_size = 512
    frozen = True

    def __init__(self, options: Options, info: DataInfo) -> None:
        super().__init__(options, info)
        self.network = InceptionResnetV1(pretrained=None)

    def encode(self, batch: Batch) -> Condition:
        x = F.interpolate(batch["image"].float() / 127.5 - 1, (SEEN, SEEN), mode="bilinear")
        return Condition(vector=self.network(x))


def recipe_of(name: str, smoke: bool) -> Recipe:
    changes: dict[str, Any] = {"data.image_size": SIDE, "data.channels": 3, "encoder.type": "benchmark_face"}
    if smoke:
        changes |= {"data.image_size": 8, "model.filters": 4, "model.layers": 1, "train.batch_size": 2}
    return read_recipe(name, changes)


def measure(name: str, rounds: int, device: torch.device, smoke: bool) -> dict[str, Any]:
    """Everything that is reported of one recipe's decoder."""
    recipe = recipe_of(name, smoke)
    batch_size, side = recipe.train.batch_size, recipe.data.height
    model = build_model(recipe, DataInfo(3, side, side)).to(device)
    state, objective = TrainState(model, recipe.train), LikelihoodObjective(model)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch_size, 3, side, side), generator=generator, dtype=torch.uint8)
    keys = streams.example_keys(torch.arange(batch_size).numpy(), 0, "example", 0)
    batch = {"image": images.to(device), "key": keys.to(device)}
    with torch.no_grad():
        model.eval().initialise(batch)
        kept = {**batch, KEPT["vector"]: model.condition(batch).parts[0]}
    model.train()

    def step(given: Batch) -> None:
        for weight in model.parameters():
            weight.grad = None
        (objective.loss(given).sum() / batch_size).backward()
        state.update()

    step(batch)
    step(kept)
    run, looked_up, encoder = [], [], []
    for _ in range(rounds):
        run.append(timed(lambda: step(batch), device))
        looked_up.append(timed(lambda: step(kept), device))
        encoder.append(timed(lambda: model.condition(batch), device))
    with_encoder, without = statistics.median(run), statistics.median(looked_up)
    return {
        "recipe": name,
        "side": side,
        "batch": batch_size,
        "decoder_parameters": sum(weight.numel() for weight in model.core.parameters()),
        "encoder_parameters": sum(weight.numel() for weight in model.encoder.parameters()),
        "step_seconds": with_encoder,
        "step_seconds_kept": without,
        "share_saved": round(1 - without / with_encoder, 4),
        "encoder_seconds_per_image": statistics.median(encoder) / batch_size,
        "rounds": rounds,
    }


def benchmark(recipes: Sequence[str], rounds: int, device: torch.device, smoke: bool = False) -> dict[str, Any]:
    """The whole report."""
    anchors, rows = Anchors(device), []
    with Progress("measuring", len(recipes), "recipes") as progress:
        for name in recipes:
            anchors()
            rows.append(measure(name, rounds, device, smoke))
            progress.advance(1, recipe=name)
    return {
        "device": str(device),
        "instruction_set": instruction_set(device),
        "matmul_gflops": round(anchors.matmul_gflops, 1),
        "torch": torch.__version__,
        "configurations": rows,
    }


def table(report: dict[str, Any]) -> Iterator[str]:
    """The report for people."""
    yield (
        f"{report['device']} ({report['instruction_set']}), torch {report['torch']}; fp32 matmul "
        f"{report['matmul_gflops']:,.0f} GFLOP/s; encoder of "
        f"{report['configurations'][0]['encoder_parameters'] / 1e6:.1f} million parameters"
    )
    yield f"{'':<28}batch  s/step  kept  saved  encoder ms/image"
    for row in report["configurations"]:
        yield (
            f"{row['recipe']:<28}{row['batch']:>5}{row['step_seconds']:8.2f}{row['step_seconds_kept']:6.2f}"
            f"{row['share_saved']:7.1%}{1000 * row['encoder_seconds_per_image']:10.1f}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[1], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", nargs="+", default=["quickstart", "cifar10-classes"])
    parser.add_argument("--rounds", type=int, default=5, help="steps of each kind")
    parser.add_argument("--smoke", action="store_true", help="tiny decoders, one round: does it work at all?")
    parser.add_argument("--device", default=None, help="cpu, cuda or cuda:N; default: a GPU where there is one")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    torch.set_num_threads(1)
    report = benchmark(
        options.recipes, 1 if options.smoke else options.rounds, choose_device(options.device), options.smoke
    )
    print(json.dumps(report) if options.json else "\n".join(table(report)))


if __name__ == "__main__":
    main()
