"""What the benchmarks of speed share: the clock, the machine's own speed just now, its memory and its name."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

MATMULS = (512, 1024, 2048)


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of ``work``: of the processor, or of the GPU by its events."""
    if device.type == "cuda":
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        work()
        ended.record()
        torch.cuda.synchronize()
        return begun.elapsed_time(ended) / 1000
    start = time.process_time()
    work()
    return time.process_time() - start


class Anchors:
    """Fixed work that tells how fast the machine is just now; the best of all calls counts."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.matmul_gflops = self.convolution_gflops = 0.0
        generator = torch.Generator().manual_seed(0)
        self._squares = [torch.randn(N, N, generator=generator).to(device) for N in MATMULS]
        x, weight = (
            torch.randn(*shape, generator=generator).to(device) for shape in ((4, 256, 16, 16), (256, 256, 3, 3))
        )
        self._x, self._weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))

    @torch.no_grad()
    def __call__(self) -> None:
        for a in self._squares:
            for _ in range(2):
                seconds = timed(functools.partial(torch.mm, a, a), self.device)
                self.matmul_gflops = max(self.matmul_gflops, 2 * len(a) ** 3 / seconds / 1e9)
        for _ in range(2):
            seconds = timed(lambda: F.conv2d(self._x, self._weight, padding=1), self.device)
            work = 2 * self._x[:, 0].numel() * self._weight.numel()
            self.convolution_gflops = max(self.convolution_gflops, work / seconds / 1e9)


def peak_memory_mb(device: torch.device) -> float:
    """The most memory that this process had, in 2^20 bytes: resident, or allocated on the GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    # elsewhere; Linux would count the parent's memory in
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def instruction_set(device: torch.device) -> str:
    """The widest vectors that torch uses, and bf16 where the processor has instructions for it; or the GPU's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    found = [torch.backends.cpu.get_cpu_capability()]
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text().split()
        found += [flag.upper() for flag in ("avx512_bf16", "amx_bf16") if flag in flags]
    if "DNNL_MAX_CPU_ISA" in os.environ:
        found.append(f"convolutions at most {os.environ['DNNL_MAX_CPU_ISA']}")
    return ", ".join(found)
