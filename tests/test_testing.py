"""``check_encoder``: content with the encoders there are, and with none of the planted breaches."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import Field, field_serializer
from torch import Tensor, nn

import condgen
from condgen import streams
from condgen.condition import Batch, Condition, DataInfo, Encoder, Options
from condgen.encoders.labels import LabelOptions, Labels
from condgen.encoders.plain import NoCondition, Vector, VectorOptions
from condgen.errors import ModelError, RecipeError
from condgen.testing import random_batch

INFO = DataInfo(3, 6, 5, 4, classes=("a", "b", "c"), attributes=("x", "y"), columns={"vector": 2, "other": 1})


class Good(Encoder):
    """A vector and a map of the image, learned; one word."""

    reads: tuple[str, ...] = ("image",)
    words: tuple[str, ...] = ("grey",)
    vector_size = 3
    map_channels = 2

    def __init__(self, options: Any, info: DataInfo) -> None:
        super().__init__(options, info)
        self.layer = nn.Conv2d(info.channels, 2, 1)
        self.out = nn.Linear(2, 3)

    def encode(self, batch: Batch) -> Condition:
        features = self.layer(batch["image"].to(self.layer.weight.dtype) / 15)
        return Condition(self.out(features.mean((2, 3))), features)

    def parse(self, word: str, value: str) -> dict[str, Tensor]:
        if word != "grey" or not value.isdigit():
            raise RecipeError("--grey: a number.")
        info = self.info
        return {"image": torch.full((1, info.channels, info.height, info.width), int(value), dtype=torch.uint8)}

    def examples(self) -> list[tuple[str, str]]:
        return [("grey", "3"), ("grey", "15")]


def made(kind: type[Encoder], options: Options | None = None, info: DataInfo = INFO) -> Encoder:
    torch.manual_seed(0)
    return kind(options or kind.Options(), info)


def test_a_random_batch_has_what_a_data_set_gives() -> None:
    batch = random_batch(INFO, 5)
    assert batch["image"].shape == (5, 3, 6, 5) and batch["image"].max() == 15 and batch["image"].dtype == torch.uint8
    assert batch["label"].dtype == torch.int64 and set(batch["label"].tolist()) <= {0, 1, 2}
    assert batch["attributes"].shape == (5, 2) and batch["attributes"].dtype == torch.int8
    assert batch["vector"].shape == (5, 2) and batch["other"].shape == (5, 1) and batch["vector"].dtype == torch.float32
    assert batch["index"].tolist() == [0, 1, 2, 3, 4] and len(set(batch["key"].tolist())) == 5
    assert all(torch.equal(value, random_batch(INFO, 5)[key]) for key, value in batch.items())
    assert "attributes" not in random_batch(DataInfo(1, 2, 2))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Good, None),
        (NoCondition, None),
        (Vector, VectorOptions()),
        *((Labels, LabelOptions(code=code)) for code in ("one_hot", "embedding", "attributes")),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_encoders_that_keep_to_the_contract(kind: type[Encoder], options: Options | None, training: bool) -> None:
    encoder = made(kind, options).train(training)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    condition = condgen.check_encoder(encoder)
    assert len(condition) == (4 if condition.parts else 1)
    assert all(not part.requires_grad for part in condition.parts)
    assert encoder.training == training and all(weight.grad is None for weight in encoder.parameters())
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in before.items())


def test_frozen_in_double_and_on_a_batch_of_one_s_own() -> None:
    encoder = made(Good).double()
    encoder.freeze()
    h = condgen.check_encoder(encoder, random_batch(INFO, 3, seed=1))
    assert len(h) == 3 and h.vector is not None and h.vector.dtype == torch.float64
    with pytest.raises(ModelError, match="Two examples or more"):
        condgen.check_encoder(encoder, random_batch(INFO, 1))


class Mates(Good):
    def encode(self, batch: Batch) -> Condition:
        h = super().encode(batch)
        return Condition(h.vector if h.vector is None else h.vector - h.vector.mean(0), h.map)


class Narrow(Good):
    vector_size = 4


class Greedy(Good):
    reads: tuple[str, ...] = ()


class Curious(Good):
    """Works without labels, but not as with them."""

    def encode(self, batch: Batch) -> Condition:
        h = super().encode(batch)
        return Condition(h.vector if h.vector is None or "label" not in batch else h.vector + 1, h.map)


class Unnamed(Good):
    words: tuple[str, ...] = ()


class Strange(Good):
    def examples(self) -> list[tuple[str, str]]:
        return [("grey", "dark")]


class Many(Good):
    def parse(self, word: str, value: str) -> dict[str, Tensor]:
        return {"image": super().parse(word, value)["image"].repeat(2, 1, 1, 1)}


class Crash(Good):
    def examples(self) -> list[tuple[str, str]]:
        return []

    def parse(self, word: str, value: str) -> dict[str, Tensor]:
        return {"image": torch.full((1, 3, 6, 5), int(value), dtype=torch.uint8)}


class Late(Good):
    """Makes a layer when it sees the first image."""

    def encode(self, batch: Batch) -> Condition:
        if not hasattr(self, "late"):
            self.late = nn.Linear(3, 3)
        h = super().encode(batch)
        return Condition(h.vector if h.vector is None else self.late(h.vector.to(self.late.weight)), h.map)


class Forgetful(Good):
    """Its scale is neither a weight nor an option."""

    scale = 1.0

    def encode(self, batch: Batch) -> Condition:
        h = super().encode(batch)
        return Condition(h.vector if h.vector is None else h.vector * self.scale, h.map)


class Unlearned(Good):
    def __init__(self, options: Any, info: DataInfo) -> None:
        super().__init__(options, info)
        self.spare = nn.Linear(2, 2)


class Detached(Good):
    def encode(self, batch: Batch) -> Condition:
        return super().encode(batch).detach()


class Single(Good):
    def encode(self, batch: Batch) -> Condition:
        features = self.layer(batch["image"].float() / 15)
        return Condition(self.out(features.mean((2, 3))), features)


class Locked(Good):
    def __init__(self, options: Any, info: DataInfo) -> None:
        super().__init__(options, info)
        self.lock = threading.Lock()


class RoundedOptions(Options):
    share: float = Field(0.123, description="A share.")

    @field_serializer("share")
    def rounded(self, value: float) -> float:
        return round(value, 1)


class Rounded(Good):
    Options = RoundedOptions


BREACHES: list[tuple[type[Encoder], str]] = [
    (Mates, "may not use batch statistics"),
    (Narrow, r"declares a vector \(4, 4\) but returned \(4, 3\)"),
    (Greedy, r"Greedy needs more of a batch than its reads say \(nothing\): The encoder Greedy failed \(KeyError"),
    (Curious, r"Curious uses more of a batch than its reads say \(image\); name every key there\."),
    (Unnamed, "shows an example of 'grey', which is none of its words"),
    (Strange, "does not take its own example grey='dark': --grey: a number"),
    (Many, "makes 2 conditions of its example grey='3'; make one"),
    (Crash, r"fails on an empty --grey \(ValueError\); answer with a RecipeError"),
    (Late, "Late has other weights than a new one of its options"),
    (Forgetful, "A second Forgetful with the same options and weights makes another condition"),
    (Unlearned, "The weight spare.weight of the encoder Unlearned gets no gradient"),
    (Detached, "The condition of the encoder Detached has no gradient"),
    (Single, r"In double precision \(train\.precision=fp64\) there is this: The encoder Single failed"),
    (Locked, r"Locked cannot be copied \(TypeError\), as verify does"),
    (Rounded, "The options of the encoder Rounded are others once written down"),
]


@pytest.mark.parametrize(("kind", "words"), BREACHES, ids=[kind.__name__ for kind, _ in BREACHES])
def test_every_breach_has_a_sentence(kind: type[Encoder], words: str) -> None:
    encoder = made(kind)
    if kind is Forgetful:
        encoder.scale = 2.0  # type: ignore[assignment]
    with pytest.raises(ModelError, match=words) as caught:
        condgen.check_encoder(encoder)
    assert caught.value.message.endswith(".") and encoder.training


def test_random_numbers_of_one_s_own() -> None:
    """Of torch's generator they are a breach, by the example's key they are not."""

    def kind(noise: Callable[[Batch], Tensor]) -> type[Encoder]:
        class Noisy(Encoder):
            reads = ("image",)
            vector_size = 2

            def encode(self, batch: Batch) -> Condition:
                return Condition(noise(batch))

        return Noisy

    keyed = kind(lambda batch: streams.example_uniforms(batch.get("key", batch["index"]), -16, 2))
    assert len(condgen.check_encoder(made(keyed))) == 4
    with pytest.raises(ModelError):
        condgen.check_encoder(made(kind(lambda batch: torch.rand(len(batch["image"]), 2))))
