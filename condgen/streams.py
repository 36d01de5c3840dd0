"""Randomness as a function: every stream is keyed by (seed, purpose, ...) and owes nothing to what ran before.

No code of condgen draws from a global generator. Order and sampling noise come from NumPy's counter-based Philox;
masks for single examples (dropout, hidden attributes) from an integer hash that gives the same bits on every device,
so that moving an example to another rank, row or micro-batch changes nothing.

Legend: B examples, n values per example.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit integer: SplitMix64's increment
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def key(seed: int, *purpose: int | str) -> int:
    """A 64-bit key (signed) for the stream named by ``purpose`` under ``seed``."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def philox(seed: int, *purpose: int | str) -> np.random.Philox:
    """The counter-based bit generator of the stream named by ``purpose``."""
    return np.random.Philox(key=key(seed, *purpose) % 2**64)


def uniforms(count: int, seed: int, *purpose: int | str) -> np.ndarray:
    """``count`` float64 uniforms in the open interval (0, 1), multiples of 2^-53 plus half a step."""
    raw = philox(seed, *purpose).random_raw(count)
    return ((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def permutation(count: int, seed: int, *purpose: int | str) -> np.ndarray:
    """A random permutation of ``range(count)``, int64.

    Sorting raw words instead of calling ``Generator.permutation``: the former is fixed by Philox for all time, the
    latter may change with NumPy's version.
    """
    return np.argsort(philox(seed, *purpose).random_raw(count), kind="stable")


def _started(keys: Tensor, stream: int) -> Tensor:
    """The state from which ``stream`` of each key counts, (B, 1)."""
    signed = (offset(stream) + 2**63) % 2**64 - 2**63
    return _mix(keys + signed)[:, None]


def offset(stream: int) -> int:
    """What is added to a key, modulo 2^64, before it starts ``stream``: for kernels that draw by themselves."""
    return stream * _MIX_2 % 2**64


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele et al. 2014) on int64, in place; shifts are made logical by masking."""
    x = (x ^ ((x >> 30) & (2**34 - 1))).mul_(_MIX_1)
    x = (x ^ ((x >> 27) & (2**37 - 1))).mul_(_MIX_2)
    return x ^ ((x >> 31) & (2**33 - 1))


def example_keys(indices: np.ndarray, seed: int, *purpose: int | str) -> Tensor:
    """One int64 key per example, (B,), a function of ``(seed, purpose, index)``."""
    base = key(seed, *purpose)
    return _mix(torch.from_numpy(np.ascontiguousarray(indices, dtype=np.int64)).mul(_GOLDEN).add_(base))


def example_bytes(keys: Tensor, stream: int, count: int) -> Tensor:
    """Random bytes for each example, uint8 (B, count), on the device of ``keys`` (B,) int64.

    ``stream`` separates users of the same key. Of the keys of training examples these are taken: 0 and up by dropout,
    call by call, -1 by flips, -2 by the labels encoder, -3 by dequantisation, -4 by the dropping of conditions,
    -5 by the encoders of views (noise, holes), -6 by augmentation, -7 by pairs, -8 by the face encoder; encoders of
    others take -16 and below.
    """
    words = -(-count // 8)
    counter = torch.arange(words, device=keys.device, dtype=torch.int64) * _GOLDEN  # (words,)
    return _mix(_started(keys, stream) + counter).view(torch.uint8)[:, :count]  # (B, 8 words) -> (B, count)


def example_uniforms(keys: Tensor, stream: int, count: int) -> Tensor:
    """float64 uniforms in (0, 1) for each example, (B, count), on the device of ``keys``."""
    counter = torch.arange(count, device=keys.device, dtype=torch.int64) * _GOLDEN
    raw = (_mix(_started(keys, stream) + counter) >> 11) & (2**53 - 1)
    return (raw.double() + 0.5) * 2.0**-53
