"""How fast condgen draws: python benchmarks/sampling.py [--core NAME] [--sides 32] [--batches 1 8] [--json] [--quick]

Untrained networks of the published sizes, unconditional, RGB: PixelCNN++ (40 filters, five resnets, ten mixtures) and a
Gated PixelCNN (15 layers of 63 maps, 256-way softmax, colours in order); also PixelCNN++ on grey 28x28, and on a GPU
with 160 filters at batch 128. On the CPU everything has one thread and is timed by the processor's time, which other
programs disturb little; on a GPU by its own events. The whole of a tile is timed: noise, weights, every pixel, ln p.

- ``seconds_per_image``: the median of the rounds, by the batch; after ``--seconds`` no further round begins.
- ``forward_equivalents``: a batch's seconds over those of the model's fastest eager forward pass without gradients, of
  the same batch, its weights folded beforehand; passes and batches are timed in turn.
- ``speedup_over_naive``: the naive sampler runs the network once for every pixel (and colour, where they are in order).
  It is *not* run: its time is that of 8 passes times the number of passes over 8, ``naive_is_estimated``.
- ``compiled_kernel``: whether the steps at a pixel were compiled C, which condgen takes where there is a C compiler, or
  torch did everything. PixelCNN++ on a CPU has a row of each.
- ``matmul_gflops``: the best fp32 matmul of N = 512, 1024, 2048 between the rows: what the machine could do just then.

A fixed-point sampler's rounds depend on what the network has learnt; rows of ``--samplers fixed_point`` are those of
random weights.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

if __name__ == "__main__":  # before torch is imported
    os.environ["OMP_NUM_THREADS"] = "1"

import torch
from machine import Anchors, instruction_set, timed
from torch.nn.utils import parametrize

from condgen import native
from condgen.condition import Condition, DataInfo
from condgen.likelihoods import scaled
from condgen.model import ConditionalModel
from condgen.progress import Progress
from condgen.recipe import Recipe
from condgen.recipe.build import build_model
from condgen.samplers import SAMPLERS
from condgen.train.ranks import choose_device

CORES = ("pixelcnn++", "gated")
NAIVE_PASSES = 8
"""Timed, of the thousands that the naive sampler would take."""
TINY: dict[str, Any] = {
    "filters": 4,
    "resnets": 1,
    "layers": 2,
    "mixtures": 2,
    "kernel_size": 3,
    "first_kernel_size": 3,
}


@dataclass(frozen=True)
class Case:
    """One row: a network, a size, a batch, a sampler."""

    core: str
    side: int
    batch: int
    sampler: str = "cached"
    channels: int = 3
    filters: int | None = None
    """None: 40 (PixelCNN++) or 63 (gated)."""
    tiny: bool = False
    compiled: bool = False

    @property
    def maps(self) -> int:
        """Feature maps of a layer."""
        own = TINY["filters"] if self.tiny else {"pixelcnn++": 40, "gated": 63}[self.core]
        return self.filters or own

    @property
    def has_kernel(self) -> bool:
        return self.core == "pixelcnn++" and self.sampler == "cached"

    @property
    def name(self) -> str:
        what = "" if self.channels == 3 else ", grey"
        wide = "" if self.filters is None else f", {self.filters} filters"
        return (
            f"{self.core} {self.side}x{self.side}{what}{wide}, batch {self.batch}, {self.sampler}"
            + ", C" * self.compiled
        )


def model_of(case: Case, device: torch.device) -> ConditionalModel:
    """The network with random weights."""
    recipe = Recipe.model_validate(
        {
            "data": {"image_size": case.side, "channels": case.channels},
            "model": {"core": case.core, "resnets": 5, "mixtures": 10, "layers": 15}
            | (TINY if case.tiny else {})
            | {"filters": case.maps},
            "train": {"max_steps": 1},
        }
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(recipe, DataInfo(case.channels, case.side, case.side, 8))
    return model.to(device).eval()


@torch.no_grad()
def measure(case: Case, rounds: int, most: float, device: torch.device) -> dict[str, Any]:
    """Everything that is reported of one row.

    Args:
        rounds: drawings of the batch that count; fewer once they have taken ``most`` seconds.
    """
    model = model_of(case, device)
    core, likelihood = model.core, model.likelihood
    generator = torch.Generator().manual_seed(0)
    shape = (case.batch, case.channels, case.side, case.side)
    x = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)
    pixels, terms = scaled(x, likelihood.levels, model.dtype), core.terms(Condition())
    log_prob: list[torch.Tensor] = []

    def folded() -> float:
        with parametrize.cached():
            core(pixels, terms)  # folds
            return timed(lambda: core(pixels, terms), device)

    def drawing() -> None:
        images, nats = model.sample_and_log_prob(None, case.batch, len(log_prob), sampler=case.sampler, tile=case.batch)
        log_prob.append(nats)
        assert images.shape == shape  # noqa: S101

    warm_up(model, case)
    forward = [folded()]
    naive: list[float] = []
    drawn: list[float] = []
    while not drawn or (len(drawn) < rounds and sum(drawn) < most):
        drawn.append(timed(drawing, device))
        forward += [folded() for _ in range(3)]
        if not naive:
            naive = [timed(lambda: core(pixels, terms), device) for _ in range(NAIVE_PASSES)]
    seconds, fastest = statistics.median(drawn), min(forward + naive)
    passes = case.side**2 * likelihood.passes
    estimate = sum(naive) / NAIVE_PASSES * passes
    return {
        "core": case.core,
        "side": case.side,
        "channels": case.channels,
        "filters": case.maps,
        "batch": case.batch,
        "sampler": case.sampler,
        "compiled_kernel": case.compiled,
        "seconds_per_image": seconds / case.batch,
        "images_per_second": round(case.batch / seconds, 3),
        "forward_seconds": fastest,
        "forward_equivalents": round(seconds / fastest, 3),
        "speedup_over_naive": round(estimate / seconds, 1),
        "naive_seconds_per_image": estimate / case.batch,
        "naive_passes": passes,
        "naive_is_estimated": True,
        "rounds": len(drawn),
    }


class _Enough(Exception):
    """The first pixels are drawn."""


def warm_up(model: ConditionalModel, case: Case) -> None:
    """A few rows, so that no allocation, no choice of a kernel falls into what is timed."""

    def watch(done: int, total: int) -> None:
        if done >= 4 * case.side:
            raise _Enough

    try:
        model.sample(None, case.batch, 1, sampler=case.sampler, tile=case.batch, progress=watch)
    except _Enough:
        pass


def cases_of(
    cores: Sequence[str], sides: Sequence[int], batches: Sequence[int], samplers: Sequence[str], device: torch.device
) -> list[Case]:
    """The table, and the rows beside it: grey 28x28, and on a GPU the published width."""
    found = [
        Case(core, side, batch, sampler)
        for core in cores
        for side in sides
        for batch in batches
        for sampler in samplers
    ]
    if "pixelcnn++" in cores and 32 in sides:
        found += [Case("pixelcnn++", 28, batches[0], sampler, channels=1) for sampler in samplers]
        if device.type == "cuda":
            found += [Case("pixelcnn++", 32, 128, sampler, filters=160) for sampler in samplers]
    compiles = device.type == "cpu" and native.available()
    rows = [[case, replace(case, compiled=True)] if compiles and case.has_kernel else [case] for case in found]
    return [case for row in rows for case in row]


def benchmark(cases: Sequence[Case], rounds: int, most: float, device: torch.device) -> dict[str, Any]:
    """The whole report."""
    anchors, rows = Anchors(device), []
    with Progress("drawing", len(cases), "rows") as progress:
        for case in cases:
            anchors()
            with patch.object(native, "available", lambda case=case: case.compiled):
                rows.append(measure(case, rounds, most, device))
            progress.advance(1, row=case.name)
    return {
        "device": str(device),
        "instruction_set": instruction_set(device),
        "matmul_gflops": round(anchors.matmul_gflops, 1),
        "convolution_gflops": round(anchors.convolution_gflops, 1),
        "torch": torch.__version__,
        "rounds": rounds,
        "configurations": rows,
    }


def table(report: dict[str, Any], cases: Sequence[Case]) -> Iterator[str]:
    """The report for people."""
    yield (
        f"{report['device']} ({report['instruction_set']}), torch {report['torch']}; fp32 matmul "
        f"{report['matmul_gflops']:,.0f} GFLOP/s, fp32 convolution {report['convolution_gflops']:,.0f}"
    )
    yield f"{'':<52}  s/image  forwards  x naive (estimated)"
    for case, found in zip(cases, report["configurations"], strict=True):
        yield (
            f"{case.name:<52}{found['seconds_per_image']:9.3f}{found['forward_equivalents']:10.2f}"
            f"{found['speedup_over_naive']:9,.0f}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[1], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--core", choices=CORES, nargs="+", default=list(CORES))
    parser.add_argument("--sides", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--samplers", choices=list(SAMPLERS), nargs="+", default=["cached"])
    parser.add_argument("--rounds", type=int, default=3, help="drawings of each row")
    parser.add_argument("--seconds", type=float, default=30.0, help="of a row, after which no further round begins")
    parser.add_argument("--quick", action="store_true", help="16x16 at batches 1 and 8, one round: half a minute")
    parser.add_argument("--smoke", action="store_true", help="tiny networks, one round: does it work at all?")
    parser.add_argument("--device", default=None, help="cpu, cuda or cuda:N; default: a GPU where there is one")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if min(options.rounds, *options.sides, *options.batches) < 1:
        parser.error("--rounds, --sides and --batches: at least 1")
    if "pixelcnn++" in options.core and any(side % 4 for side in options.sides):
        parser.error("--sides: pixelcnn++ takes multiples of 4")
    torch.set_num_threads(1)
    device = choose_device(options.device)
    if options.quick:
        options.sides, options.batches, options.rounds = [16], [1, 8], 1
    cases = cases_of(options.core, options.sides, options.batches, options.samplers, device)
    if options.smoke:
        options.rounds = 1
        cases = [Case(core, 8, 2, sampler, tiny=True) for core in options.core for sampler in options.samplers]
    report = benchmark(cases, options.rounds, options.seconds, device)
    if options.json:
        print(json.dumps(report))
    else:
        print("\n".join(table(report, cases)))


if __name__ == "__main__":
    main()
