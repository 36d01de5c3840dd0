"""How fast a PixelCNN++ trains: python benchmarks/training.py [--filters 40 80] [--rounds 9] [--only eager] [--json]

One step of training in condgen (32x32x3, five resnets, ten mixtures, dropout of single elements; loss, backward, norm
of the gradient, Adam, average) beside one of the plain network in ``plain.py`` with the same Adam and average, in turn
in one process, round after round. On the CPU everything has one thread and is timed by the processor's time, which
other programs disturb little; on a GPU by its own events.

- Of each row the median over the rounds, of each ratio the median of the rounds' quotients; two rounds warm up.
- ``fraction_of_peak``: the work of the network as published, three times the multiplications and additions of a forward
  pass, whatever is executed; over ``matmul_gflops``, the best fp32 matmul of N = 512, 1024, 2048 between the rounds.
  ``convolution_gflops`` is the best rate of a wide 3x3 convolution: some processors' convolutions beat their matmuls.
- ``ratio_to_plain``: against the plain network that drops single elements by ``F.dropout``, as the original does;
  ``ratio_to_plain_channels``: against the same with dropout of whole channels, which costs it nothing.
- ``dropout_share``: the share of the step that disappears without dropout.
- ``peak_memory_mb`` (2^20 bytes, torch and the compiler included) and ``compile_seconds`` (processor time without any
  compiler's cache, one compiling thread; a C compiler's on a CPU, torch's on a GPU; ``compile_wall_seconds`` by the
  clock) come from a process of the row's own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

if __name__ == "__main__":  # before torch is imported
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # then what compiling takes is this process's time

import torch
from contenders import Variant, step_of
from machine import Anchors, instruction_set, peak_memory_mb, timed
from plain import PlainPixelCNNpp

from condgen import native
from condgen.progress import Progress
from condgen.train.precision import BF16_IS_FAST, bf16_speed_up
from condgen.train.ranks import choose_device

WARM_UP = 2
CHILD_STEPS = 3


def gflop_per_image(variant: Variant) -> float:
    """Three times what the published network's forward pass multiplies and adds: 9.17 at 40 filters, 36.6 at 80."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = PlainPixelCNNpp(variant.filters, variant.resnets, variant.mixtures)
        network(torch.empty(1, 3, variant.side, variant.side))
    return 3 * counter.get_total_flops() / 1e9


def measure(
    steps: dict[Variant, Callable[[], None]], rounds: int, device: torch.device, between: Callable[[], None],
    progress: Progress,
) -> dict[Variant, list[float]]:  # fmt: skip
    """Seconds of every step in every round, the steps in turn; the warm-up rounds left out."""
    seconds: dict[Variant, list[float]] = {variant: [] for variant in steps}
    for k in range(WARM_UP + rounds):
        for variant, step in steps.items():
            took = timed(step, device)
            if k >= WARM_UP:
                seconds[variant].append(took)
            progress.advance(1)
        between()
    return seconds


def child(variant: Variant, device: torch.device) -> dict[str, float]:
    """In a process of its own: peak memory over three steps, and what the first step took beyond a later one."""
    before, took, wall = peak_memory_mb(device), [], []

    def clocked(function: Callable[[], object]) -> None:
        begun = os.times()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        ended = os.times()
        took.append(sum(ended[:4]) - sum(begun[:4]))  # compilers are children
        wall.append(ended.elapsed - begun.elapsed)

    if variant.compiled and device.type == "cpu":
        clocked(native.library)
    step = step_of(variant, device)
    for _ in range(CHILD_STEPS):
        clocked(step)
    return {
        "memory_of_torch_mb": before,
        "peak_memory_mb": peak_memory_mb(device),
        "first_steps_seconds": sum(took[:-1]) - 2 * took[-1],
        "first_steps_wall_seconds": sum(wall[:-1]) - 2 * wall[-1],
    }


def in_child(variant: Variant, device: torch.device) -> dict[str, Any]:
    """``child``, with an empty cache for the compilers."""
    command = [sys.executable, __file__, "--device", str(device), "--child", json.dumps(asdict(variant))]
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache, "XDG_CACHE_HOME": cache}
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)  # noqa: S603
    return json.loads(done.stdout.splitlines()[-1])


def quotients(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Lower quartile, median and upper quartile of the rounds' quotients."""
    found = [a / b for a, b in zip(above, below, strict=True)]
    return [round(q, 4) for q in statistics.quantiles(found, n=4)] if len(found) > 1 else found * 3


def row(
    variant: Variant, seconds: dict[Variant, list[float]], anchors: Anchors, apart: dict[Variant, dict[str, Any]]
) -> dict[str, Any]:
    """What is reported of one variant."""
    own, work = statistics.median(seconds[variant]), gflop_per_image(variant)
    rate = variant.batch / own
    found: dict[str, Any] = {
        "filters": variant.filters,
        "batch": variant.batch,
        "compiled": variant.compiled,
        "precision": variant.precision,
        "dropout": variant.dropout,
        "images_per_second": round(rate, 2),
        "step_seconds": round(own, 4),
        "gflop_per_image": round(work, 2),
        "fraction_of_peak": round(rate * work / anchors.matmul_gflops, 3),
        "fraction_of_convolution_peak": round(rate * work / anchors.convolution_gflops, 3),
    }
    if not variant.plain:
        for name, dropout in (("ratio_to_plain", "elements"), ("ratio_to_plain_channels", "channels")):
            plain = replace(variant, plain=True, compiled=False, precision="fp32", dropout=dropout)
            low, found[name], high = quotients(seconds[plain], seconds[variant])
            found[f"{name}_quartiles"] = [low, high]
        found["dropout_share"] = 1 - quotients(seconds[replace(variant, dropout="none")], seconds[variant])[1]
    memory = apart.get(variant, {})
    for name in ("peak_memory_mb", "memory_of_torch_mb"):
        found[name] = round(memory[name]) if memory else None
    for name in ("seconds", "wall_seconds") if not variant.plain else ():
        known = variant.compiled and bool(memory)
        found[f"compile_{name}"] = round(memory[f"first_steps_{name}"], 1) if known else None
    return found


def variants_of(filters: int, batch: int, kinds: Sequence[str], sizes: dict[str, Any]) -> list[Variant]:
    """Plain first, then condgen's rows, each followed by the same without dropout."""
    found = [Variant(filters, batch, plain=True, dropout=how, **sizes) for how in ("elements", "channels")]
    for kind in kinds:
        compiled, precision = kind.startswith("compiled"), "bf16" if kind.endswith("bf16") else "fp32"
        for how in ("elements", "none"):
            found.append(Variant(filters, batch, compiled=compiled, precision=precision, dropout=how, **sizes))
    return found


KINDS = ("eager", "compiled", "eager-bf16", "compiled-bf16")


def benchmark(
    sizes: Sequence[tuple[int, int]], kinds: Sequence[str], rounds: int, device: torch.device, *, memory: bool,
    network: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """The whole report.

    Args:
        sizes: (filters, batch) of each group of rows.
        kinds: of ``KINDS``; the bf16 ones are left out where bf16 is slow.
        memory: measure the memory of every row in a process of its own, and the time of compiling.
        network: fields of ``Variant`` that differ from the published network.
    """
    speed_up = bf16_speed_up(device)
    fast = speed_up is not None and speed_up >= BF16_IS_FAST
    kinds = [kind for kind in kinds if fast or not kind.endswith("bf16")]
    groups = [variants_of(filters, batch, kinds, network) for filters, batch in sizes]
    reported = [[v for v in group if v.plain or v.dropout != "none"] for group in groups]
    anchors = Anchors(device)
    apart: dict[Variant, dict[str, Any]] = {}
    seconds: dict[Variant, list[float]] = {}
    if memory:
        with Progress("a process for each row", sum(map(len, reported)), "rows") as progress:
            for variant in (v for group in reported for v in group):
                apart[variant] = in_child(variant, device)
                progress.advance(1, row=variant.name)
    if device.type != "cpu":
        # a training has one of these variants in its process, not the limit's worth of functions for another
        torch._dynamo.config.recompile_limit = 128
    for group in groups:
        steps = {variant: step_of(variant, device) for variant in group}
        with Progress(f"{group[0].filters} filters", len(group) * (WARM_UP + rounds), "steps") as progress:
            seconds |= measure(steps, rounds, device, anchors, progress)
    rows = [row(variant, seconds, anchors, apart) for group in reported for variant in group]
    flat = [variant for group in reported for variant in group]
    return {
        "device": str(device),
        "instruction_set": instruction_set(device),
        "matmul_gflops": round(anchors.matmul_gflops, 1),
        "convolution_gflops": round(anchors.convolution_gflops, 1),
        "bf16_speed_up": speed_up,
        "bf16_is_fast": fast,
        "torch": torch.__version__,
        "rounds": rounds,
        "configurations": [found for found, variant in zip(rows, flat, strict=True) if not variant.plain],
        "plain": [found for found, variant in zip(rows, flat, strict=True) if variant.plain],
    }


def table(report: dict[str, Any]) -> Iterator[str]:
    """The report for people."""
    yield (
        f"{report['device']} ({report['instruction_set']}), torch {report['torch']}; fp32 matmul "
        f"{report['matmul_gflops']:,.0f} GFLOP/s, fp32 convolution {report['convolution_gflops']:,.0f}; bf16 "
        + ("not to be had" if report["bf16_speed_up"] is None else f"{report['bf16_speed_up']:g} times as fast")
    )
    yield f"{'':<34}images/s  of peak  plain x  (channels)  dropout      MB  compile s"
    for found in report["plain"] + report["configurations"]:
        plain = "ratio_to_plain" not in found
        what = "plain" if plain else "compiled" if found["compiled"] else "eager"
        name = f"{found['filters']} filters, batch {found['batch']}, {what} {found['precision']}"
        cells = [f"{name:<34}{found['images_per_second']:8.2f}", f"{found['fraction_of_peak']:7.2f}"]
        if plain:
            cells += [f"  dropout of {found['dropout']:<19}"]
        else:
            cells += [f"{found['ratio_to_plain']:7.2f}", f"{found['ratio_to_plain_channels']:10.2f}"]
            cells += [f"{found['dropout_share']:9.1%}"]
        for key, width in (("peak_memory_mb", 6), ("compile_seconds", 9)):
            value = found.get(key)
            cells.append(f"{'-' if value is None else f'{value:,.0f}':>{width}}")
        yield "  ".join(cells)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[1], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--filters", type=int, nargs="+", default=[40, 80], help="default: 40 (batch 8) and 80 (4)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds that count")
    parser.add_argument(
        "--only", choices=KINDS, nargs="+", default=list(KINDS), help="condgen's rows; plain is always there"
    )
    parser.add_argument("--no-memory", action="store_true", help="leave out memory and compile time: much quicker")
    parser.add_argument("--smoke", action="store_true", help="a tiny network, one round: does it work at all?")
    parser.add_argument("--device", default=None, help="cpu, cuda or cuda:N; default: a GPU where there is one")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds: at least 1")
    torch.set_num_threads(1)
    device = choose_device(options.device)
    if options.child:
        print(json.dumps(child(Variant(**json.loads(options.child)), device)))
        return
    sizes = [(filters, max(1, 320 // filters)) for filters in options.filters]
    network: dict[str, Any] = {}
    if options.smoke:
        sizes, network, options.rounds = [(4, 2)], {"side": 8, "resnets": 1, "mixtures": 2}, 1
    report = benchmark(sizes, options.only, options.rounds, device, memory=not options.no_memory, network=network)
    if options.json:
        print(json.dumps(report))
    else:
        print("\n".join(table(report)))


if __name__ == "__main__":
    main()
