"""Several processes of one machine that train together, started by one command."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from condgen.errors import MachineError

_GRACE_SECONDS = 30.0
"""How long the others have after one has failed: enough to notice it themselves and to say so."""
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def launch(arguments: Sequence[str], processes: int, device: str | None) -> int:
    """Runs ``condgen ARGUMENTS`` in ``processes`` processes, a GPU for each; signals are passed on to all.

    torchrun does the same over several machines, and says 1 whatever went wrong.

    Returns:
        0, or the exit code of the process that made the others fail.

    Raises:
        MachineError: there are fewer GPUs than processes, and the CPU was not asked for.
    """
    if device != "cpu":
        import torch

        if torch.cuda.device_count() < processes:
            raise MachineError(
                f"--gpus: {processes} GPUs are asked for, {torch.cuda.device_count()} are here; ask for fewer, or add "
                "--device cpu.",
                field="gpus",
            )
    shared = {
        **os.environ,
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // processes)),
    }
    # -P: a yaml.py in the working directory is nobody's business; own sessions: Ctrl-C reaches each through us, once
    command = [sys.executable, "-P", "-m", "condgen", *arguments]
    workers = [
        subprocess.Popen(  # noqa: S603  # our own command, no shell
            command, env={**shared, "RANK": str(k), "LOCAL_RANK": str(k)}, start_new_session=True
        )
        for k in range(processes)
    ]

    def forward(number: int, frame: FrameType | None) -> None:
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        return _watch(workers)
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(workers: Sequence[subprocess.Popen[bytes]]) -> int:
    """Waits for all; once one has failed the others get a little time to leave by themselves."""
    deadline = float("inf")
    while any(worker.poll() is None for worker in workers) and time.monotonic() < deadline:
        if deadline == float("inf") and any(worker.poll() for worker in workers):
            deadline = time.monotonic() + _GRACE_SECONDS
        time.sleep(0.05)
    failed = [code for worker in workers if (code := worker.poll())]
    # who lost another process says MachineError: the other's code is the news
    cause = next((code for code in failed if code != MachineError.exit_code), failed[0] if failed else 0)
    return 128 - cause if cause < 0 else cause  # -9: killed by signal 9, 137 to a shell


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
