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
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condgen.errors import InputError, MachineError, ModelError, lacks_memory, shown
from condgen.files import open_regular, read_regular
from condgen.npz import Npz
from condgen.store.tensors import PRECISIONS, parse

_LIMIT = 1 << 36
_NO_WEIGHTS = re.compile(r"images|labels|config|output|loss.*|bits_per_dim|variable_order|state_dict_order|grad/.*")
"""What an .npz may hold beside weights: images to compare with, what came out for them, how it was made."""
_OF_THE_OPTIMISER = re.compile(r"Variable(_\d+)?|.*/Adam(_1)?", re.DOTALL)
"""What checkpoints hold beside weights, the labels that samples are drawn for included."""
_COUNTERS = ".num_batches_tracked"
"""How names end that BatchNorm counts its batches under: no weights."""
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
    """A file's tensors by its own names, and what it says of the model beside them.

    Of an .npz only headers are read until it is known which tensors are wanted: a small file may hold large ones.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[Collection[str]], dict[str, Tensor]]
    """The tensors of these names, each of its own precision. Raises ModelError: one is damaged."""
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
        return _npz(path)
    if kind in (".pt", ".pth"):
        return _whole(path, _state_dict(_unpickled(path), path))
    if kind == ".safetensors":
        return _whole(path, _state_dict(parse(read_regular(path, _LIMIT, error=ModelError), path), path))
    prefix = _CHECKPOINT_PART.sub("", str(path))
    if not _checkpoint_at(prefix):
        what = f"{shown(path)} is no TensorFlow checkpoint, which has an .index file"
        raise ModelError(
            f"{what if os.path.lexists(path) else f'There is no {shown(path)}'}; name an .npz, .pth, .pt or "
            ".safetensors file, or the prefix or folder of a TensorFlow checkpoint.",
            file=path,
        )
    return _whole(path, _tensorflow(prefix, path))


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file of weights by their names, each of its own precision; nothing in the file is executed.

    Args:
        path: a state dict of torch (``.pt``, ``.pth``, ``.safetensors``; BatchNorm's counters are left out), an
            ``.npz``, or a TensorFlow checkpoint.

    Raises:
        ModelError: there is none, it is damaged, or it cannot be read without executing what it holds.
        MachineError: a TensorFlow checkpoint, and TensorFlow is not installed.
    """
    found = read_foreign(Path(path))
    return found.read(found.shapes)


def _whole(path: Path, tensors: Mapping[str, Tensor]) -> ForeignWeights:
    """Of tensors that lie in memory."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return ForeignWeights(path, shapes, lambda names: {name: tensors[name] for name in names})


def _npz(path: Path) -> ForeignWeights:
    try:
        with Npz(path) as npz:
            shapes = _shapes(npz, _NO_WEIGHTS)
            said = npz.read("config").reshape(-1)[:1].tolist() if "config" in npz.headers else [""]
            shape = npz.headers["images"].shape if "images" in npz.headers else ()
    except InputError as error:  # of data that would be right, of weights it is the model that cannot be used
        raise ModelError(error.message, file=path) from error

    def read(names: Collection[str]) -> dict[str, Tensor]:
        tensors = _members(path, names)
        if any(tuple(tensor.shape) != shapes[name] for name, tensor in tensors.items()):
            raise ModelError(f"{shown(path)} changed while it was read; try again when it is finished.", file=path)
        return tensors

    config = _object(said[0] if said else "")
    if len(shape) == 4:
        size: tuple[Any, Any] = shape[1:3]
    else:
        size = config.get("height"), config.get("width")
    known = all(type(side) is int and side > 0 for side in size)
    nonlinearity = config.get("resnet_nonlinearity")
    return ForeignWeights(
        path, shapes, read, size if known else None, nonlinearity if isinstance(nonlinearity, str) else None
    )


def _shapes(npz: Npz, ignored: re.Pattern[str]) -> dict[str, tuple[int, ...]]:
    for name, header in npz.headers.items():
        if not ignored.fullmatch(name) and (header.dtype.kind != "f" or header.dtype.itemsize > 8):
            raise ModelError(
                f"{shown(npz.path)}: {shown(name)[:200]} holds {header.dtype}, and weights are floating-point numbers "
                "of 16 to 64 bits; leave it out, or save it as float32.",
                file=npz.path,
            )
    return {name: header.shape for name, header in npz.headers.items() if not ignored.fullmatch(name)}


def _members(path: Path, names: Collection[str]) -> dict[str, Tensor]:
    try:
        with Npz(path) as npz:
            arrays = {name: npz.read(name) for name in names}
    except (InputError, KeyError) as error:  # KeyError: another file than the one whose headers were read
        message = error.message if isinstance(error, InputError) else f"{shown(path)} changed; try again."
        raise ModelError(message, file=path) from error
    # torch has this machine's byte order alone, and wants to own what it may write to
    return {name: torch.from_numpy(values.astype(values.dtype.newbyteorder("="))) for name, values in arrays.items()}


def _object(text: object) -> dict[str, Any]:
    """The JSON object in ``text``; an empty one if it is none: it is only a hint."""
    try:
        found = json.loads(str(text))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _unpickled(path: Path) -> object:
    with os.fdopen(open_regular(path, error=ModelError), "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kinds of tensors that are refused anyway
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # its parsers raise anything on bytes that are none of theirs
            if lacks_memory(error):
                raise
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
    found = {name: value for name, value in found.items() if not name.endswith(_COUNTERS)}
    left: dict[int, int] = {}
    for name, value in found.items():
        if not (value.dtype in PRECISIONS and value.layout == torch.strided and value.device.type == "cpu"):
            raise ModelError(
                f"{shown(path)}: {shown(name)[:200]} holds no plain floating-point numbers of 16 to 64 bits; leave it "
                "out, or save it as float32.",
                file=path,
            )
        # expanded or shared, a few bytes stand for any number of weights
        memory = value.untyped_storage()
        left[memory.data_ptr()] = left.get(memory.data_ptr(), memory.nbytes()) - value.numel() * value.element_size()
        if left[memory.data_ptr()] < 0:
            raise ModelError(
                f"{shown(path)}: {shown(name)[:200]} has fewer numbers of its own than its shape "
                f"{tuple(value.shape)} claims; save every tensor's clone().",
                file=path,
            )
    parallel = bool(found) and all(name.startswith("module.") for name in found)  # of DataParallel
    return {name.removeprefix("module.") if parallel else name: value.detach() for name, value in found.items()}


def _checkpoint_at(prefix: str) -> bool:
    """Whether ``prefix``, or a folder of this name, has what TensorFlow's checkpoints have: to
    say so it need not be installed."""
    if os.path.isfile(f"{prefix}.index"):
        return True
    try:
        with os.scandir(prefix) as entries:
            return any(entry.name == "checkpoint" or entry.name.endswith(".index") for entry in entries)
    except (OSError, ValueError):  # no folder, or not ours to read; a NUL in the name
        return False


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
        with Npz(copy) as npz:
            return _members(copy, _shapes(npz, _OF_THE_OPTIMISER))
