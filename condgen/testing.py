"""``check_encoder``: the whole contract of an encoder on a few examples, for the tests of whoever writes one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from condgen import streams
from condgen.condition import Batch, Condition, DataInfo, Encoder
from condgen.errors import CondgenError, ModelError
from condgen.probe import probe

ALWAYS = ("index", "key")
"""What a batch may have beside the keys that an encoder declares: its place in the set, in training its stream."""


def random_batch(info: DataInfo, size: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """A batch as a data set with such ``info`` gives it in training, of noise: every key, ``size`` examples."""
    indices = np.arange(size)

    def uniforms(*shape: int, purpose: str) -> Tensor:
        return torch.from_numpy(streams.uniforms(int(np.prod(shape)), seed, "random batch", purpose)).view(shape)

    image = uniforms(size, info.channels, info.height, info.width, purpose="image")
    batch = {"image": (image * 2**info.bit_depth).to(torch.uint8), "index": torch.from_numpy(indices)}
    batch["label"] = (uniforms(size, purpose="label") * max(1, len(info.classes))).long()
    if info.attributes:
        batch["attributes"] = (uniforms(size, len(info.attributes), purpose="attributes") < 0.5).to(torch.int8)
    for name, width in info.columns.items():
        batch[name] = torch.special.ndtri(uniforms(size, width, purpose=f"column {name}")).float()
    return batch | {"key": streams.example_keys(indices, seed, "random batch")}


def check_encoder(encoder: Encoder, batch: Batch | None = None) -> Condition:
    """Raises unless ``encoder`` keeps to the contract; what training asks of it, and what shows only later.

    Checked are: shape, dtype, device and finite values of what it yields; that an example's condition owes nothing to
    batch mates; that ``reads`` names every key it uses; that its examples' words parse to batches of one; that a second
    encoder, of the same options and with its weights, makes the same; that its options survive being written down; that
    it works in double precision, and every weight it trains gets a gradient. The encoder is left as it was.

    Args:
        encoder: as a model has it: made with its options and info; after ``freeze`` where it is frozen.
        batch: examples to try, two or more; default: noise in the shape of ``encoder.info``.

    Returns:
        The condition of ``batch``, in evaluation mode, without gradients.

    Raises:
        ModelError: a breach; the sentence names the encoder.
    """
    name = type(encoder).__name__
    batch = random_batch(encoder.info) if batch is None else batch
    if min((len(value) for value in batch.values()), default=0) < 2:
        raise ModelError("Two examples or more are needed to see whether one depends on another; give a larger batch.")
    probe(encoder, batch)
    with _as_evaluated(encoder), torch.no_grad():
        condition: Condition = encoder(batch)
        _check_reads(name, encoder, batch, condition)
        _check_words(name, encoder)
        _check_again(name, encoder, batch, condition)
    _check_gradients(name, encoder, batch)
    _check_double(name, encoder, batch)
    return condition


@contextmanager
def _as_evaluated(encoder: Encoder) -> Iterator[None]:
    was_training = encoder.training
    encoder.eval()
    try:
        yield
    finally:
        encoder.train(was_training)


def _check_reads(name: str, encoder: Encoder, batch: Batch, condition: Condition) -> None:
    declared = {key: value for key, value in batch.items() if key in (*encoder.reads, *ALWAYS)}
    listed = ", ".join(encoder.reads) or "nothing"
    try:
        found = encoder(declared)
    except CondgenError as error:
        raise ModelError(
            f"The encoder {name} needs more of a batch than its reads say ({listed}): {error.message}"
        ) from error
    if not _same(found, condition):
        raise ModelError(
            f"The encoder {name} uses more of a batch than its reads say ({listed}); name every key there."
        )


def _check_words(name: str, encoder: Encoder) -> None:
    for word, value in encoder.examples():
        if word not in encoder.words:
            raise ModelError(
                f"The encoder {name} shows an example of {word!r}, which is none of its words; name it there."
            )
        try:
            h = encoder(encoder.parse(word, value))
        except CondgenError as error:
            raise ModelError(
                f"The encoder {name} does not take its own example {word}={value!r}: {error.message}"
            ) from error
        if len(h) != 1:
            raise ModelError(f"The encoder {name} makes {len(h)} conditions of its example {word}={value!r}; make one.")
    for word in encoder.words:
        try:
            encoder.parse(word, "")
        except CondgenError:
            continue  # an empty word may mean nothing
        except Exception as error:
            raise ModelError(
                f"The encoder {name} fails on an empty --{word} ({type(error).__name__}); answer with a RecipeError."
            ) from error


def _check_again(name: str, encoder: Encoder, batch: Batch, condition: Condition) -> None:
    """What a saved model does: options from JSON, a new encoder, the weights."""
    options = type(encoder.options).model_validate(encoder.options.model_dump(mode="json"))
    if options != encoder.options:
        raise ModelError(
            f"The options of the encoder {name} are others once written down; give them types that JSON has."
        )
    twin = type(encoder)(options, encoder.info)
    if encoder.fixed:
        twin.freeze()
    like = next(encoder.parameters(), next(iter(batch.values())))
    twin.to(device=like.device, dtype=like.dtype if like.is_floating_point() else None).eval()
    try:
        twin.load_state_dict(encoder.state_dict())
    except RuntimeError as error:
        raise ModelError(
            f"The encoder {name} has other weights than a new one of its options ({str(error).splitlines()[0]}); make "
            "all of them in __init__."
        ) from error
    if not _same(twin(batch), condition):
        raise ModelError(
            f"A second {name} with the same options and weights makes another condition; keep what it depends on in "
            "parameters, buffers or options, and draw random numbers by condgen.streams."
        )


def _check_gradients(name: str, encoder: Encoder, batch: Batch) -> None:
    twin = _copied(name, encoder).train()
    trained = {label: weight for label, weight in twin.named_parameters() if weight.requires_grad}
    if not trained:
        return
    condition: Condition = twin(batch)
    loss = sum((part * _weights(part)).sum() for part in condition.parts)
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        raise ModelError(
            f"The condition of the encoder {name} has no gradient, but it has weights to train; do not detach it."
        )
    gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    for label, gradient in zip(trained, gradients, strict=True):
        if gradient is None or not bool(torch.isfinite(gradient).all()):
            what = "no gradient" if gradient is None else "a gradient that is not finite"
            raise ModelError(
                f"The weight {label} of the encoder {name} gets {what}; use it in encode, or make it a buffer."
            )


def _check_double(name: str, encoder: Encoder, batch: Batch) -> None:
    """As train.precision=fp64 has it."""
    twin = _copied(name, encoder).double()
    try:
        with torch.no_grad():
            twin(batch)
    except CondgenError as error:
        raise ModelError(
            f"In double precision (train.precision=fp64) there is this: {error.message} Cast what a layer is given to "
            "the dtype of its weight."
        ) from error


def _copied(name: str, encoder: Encoder) -> Encoder:
    try:
        return copy.deepcopy(encoder)
    except Exception as error:
        raise ModelError(
            f"The encoder {name} cannot be copied ({type(error).__name__}), as verify does; keep files, locks and the "
            "like out of it, in a function of the module."
        ) from error


def _weights(part: Tensor) -> Tensor:
    """Fixed numbers that no layer's symmetry cancels."""
    return (
        torch.linspace(-1, 1, part.numel(), dtype=part.dtype, device=part.device).view(part.shape).cos() + part.detach()
    )


def _same(a: Condition, b: Condition) -> bool:
    return len(a.parts) == len(b.parts) and all(
        x.shape == y.shape and bool(torch.allclose(x, y, rtol=1e-4, atol=1e-6))
        for x, y in zip(a.parts, b.parts, strict=True)
    )
