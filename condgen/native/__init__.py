"""``kernels.c``, compiled on first use by the machine's own C compiler: a second, once, kept in the cache folder.

The kernels are optional. Each is a faster form of something that torch does as well (``activations.py``,
``weight_norm.py``), equal to it up to the last bits.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condgen.errors import MachineError
from condgen.files import aside_of, cache_folder

_SOURCE = Path(__file__).with_name("kernels.c")
_ALWAYS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-shared", "-fPIC"]
_IF_KNOWN: tuple[list[str], ...] = (["-march=native", "-fopenmp"], ["-fopenmp"], ["-march=native"], [])
"""Tried in turn. The OpenMP library of a compiler and torch's have one name, so that they are one set of threads."""

_LETTERS = {torch.float32: "f", torch.bfloat16: "h"}
"""The types that the kernels know, as their names have them."""


def letters(*tensors: Tensor) -> str | None:
    """The types of ``tensors`` as a kernel's name has them; None where the kernels cannot be used."""
    found = "".join(_LETTERS.get(tensor.dtype, "?") for tensor in tensors)
    return found if "?" not in found and tensors[0].device.type == "cpu" else None


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled kernels.

    Raises:
        MachineError: there is no C compiler, or it fails.
    """
    compiler = shlex.split(os.environ.get("CC", "")) or [
        next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), "cc")
    ]
    source = _SOURCE.read_bytes()
    identity = repr((_ALWAYS, _IF_KNOWN, compiler, _processor(), torch.__version__)).encode()
    place = cache_folder() / f"kernels-{hashlib.sha256(source + identity).hexdigest()[:16]}.so"
    if not place.exists():
        _compile(compiler, place)
    try:
        return ctypes.CDLL(str(place))
    except OSError as error:
        place.unlink(missing_ok=True)
        raise MachineError(f"The compiled kernels cannot be loaded ({error}); check the C compiler.") from error


def _processor() -> str:
    """What ``-march=native`` depends on: a cache folder may serve several machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _compile(compiler: list[str], place: Path) -> None:
    said = ""
    aside = aside_of(place)
    try:
        for known in _IF_KNOWN:
            command = [*compiler, *_ALWAYS, *known, str(_SOURCE), "-o", str(aside)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=120)  # noqa: S603
            except (OSError, subprocess.SubprocessError) as error:
                said = str(error)
                break
            if done.returncode == 0:
                os.replace(aside, place)
                return
            said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
    except OSError as error:
        raise MachineError(f"{place} cannot be written ({error.strerror}); set XDG_CACHE_HOME elsewhere.") from error
    finally:
        aside.unlink(missing_ok=True)
    raise MachineError(f"The C compiler {compiler[0]!r} does not compile the kernels ({said}); install gcc or clang.")


def available() -> bool:
    """Whether there are kernels, compiled now where they were not."""
    try:
        library()
    except MachineError:
        return False
    return True


def step(kernel: str, *fields: Tensor | int | None) -> Callable[[int], object]:
    """A kernel of one column, with everything else it needs: the fields of its struct, tensors by their address."""
    values = [field.data_ptr() if isinstance(field, Tensor) else field or 0 for field in fields]
    struct = (ctypes.c_int64 * len(values))(*values)
    function: Any = library()[kernel]
    function.restype, function.argtypes = None, [ctypes.c_void_p, ctypes.c_int64]
    found = functools.partial(function, ctypes.addressof(struct))
    found.__dict__["kept"] = struct, fields  # what the kernel reads and writes has to live as long as it
    return found


def call(kernel: str, letters: str, *arguments: Tensor | int | float | None) -> None:
    """Calls a kernel for tensors of the types that ``letters`` says, on torch's number of threads."""
    plain = [argument.data_ptr() if isinstance(argument, Tensor) else argument for argument in arguments]
    _function(kernel, letters)(*plain, torch.get_num_threads())


_ARGUMENTS = {
    "concat_elu": "ppp nnnn nnnn puix",
    "concat_elu_backward": "ppp nnnn nn puix",
    "gated_residual": "ppp nnnn nn",
    "gated_residual_backward": "ppp nnnn nn nn",
    "weight_norm": "pppp nn",
    "weight_norm_backward": "pppppp nn",
}
_TYPES: dict[str, Any] = {
    "p": ctypes.c_void_p, "n": ctypes.c_int64, "u": ctypes.c_uint64, "i": ctypes.c_int, "x": ctypes.c_float
}  # fmt: skip


@functools.cache
def _function(kernel: str, letters: str) -> Callable[..., None]:
    function: Any = library()[f"{kernel}_{letters}" if letters else kernel]
    function.restype = None
    function.argtypes = [_TYPES[letter] for letter in _ARGUMENTS[kernel].replace(" ", "") + "i"]
    called: Callable[..., None] = function
    return called
