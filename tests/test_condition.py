"""Condition as a batch, and the contract of encoders at the door."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from condgen.condition import Batch, Condition, DataInfo, Encoder, Options
from condgen.errors import CondgenError, ModelError, RecipeError

INFO = DataInfo(3, 4, 5)


def both(batch: int = 3) -> Condition:
    generator = torch.Generator().manual_seed(0)
    return Condition(torch.randn(batch, 2, generator=generator), torch.randn(batch, 1, 4, 5, generator=generator))


def test_indexing_keeps_a_batch_and_stacking_undoes_it() -> None:
    condition = both()
    assert len(condition) == 3 and len(condition[1]) == 1 and len(condition[-1]) == 1
    again = Condition.stack([condition[i] for i in range(3)])
    assert all(torch.equal(a, b) for a, b in zip(again.parts, condition.parts, strict=True))
    assert len(condition[torch.tensor([2, 0])]) == 2


def test_repeat_groups_by_condition_and_expand_takes_one_for_all() -> None:
    condition = both()
    repeated = condition.repeat(2)
    assert repeated.vector is not None and condition.vector is not None
    assert torch.equal(repeated.vector[:2], condition.vector[:1].expand(2, -1))
    assert len(condition[0].expand(7)) == 7 and len(Condition().expand(7)) == 1
    with pytest.raises(ModelError, match="batch 3 does not fit 4"):
        condition.expand(4)


@pytest.mark.parametrize("curve", ["lerp", "slerp"])
def test_the_ends_of_an_interpolation_are_the_very_tensors(curve: str) -> None:
    a, b = both()[0], both()[1]
    path = a.interpolate(b, 5, curve)
    assert len(path) == 5
    for end, index in ((a, 0), (b, 4)):
        assert all(torch.equal(x, y) for x, y in zip(path[index].parts, end.parts, strict=True))
    assert path.map is not None and a.map is not None and b.map is not None
    torch.testing.assert_close(path.map[2:3], (a.map + b.map) / 2)


def test_slerp_keeps_the_length_of_unit_vectors() -> None:
    a, b = Condition(torch.tensor([[1.0, 0.0]])), Condition(torch.tensor([[0.0, 1.0]]))
    path = a.interpolate(b, 7, "slerp").vector
    assert path is not None
    torch.testing.assert_close(path.norm(dim=1), torch.ones(7))


def test_wrong_conditions_are_refused() -> None:
    for build in (
        lambda: Condition(torch.zeros(3)),
        lambda: Condition(map=torch.zeros(3, 2)),
        lambda: Condition(torch.zeros(2, 3), torch.zeros(3, 1, 4, 5)),
        lambda: Condition.stack([both(), Condition(both().vector)]),
    ):
        with pytest.raises(ModelError):
            build()
    with pytest.raises(RecipeError, match="lerp or slerp"):
        both()[0].interpolate(both()[1], 3, "straight")
    with pytest.raises(RecipeError, match="at least 2"):
        both()[0].interpolate(both()[1], 1)


class Promising(Encoder):
    """Declares one thing and returns whatever it is given."""

    reads = ("image",)
    vector_size = 2
    map_channels = 1

    def __init__(self, answer: Any) -> None:
        super().__init__(Options(), INFO)
        self.answer = answer

    def encode(self, batch: Batch) -> Condition:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (torch.zeros(2, 2), "not a Condition"),
        (Condition(torch.zeros(2, 2)), "map .* returned nothing"),
        (Condition(torch.zeros(2, 3), torch.zeros(2, 1, 4, 5)), r"vector \(2, 2\) but returned \(2, 3\)"),
        (Condition(torch.zeros(1, 2), torch.zeros(1, 1, 4, 5)), r"returned \(1, 2\)"),
        (Condition(torch.zeros(2, 2), torch.zeros(2, 1, 5, 4)), r"returned \(2, 1, 5, 4\)"),
        (Condition(torch.zeros(2, 2, dtype=torch.long), torch.zeros(2, 1, 4, 5)), "floating point"),
        (Condition(torch.full((2, 2), float("nan")), torch.zeros(2, 1, 4, 5)), "NaN"),
    ],
)
def test_every_breach_of_the_contract_names_the_encoder(answer: Any, words: str) -> None:
    with pytest.raises(ModelError, match=f"Promising.*{words}"):
        Promising(answer)({"image": torch.zeros(2, 3, 4, 5)})


def test_a_batch_without_what_the_encoder_reads_is_refused() -> None:
    with pytest.raises(ModelError, match="reads 'image'"):
        Promising(None)({"label": torch.zeros(2)})


def test_an_encoder_without_words_says_so() -> None:
    with pytest.raises(CondgenError, match="no word 'label'"):
        Promising(None).parse("label", "cat")
