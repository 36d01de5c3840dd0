"""An encoder is tried on two examples before anything is built on what it promises."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from condgen.condition import Batch, Condition, Encoder
from condgen.errors import CondgenError, ModelError

_TOLERANCE = 1e-3
"""Of a part's largest value: what another batch size does to the last bits stays far below, batch statistics above."""


def probe(encoder: Encoder, batch: Batch) -> None:
    """Raises unless ``encoder`` keeps to its contract on ``batch``, two examples or more (see ``Encoder.forward``).

    The result for an example must not depend on its batch mates, in evaluation and, for an encoder that learns, in
    training mode; there one that draws from torch's global generator cannot be judged. The encoder, its buffers and
    its mode are left as they were.

    Raises:
        ModelError: a breach; the sentence names the encoder.
    """
    name, was_training = type(encoder).__name__, encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            before = {key: value.clone() for key, value in batch.items()}
            together = encoder(batch)
            if any(not torch.equal(value, batch[key]) for key, value in before.items()):
                raise ModelError(f"The encoder {name} changes the batch that it is given; let it work on a copy.")
            _compare(name, encoder, batch, together)
            if not encoder.fixed and next(encoder.parameters(), None) is not None:
                _try_in_training(name, encoder, batch)
    finally:
        encoder.train(was_training)


def _try_in_training(name: str, encoder: Encoder, batch: Batch) -> None:
    """As ``_compare`` in training mode, on a copy: batch statistics leave traces in buffers."""
    try:
        encoder = copy.deepcopy(encoder).train()
    except Exception:  # a stranger's encoder may hold what cannot be copied
        return
    devices = [value.device for value in batch.values() if value.is_cuda][:1]
    with torch.random.fork_rng(devices=devices):
        once, twice = encoder(batch), encoder(batch)
        if all(_alike(a, b) for a, b in zip(once.parts, twice.parts, strict=True)):
            _compare(name, encoder, batch, once)


def _compare(name: str, encoder: Encoder, batch: Batch, together: Condition) -> None:
    for k in range(len(together) if together.parts else 0):
        alone_batch = {key: value[k : k + 1] for key, value in batch.items()}
        try:
            alone = encoder(alone_batch)
        except CondgenError as error:
            raise ModelError(
                f"The encoder {name} encodes two examples together but not one alone: {error.message}"
            ) from error
        if not all(_alike(a, b) for a, b in zip(alone.parts, together[k].parts, strict=True)):
            mode = "in training mode " if encoder.training else ""
            raise ModelError(
                f"The encoder {name} makes {mode}another condition of an example when it has batch mates; it may not "
                "use batch statistics (GroupNorm and LayerNorm do not, BatchNorm does)."
            )


def _alike(a: Tensor, b: Tensor) -> bool:
    scale = float(torch.maximum(a.abs().max(), b.abs().max())) if a.numel() else 0.0
    return bool(torch.allclose(a, b, rtol=0.0, atol=_TOLERANCE * scale))
