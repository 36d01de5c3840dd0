"""The triplet loss and its mining against loops over every triplet, and embeddings that are gathered with gradient."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condgen.condition import Batch, Condition, DataInfo, Encoder, Options
from condgen.embedding import Embedding
from condgen.errors import MachineError, ModelError
from condgen.recipe import TrainSection
from condgen.train.triplets import TripletObjective, gathered

MARGIN = 0.3
MODES = ("semihard", "hard", "all")


class Line(Encoder):
    """One linear layer over the pixels."""

    reads = ("image",)
    vector_size = 3

    def __init__(self, norm: bool = False) -> None:
        super().__init__(Options(), DataInfo(1, 2, 3))
        self.line = nn.Linear(6, 3, dtype=torch.float64)
        self.norm = nn.BatchNorm1d(3) if norm else None

    def encode(self, batch: Batch) -> Condition:
        return Condition(vector=self.line(batch["image"].to(self.line.weight.dtype).flatten(1) / 255))


class OneRank:
    rank, size = 0, 1

    def sum(self, tensor: Tensor) -> None:
        raise AssertionError("alone")


def section(mining: str = "all", batch_size: int = 12) -> TrainSection:
    return TrainSection.model_validate({"batch_size": batch_size, "views": 2, "margin": MARGIN, "mining": mining})


def objective(mining: str = "all", ranks: Any = None, batch_size: int = 12) -> TripletObjective:
    return TripletObjective(Embedding(Line(), DataInfo(1, 2, 3)), section(mining, batch_size), ranks or OneRank())


def slow(vectors: Tensor, labels: Tensor, mining: str) -> list[float]:
    """FaceNet's loss, a triplet at a time, as a mean over the triplets of each anchor."""
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    found: list[list[float]] = [[] for _ in labels]
    for a, p, n in itertools.permutations(range(len(labels)), 3):
        if labels[a] != labels[p] or labels[a] == labels[n]:
            continue
        positive, negative = float((unit[a] - unit[p]).square().sum()), float((unit[a] - unit[n]).square().sum())
        wanted = {
            "semihard": positive < negative < positive + MARGIN,
            "hard": negative <= positive,
            "all": negative < positive + MARGIN,
        }
        if wanted[mining]:
            found[a].append(positive - negative + MARGIN)
    return [float(np.mean(losses)) if losses else 0.0 for losses in found]


@pytest.mark.parametrize("mining", MODES)
@pytest.mark.parametrize("seed", range(3))
def test_losses_of_mined_triplets(mining: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (12,), generator=generator) * 1_000_000_007
    found = objective(mining).losses_of(vectors, labels)
    assert found.tolist() == pytest.approx(slow(vectors, labels, mining), abs=1e-12)
    assert (found > 0).any()


def test_the_three_kinds_differ() -> None:
    vectors = torch.randn(12, 3, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    labels = torch.arange(12) // 3
    assert len({tuple(slow(vectors, labels, mining)) for mining in MODES}) == 3


def test_no_triplet_is_no_loss_and_no_gradient() -> None:
    vectors = torch.eye(3, dtype=torch.float64)[[0, 0, 1, 1]].requires_grad_()
    losses = objective("semihard").losses_of(vectors, torch.tensor([5, 5, 6, 6]))
    losses.sum().backward()
    assert losses.tolist() == [0, 0, 0, 0] and vectors.grad is not None and not vectors.grad.any()


def test_gradient_is_that_of_the_written_out_loss() -> None:
    vectors = torch.randn(8, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    labels = torch.arange(8) // 2
    assert torch.autograd.gradcheck(lambda v: objective("all").losses_of(v, labels), [vectors])


def test_bf16_embeddings_are_compared_in_fp32() -> None:
    model = objective().module.float()
    batch = {"image": torch.randint(0, 256, (4, 1, 2, 3), dtype=torch.uint8), "label": torch.tensor([0, 0, 1, 1])}
    with torch.autocast("cpu", torch.bfloat16):
        made = TripletObjective(model, section(batch_size=4), OneRank())
        assert made.loss(batch).dtype in (torch.float32, torch.float64)


class Group:
    """Ranks that take turns: ``sum`` of one adds what the others have left for the same call."""

    def __init__(self, parts: list[Tensor], rank: int, size: int, whole: int) -> None:
        self.rank, self.size = rank, size
        self._parts, self._whole = parts, whole
        self.summed: list[Tensor] = []

    def sum(self, tensor: Tensor) -> None:
        self.summed.append(tensor.clone())
        if len(self.summed) == 1:  # the forward pass: the others' rows
            tensor.zero_().add_(torch.cat(self._parts))


def test_gathering_uneven_shares_with_gradient() -> None:
    parts = [torch.randn(n, 3, dtype=torch.float64) for n in (2, 3, 1)]
    firsts = [0, 2, 5]
    weights = [torch.randn(6, 3, dtype=torch.float64) for _ in parts]  # what each rank makes of the whole
    everything = torch.cat(parts)
    for rank, (own, first) in enumerate(zip(parts, firsts, strict=True)):
        group = Group(parts, rank, 3, 6)
        own = own.clone().requires_grad_()
        whole = gathered(own, group, first, 6)
        assert torch.equal(whole.detach(), everything)
        (whole * weights[rank]).sum().backward()
        sent = group.summed[0]  # only its own rows
        assert torch.equal(sent[first : first + len(own)], own.detach()) and int((sent != 0).any(1).sum()) == len(own)
        assert torch.equal(group.summed[1], weights[rank])  # the backward pass sums over the whole, too
        assert own.grad is not None and torch.equal(own.grad, weights[rank][first : first + len(own)])


def test_batch_statistics_are_refused() -> None:
    made = TripletObjective(Embedding(Line(norm=True), DataInfo(1, 2, 3)), section(batch_size=4), OneRank())
    batch = {"image": torch.zeros(4, 1, 2, 3, dtype=torch.uint8), "label": torch.tensor([0, 0, 1, 1])}
    made.module.train()
    with pytest.raises(ModelError, match=r"encoder\.norm of the encoder would use the statistics of a batch") as caught:
        made.loss(batch)
    assert caught.value.exit_code == 4
    made.module.eval()
    made.loss(batch)


def test_more_processes_than_examples() -> None:
    ranks = OneRank()
    ranks.size = 5
    with pytest.raises(MachineError, match="5 processes share a batch of 4"):
        objective(ranks=ranks, batch_size=4)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "pytorch_metric_learning"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning", None)
    with pytest.raises(MachineError, match=r"run pip install 'condgen\[triplets\]'") as caught:
        objective()
    assert caught.value.exit_code == 6


def test_embeddings_have_length_one() -> None:
    model = Embedding(Line(), DataInfo(1, 2, 3))
    batch = {"image": torch.randint(0, 256, (5, 1, 2, 3), dtype=torch.uint8)}
    vectors = model.embed(batch)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(5, dtype=torch.float64))
    plain = model.encode(image=batch["image"]).vector
    assert plain is not None and torch.allclose(vectors, F.normalize(plain, dim=1))


def test_an_encoder_that_knows_more_says_what_is_the_identity() -> None:
    class WithColours(Line):
        def identity(self, batch: Batch) -> Tensor:
            vector = self.encode(batch).vector
            assert vector is not None
            return vector[:, :2]

    model = Embedding(WithColours(), DataInfo(1, 2, 3))
    batch = {"image": torch.randint(0, 256, (5, 1, 2, 3), dtype=torch.uint8)}
    vector = model.encoder.encode(batch).vector
    assert vector is not None and torch.equal(model.embed(batch), F.normalize(vector[:, :2], dim=1))
    assert model.embed(batch).shape == (5, 2)
