"""``condgen doctor``: what this machine offers, in one look."""

from __future__ import annotations

import os
import platform
import tempfile
from importlib import metadata, util
from pathlib import Path
from typing import Any

from condgen.cli.options import Debug, Device, Json, Quiet, device_of
from condgen.cli.outcome import answer
from condgen.errors import MachineError, shown

_PACKAGES = ("torch", "torchvision", "numpy", "pillow", "safetensors", "pydantic", "PyYAML", "typer", "rich")
_EXTRAS = {"tensorboard": "curves of a training run", "pytorch_metric_learning": "training by triplets"}
_NAMES = {"pytorch_metric_learning": "triplets"}
"""Of the extras that are not called as their package is."""


def doctor(device: Device = None, as_json: Json = False, quiet: Quiet = False, debug: Debug = False) -> None:
    """Show versions, devices, folders and extras: what to send with a question."""
    import torch

    from condgen.train.precision import bf16_speed_up

    chosen = device_of(device)
    report: dict[str, Any] = {
        "condgen": metadata.version("condgen"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": str(chosen),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bf16_speed_up": bf16_speed_up(chosen),
        "cache_folder": _cache(),
        "working_folder_writable": _writable(Path()),
        "extras": {name: util.find_spec(name) is not None for name in _EXTRAS},
    }
    answer(report, lambda: _lines(report), as_json)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cache() -> dict[str, Any]:
    from condgen.files import cache_folder

    try:
        folder = cache_folder()
    except MachineError as error:
        return {"path": None, "writable": False, "reason": error.message}
    return {"path": str(folder), "writable": _writable(folder)}


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _lines(report: dict[str, Any]) -> str:
    from condgen.train.precision import BF16_IS_FAST

    speed_up, cache = report["bf16_speed_up"], report["cache_folder"]
    packages = ", ".join(f"{name} {version or 'missing'}" for name, version in report["packages"].items())
    if speed_up is None:
        bf16 = "not on this device"
    else:
        advice = "use train.precision=bf16" if speed_up >= BF16_IS_FAST else "leave train.precision at fp32"
        bf16 = f"convolutions at {speed_up:g} times the speed of fp32: {advice}"
    rows = {
        "condgen": f"{report['condgen']} on Python {report['python']}, {report['system']}",
        "packages": packages,
        "device": f"{report['device']} (GPUs: {', '.join(report['gpus']) or 'none'})",
        "cpu": f"{report['cpus']} processors, {report['threads']} threads",
        "bf16": bf16,
        "cache": f"{shown(cache['path'])}" + ("" if cache["writable"] else " (not writable; set XDG_CACHE_HOME)")
        if cache["path"]
        else cache["reason"],
        "this folder": "writable" if report["working_folder_writable"] else "not writable; give --out another folder",
        "extras": ", ".join(
            f"{name} "
            + ("installed" if there else f"missing ({_EXTRAS[name]}; pip install condgen[{_NAMES.get(name, name)}])")
            for name, there in report["extras"].items()
        ),
    }
    return "\n".join(f"{name:<12} {text}" for name, text in rows.items())
