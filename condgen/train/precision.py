"""Whether bf16 is worth having on a device: measured, for a processor that merely knows the type is slower with it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

BF16_IS_FAST = 1.25
"""At least this ``bf16_speed_up``. A wide gap lies around it: where a processor has instructions for bf16, convolutions
gain 1.5 times and more; emulated they take three to ten times as long."""


def bf16_speed_up(device: torch.device, clock: Callable[[], float] | None = None) -> float | None:
    """How many times faster a layer of a training step runs under bf16 autocast than in fp32; None: not at all.

    A convolution like PixelCNN++'s, 2x3 and channels-last, forwards and backwards, casts included. Matmuls would tell
    another story: on some processors their fp32 comes from a slower library than that of convolutions.

    Args:
        clock: seconds that only rise. Default: on a CPU this thread's, for others may be at work; else the wall's.
    """
    clock = clock or (time.thread_time if device.type == "cpu" else time.perf_counter)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        drawn = torch.randn(*shape, generator=generator).to(device)
        return drawn.contiguous(memory_format=torch.channels_last)

    x, weight, gradient = normal(8, 80, 32, 32), normal(80, 80, 2, 3), normal(8, 80, 33, 32)
    x.requires_grad_()
    weight.requires_grad_()

    def seconds(bf16: bool) -> float:
        begun = clock()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            y = F.conv2d(x, weight, padding=(1, 1))
        found, _ = torch.autograd.grad(y, (x, weight), gradient.to(y.dtype))
        found[0, 0, 0, 0].item()  # waits for a GPU
        return clock() - begun

    with torch.enable_grad(), _one_thread():
        try:
            # in turn, so that a change of the processor's speed meets both; the first ones choose kernels
            pairs = [(seconds(False), seconds(True)) for _ in range(8)][3:]
        except RuntimeError:  # no bf16 on this device
            return None
    fp32, bf16 = (min(times) for times in zip(*pairs, strict=True))
    return round(fp32 / bf16, 2)


def bf16_is_fast(device: torch.device) -> bool:
    """Whether training in bf16 is faster than in fp32 on ``device``; takes a fifth of a second."""
    speed_up = bf16_speed_up(device)
    return speed_up is not None and speed_up >= BF16_IS_FAST


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Several threads wait for each other, and that is in the processor's time too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
