"""Weights that other programs saved, read with suspicion: names and numbers come out, nothing in a file is executed.

NumPy's ``.npz``, state dicts of torch (``.pt``, ``.pth``, ``.safetensors``), and TensorFlow's checkpoints where that is
installed. What the names mean is not known here (``layouts.py``).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condgen.errors import InputError, MachineError, ModelError, shown
from condgen.files import open_regular, read_regular
from condgen.npz import Npz
from condgen.store.tensors import PRECISIONS, parse

_LIMIT = 1 << 36
_NO_WEIGHTS = re.compile(r"images|labels|config|output|loss.*|bits_per_dim|variable_order|state_dict_order|grad/.*")
"""What an .npz may hold beside weights: images to compare with, what came out for them, how it was made."""
_OF_THE_OPTIMISER = re.compile(r"Variable(_\d+)?|.*/Adam(_1)?", re.DOTALL)
"""What checkpoints hold beside weights, the labels that samples are drawn for included."""
_WRAPPINGS = ("state_dict", "model_state_dict", "model")
"""Keys under which training programs put the state dict beside epochs and optimisers."""
_CHECKPOINT_PART = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")

_NOT_INSTALLED = 3
_LINES = f"""
import sys
import numpy as np
try:
    import tensorflow
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit({_NOT_INSTALLED})
reader = tensorflow.train.load_checkpoint(sys.argv[1])
names = [name for name, shape in reader.get_variable_to_shape_map().items() if len(shape)]
np.savez(sys.argv[2], **{{name: reader.get_tensor(name) for name in names}})
"""
"""From a checkpoint to an .npz of its variables; single numbers (steps, powers) are nobody's weights."""


@dataclass(frozen=True)
class ForeignWeights:
    """A file's tensors by its own names, and what it says of the model beside them."""

    path: Path
    tensors: Mapping[str, Tensor]
    image_size: tuple[int, int] | None = None
    """(height, width) of the images that lie in the file."""
    nonlinearity: str | None = None


def read_foreign(path: Path) -> ForeignWeights:
    """The weights at ``path``: a file, or the prefix or folder of a TensorFlow checkpoint.

    Raises:
        ModelError: there is none, it is damaged, or it cannot be read without executing what it holds.
        MachineError: a TensorFlow checkpoint, and TensorFlow is not installed.
    """
    kind = path.suffix.lower()
    if kind == ".npz":
        return _npz(path, _NO_WEIGHTS)
    if kind in (".pt", ".pth"):
        return ForeignWeights(path, _state_dict(_unpickled(path), path))
    if kind == ".safetensors":
        return ForeignWeights(path, _state_dict(parse(read_regular(path, _LIMIT, error=ModelError), path), path))
    prefix = _CHECKPOINT_PART.sub("", str(path))
    try:
        there = os.path.isfile(f"{prefix}.index") or os.path.lexists(prefix)
    except ValueError:  # a NUL in the name
        there = False
    if not there:
        raise ModelError(
            f"There is no {shown(path)}; name an .npz, .pth, .pt or .safetensors file, or a TensorFlow checkpoint.",
            file=path,
        )
    return ForeignWeights(path, _tensorflow(prefix, path))


def _npz(path: Path, ignored: re.Pattern[str]) -> ForeignWeights:
    try:
        with Npz(path) as npz:
            tensors = {name: _tensor(npz.read(name), name, path) for name in npz.headers if not ignored.fullmatch(name)}
            said = npz.read("config").reshape(-1)[:1].tolist() if "config" in npz.headers else [""]
            shape = npz.headers["images"].shape if "images" in npz.headers else ()
    except InputError as error:  # of data that would be right, of weights it is the model that cannot be used
        raise ModelError(error.message, file=path) from error
    config = _object(said[0] if said else "")
    if len(shape) == 4:
        size: tuple[Any, Any] = shape[1:3]
    else:
        size = config.get("height"), config.get("width")
    known = all(type(side) is int and side > 0 for side in size)
    nonlinearity = config.get("resnet_nonlinearity")
    return ForeignWeights(
        path, tensors, size if known else None, nonlinearity if isinstance(nonlinearity, str) else None
    )


def _object(text: object) -> dict[str, Any]:
    """The JSON object in ``text``; an empty one if it is none: it is only a hint."""
    try:
        found = json.loads(str(text))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _tensor(values: np.ndarray, name: str, path: Path) -> Tensor:
    if values.dtype.kind != "f":
        raise ModelError(
            f"{shown(path)}: {shown(name)[:200]} holds {values.dtype}, and weights are floating-point numbers; leave "
            "it out, or save it as float32.",
            file=path,
        )
    return torch.from_numpy(values.astype(np.float32))


def _unpickled(path: Path) -> object:
    with os.fdopen(open_regular(path, error=ModelError), "rb") as file:
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        except Exception as error:  # its parsers raise anything on bytes that are none of theirs
            wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
            if wanted:
                raise ModelError(
                    f"{shown(path)} needs {wanted[1][:100]} to be loaded, and nothing that a file asks for is run; "
                    "save the model's state_dict() alone.",
                    file=path,
                ) from error
            raise ModelError(
                f"{shown(path)} is damaged, or no file of torch.save that holds tensors alone; save the model's "
                "state_dict() again.",
                file=path,
            ) from error


def _state_dict(found: object, path: Path) -> dict[str, Tensor]:
    """Names and tensors of a state dict, freed of what programs wrap around it."""
    for key in _WRAPPINGS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
    ):
        raise ModelError(
            f"{shown(path)} holds no state dict of names and tensors; save the model's state_dict() alone.", file=path
        )
    for name, value in found.items():
        if not (value.dtype in PRECISIONS and value.layout == torch.strided and value.device.type == "cpu"):
            raise ModelError(
                f"{shown(path)}: {shown(name)[:200]} holds no plain floating-point numbers of 16 to 64 bits; leave it "
                "out, or save it as float32.",
                file=path,
            )
    parallel = bool(found) and all(name.startswith("module.") for name in found)  # of DataParallel
    return {name.removeprefix("module.") if parallel else name: value.detach() for name, value in found.items()}


def _tensorflow(prefix: str, path: Path) -> dict[str, Tensor]:
    with tempfile.TemporaryDirectory(prefix="condgen-") as folder:
        copy = Path(folder) / "variables.npz"
        # a process of its own: together with torch's compiler in one, TensorFlow's libraries crash
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-P", "-c", _LINES, prefix, str(copy)],
            capture_output=True,
            text=True,
            errors="backslashreplace",
            env={"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ},
        )
        reason = shown((done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1])[:200]
        if done.returncode == _NOT_INSTALLED:
            raise MachineError(
                f"{shown(path)} is read as a TensorFlow checkpoint, and tensorflow cannot be used here ({reason}); "
                "install it, or make an .npz of the checkpoint where it is (docs/import.md has the lines).",
                file=path,
            )
        if done.returncode:
            raise ModelError(
                f"{shown(path)} is no TensorFlow checkpoint that can be read ({reason}); name its prefix or its "
                "folder.",
                file=path,
            )
        return dict(_npz(copy, _OF_THE_OPTIMISER).tensors)
