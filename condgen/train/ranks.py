"""The processes that train together. One alone is the case of size 1, and pays nothing for the others.

torchrun's environment says who is who; gloo joins CPUs, NCCL GPUs. Every rank calls every method in the same order.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from condgen.errors import CheckFailed, MachineError

TIMEOUT = datetime.timedelta(seconds=120)
"""After which a rank that does not answer is lost."""
PATIENCE = datetime.timedelta(days=2)
"""How long ranks wait for rank 0 while it reads, evaluates, draws or saves; a death is noticed at once all the same."""


def choose_device(name: str | None) -> torch.device:
    """The device called ``name``, or the best there is: with several processes a GPU for each, else the CPU.

    Raises:
        MachineError: this machine does not have it.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise MachineError(f"There is no device {name!r}; choose cpu or cuda.", field="device") from error
    if device.type == "cuda":
        device = torch.device("cuda", local if device.index is None else device.index)
        count = torch.cuda.device_count()
        if not torch.cuda.is_available() or device.index >= count:
            raise MachineError(f"The device {device} is missing (GPUs here: {count}); choose cpu.", field="device")
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        raise MachineError(f"Training runs on cpu or cuda, not {name!r}.", field="device")
    return device


class Ranks:
    """This process among those that train together.

    Args:
        device: as ``choose_device`` names it.
        timeout: of one reduction.
    """

    def __init__(self, device: str | None = None, timeout: datetime.timedelta = TIMEOUT) -> None:
        self.device = choose_device(device)
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        if self.size > 1:
            with _losing_nobody():
                _join("nccl" if self.device.type == "cuda" else "gloo", timeout)

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which alone writes."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> None:
        """Adds the tensors of all ranks, in place; afterwards all hold the same bits."""
        if self.size > 1:
            with _losing_nobody():
                dist.all_reduce(tensor)

    def wait(self) -> None:
        """Returns when every rank has come here; one may take long."""
        if self.size > 1:
            with _losing_nobody():
                dist.barrier(_patient)

    @contextlib.contextmanager
    def one_after_rank_0(self) -> Iterator[None]:
        """Rank 0 does the block first (it may download or index), then all others at once."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def share_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Everybody's tensors become rank 0's."""
        if self.size > 1:
            for tensor in tensors:
                with torch.no_grad(), _losing_nobody():
                    buffer = tensor.to(self.device, copy=True, memory_format=torch.contiguous_format)
                    dist.broadcast(buffer, 0)
                    tensor.copy_(buffer)

    def share_facts(self, facts: Any) -> Any:
        """Rank 0's ``facts`` (JSON types), for all; travels as text, never as a pickle."""
        if self.size == 1:
            return facts
        text = json.dumps(facts).encode() if self.first else b""
        length = torch.tensor([len(text)], device=self.device)
        self.share_tensors([length])
        data = torch.zeros(int(length), dtype=torch.uint8)
        if self.first:
            data = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        self.share_tensors([data])
        return json.loads(bytes(data.tolist()))

    def check_equal(self, tensors: Iterable[Tensor], what: str) -> None:
        """Raises:
        CheckFailed: a rank holds other bits than another.
        """
        if self.size == 1:
            return
        digest = hashlib.sha256()
        for tensor in tensors:
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
        mine = torch.zeros(self.size, dtype=torch.int64, device=self.device)
        mine[self.rank] = int.from_bytes(digest.digest()[:8], "little", signed=True)
        self.sum(mine)
        found = mine.tolist()
        if len(set(found)) > 1:
            raise CheckFailed(
                f"{what} differ between processes ({found}); give all the same data, versions and kind of device."
            )


_patient: Any = None
"""The group in which ranks wait for rank 0, made once a process."""


def _join(backend: str, timeout: datetime.timedelta) -> None:
    """Once a process: a second training joins the same group, for keys of a closed one would mislead a new one."""
    global _patient
    if not dist.is_initialized():
        dist.init_process_group(backend, timeout=timeout)
        atexit.register(dist.destroy_process_group)
    if _patient is None:
        _patient = dist.new_group(backend="gloo", timeout=PATIENCE)


def abandon() -> None:
    """After an error: leaving a group in good order would mean waiting for peers that may be gone."""
    atexit.unregister(dist.destroy_process_group)


def sum_gradients(parameters: Iterable[torch.nn.Parameter], ranks: Ranks) -> list[Tensor]:
    """The gradients of all ranks, added, as one long vector so that it is one message; zeros where there was none.

    Plain instead of DistributedDataParallel: slices may be uneven or empty, and the sum is divided by the global count.
    """
    gradients = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    if ranks.size > 1 and gradients:
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        ranks.sum(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))
    return gradients


@contextlib.contextmanager
def _losing_nobody() -> Iterator[None]:
    """torch reports a dead or silent peer as a RuntimeError of many wordings."""
    try:
        yield
    except RuntimeError as error:
        raise MachineError(
            "Another process of this training has ended or does not answer; see its message, then start again: "
            "training goes on from the last checkpoint."
        ) from error
