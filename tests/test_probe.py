"""Encoders that break their contract, one way each, and that the sentence says which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from condgen.condition import Batch, Condition, DataInfo, Encoder, Options
from condgen.errors import ModelError, RecipeError
from condgen.probe import probe
from condgen.streams import example_uniforms

INFO = DataInfo(1, 4, 4)


class Encoding(Encoder):
    """A linear layer, then whatever it is given."""

    reads = ("image",)
    vector_size = 4

    def __init__(self, then: Callable[[Any, Tensor, Batch], Any]) -> None:
        super().__init__(Options(), INFO)
        self.linear, self.norm, self.dropout = nn.Linear(16, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.layers = nn.LayerNorm(4)
        self.then = then

    def encode(self, batch: Batch) -> Condition:
        h = self.linear(batch["image"].float().flatten(1) / 255)
        found = self.then(self, h, batch)
        return Condition(vector=found) if isinstance(found, Tensor) else found


def examples() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return {"image": images, "index": torch.arange(2), "key": torch.tensor([5, -9])}


def spoil(encoder: Encoding, h: Tensor, batch: Batch) -> Tensor:
    batch["image"][0, 0, 0, 0] += 1
    return h


def one_only(encoder: Encoding, h: Tensor, batch: Batch) -> Tensor:
    if len(h) == 1:
        raise ValueError("I want company\n")
    return h


def wrong_key(encoder: Encoding, h: Tensor, batch: Batch) -> Tensor:
    return batch["pose"]


def exits(encoder: Encoding, h: Tensor, batch: Batch) -> Tensor:
    raise RecipeError("encoder.size: too small for me; raise it.")


@pytest.mark.parametrize(
    ("then", "words"),
    [
        (lambda e, h, b: h - h.mean(0), "another condition of an example when it has batch mates"),
        (lambda e, h, b: torch.cat([h[:1], h[:1]])[: len(h)], "another condition of an example"),
        (lambda e, h, b: e.norm(h), "together but not one alone.*more than 1 value|in training mode"),
        (lambda e, h, b: h.flip(0), "another condition of an example"),
        (one_only, r"together but not one alone: The encoder Encoding failed \(ValueError: I want company\)"),
        (spoil, "changes the batch"),
        (wrong_key, r"failed \(KeyError: 'pose'\)"),
        (lambda e, h, b: h[:, :3], r"vector \(2, 4\) but returned \(2, 3\)"),
        (lambda e, h, b: h.long(), "floating point"),
        (lambda e, h, b: h / 0, "NaN or infinity"),
        (lambda e, h, b: h.to("meta"), "on meta; its batch is on cpu"),
        (lambda e, h, b: None, "returned NoneType, not a Condition"),
        (lambda e, h, b: Condition(h, h[:, :, None, None].expand(-1, -1, 4, 4)), "no map but returned"),
    ],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_every_breach_has_its_sentence(then: Callable[..., Any], words: str, frozen: bool) -> None:
    encoder = Encoding(then)
    if frozen:
        encoder.freeze()
        if "more than 1 value" in words:  # in evaluation mode a batch norm is a linear map
            return probe(encoder, examples())
    with pytest.raises(ModelError, match=f"The encoder Encoding.*({words})") as caught:
        probe(encoder, examples())
    assert "\n" not in caught.value.message and caught.value.exit_code == 4


@pytest.mark.parametrize(
    "then",
    [
        lambda e, h, b: e.layers(h),
        lambda e, h, b: e.dropout(h),  # of torch's generator: nothing can be said about it
        lambda e, h, b: h + example_uniforms(b["key"], -16, 4).float() if e.training else h,
        lambda e, h, b: h + 1e-7 * len(h),  # what another kernel does to the last bits
    ],
)
def test_what_keeps_the_contract_passes_and_is_left_as_it_was(then: Callable[..., Any]) -> None:
    encoder, before = Encoding(then).train(), torch.get_rng_state()
    weights = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    probe(encoder, examples())
    assert encoder.training and torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in encoder.state_dict().items())


def test_ones_own_errors_stay_what_they_are() -> None:
    with pytest.raises(RecipeError, match="too small for me"):
        probe(Encoding(exits), examples())


def test_no_condition_is_no_breach() -> None:
    class Nothing(Encoder):
        def encode(self, batch: Batch) -> Condition:
            return Condition()

    probe(Nothing(Options(), INFO), examples())


def test_frozen_is_without_gradients_in_evaluation_mode_and_in_full_precision() -> None:
    encoder = Encoding(lambda e, h, b: e.dropout(h))
    encoder.freeze()
    encoder.train()
    assert encoder.fixed and not encoder.training and not encoder.dropout.training
    with torch.autocast("cpu", torch.bfloat16):
        h = encoder(examples()).vector
    assert h is not None and h.dtype == torch.float32 and not h.requires_grad
    assert not any(weight.requires_grad for weight in encoder.parameters())
    learning = Encoding(lambda e, h, b: h)
    with torch.autocast("cpu", torch.bfloat16):
        h = learning(examples()).vector
    assert h is not None and h.dtype == torch.bfloat16 and h.requires_grad


def test_a_condition_that_is_there_is_taken_by_a_frozen_encoder_alone() -> None:
    batch = examples() | {"h.vector": torch.ones(2, 4)}
    encoder = Encoding(lambda e, h, b: h)
    assert not torch.equal(encoder(batch).vector, torch.ones(2, 4))
    encoder.freeze()
    assert torch.equal(encoder(batch).vector, torch.ones(2, 4))
    with pytest.raises(ModelError, match=r"returned \(2, 3\)"):
        encoder(examples() | {"h.vector": torch.ones(2, 3)})


def test_an_encoder_sees_the_source_of_an_example() -> None:
    encoder = Encoding(lambda e, h, b: h if set(b) == {"image", "key"} else None)
    batch, other = examples(), torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    found = encoder({**batch, "source": torch.tensor([7, 8]), "source.image": other}).vector
    assert torch.equal(found, encoder.linear.bias.expand(2, -1))
