"""The benchmark of sampling: what it times, what it estimates, and what it prints."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from condgen import native

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def on_the_path() -> Iterator[None]:
    """As it is for ``python benchmarks/sampling.py``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield


def module(name: str) -> Any:
    return importlib.import_module(name)


def run(*arguments: str) -> str:
    command = [sys.executable, str(BENCHMARKS / "sampling.py"), "--smoke", "--device", "cpu", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "error"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_json_has_what_it_promises() -> None:
    report = json.loads(run("--json", "--samplers", "cached", "naive"))
    assert report["matmul_gflops"] > 0 and report["instruction_set"] and report["torch"]
    rows = report["configurations"]
    assert [(row["core"], row["sampler"]) for row in rows] == [
        ("pixelcnn++", "cached"), ("pixelcnn++", "naive"), ("gated", "cached"), ("gated", "naive"),
    ]  # fmt: skip
    for row in rows:
        assert (row["side"], row["channels"], row["batch"], row["filters"]) == (8, 3, 2, 4)
        assert row["compiled_kernel"] is False and row["naive_is_estimated"] is True
        assert row["naive_passes"] == (64 if row["core"] == "pixelcnn++" else 192)
        seconds = row["seconds_per_image"]
        assert row["forward_equivalents"] == pytest.approx(2 * seconds / row["forward_seconds"], abs=1e-3)
        assert row["speedup_over_naive"] == pytest.approx(row["naive_seconds_per_image"] / seconds, abs=0.06)
    # the estimate of the naive sampler's time is about what it takes, and the cached one is faster
    for cached, naive in (rows[:2], rows[2:]):
        assert 0.4 < naive["speedup_over_naive"] < 1.5 and cached["speedup_over_naive"] > naive["speedup_over_naive"]


def test_a_table_for_people() -> None:
    lines = run("--core", "gated").splitlines()
    assert len(lines) == 3 and "fp32 matmul" in lines[0] and "estimated" in lines[1]
    assert lines[2].startswith("gated 8x8, batch 2, cached ")


def test_the_rows_are_those_asked_for() -> None:
    sampling = module("sampling")
    cases = sampling.cases_of(sampling.CORES, [16, 32, 64], [1, 8, 64], ["cached"], torch.device("cpu"))
    compiled = [case for case in cases if case.compiled]
    assert len(compiled) == (3 * 3 + 1 if native.available() else 0)  # PixelCNN++ alone, beside the same by torch
    assert all(replace(case, compiled=False) in cases and case.core == "pixelcnn++" for case in compiled)
    cases = [case for case in cases if not case.compiled]
    assert len(cases) == 2 * 3 * 3 + 1 and (cases[-1].side, cases[-1].channels, cases[-1].batch) == (28, 1, 1)
    on_a_gpu = sampling.cases_of(sampling.CORES, [32], [8], ["cached"], torch.device("cuda"))
    assert (on_a_gpu[-1].filters, on_a_gpu[-1].batch) == (160, 128)
    model = sampling.model_of(sampling.Case("pixelcnn++", 32, 8), torch.device("cpu"))
    assert sum(p.numel() for p in model.core.parameters()) == 3_373_320


def test_impossible_rows_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in ((["--rounds", "0"], "at least 1"), (["--sides", "30"], "multiples of 4")):
        with pytest.raises(SystemExit):
            module("sampling").main(arguments)
        assert words in capsys.readouterr().err
