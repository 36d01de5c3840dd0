"""What training asks of its process: deterministic kernels, and errors that a person understands."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from condgen.errors import MachineError, RecipeError, lacks_memory


@contextlib.contextmanager
def determinism(wanted: bool, device: torch.device) -> Iterator[None]:
    """Kernels that give the same bits every time; the process's settings and generators are restored."""
    memory: Any = torch.utils.deterministic  # its one attribute is not in the type stubs
    before = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    benchmark = torch.backends.cudnn.benchmark
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        memory.fill_uninitialized_memory = False  # costs time, and nothing reads such memory
        torch.backends.cudnn.benchmark = False
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        memory.fill_uninitialized_memory = before[1]
        torch.backends.cudnn.benchmark = benchmark


def seed_generators(seed: int, device: torch.device) -> None:
    """Seeds torch's global generators, from which nothing of condgen draws: somebody else's encoder may, and then it
    resumes exactly too. (``torch.manual_seed`` also asks for GPUs that nobody uses, ten times as long.)"""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """What torch says of a machine or setting, as our own errors."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if lacks_memory(error):
            raise MachineError(
                "The memory is too small; set a smaller train.micro_batch (it changes no result) and start again.",
                field="train.micro_batch",
            ) from error
        if "use_deterministic_algorithms" in str(error):
            raise RecipeError(
                "train.deterministic: an operation of this model has no deterministic form on this device; "
                "set it to false.",
                field="train.deterministic",
            ) from error
        raise
