"""Triplets: an anchor is to lie nearer to every picture of the same person than to any picture of another, by a margin.

loss(a, p, n) = max(0, |f(a) - f(p)|^2 - |f(a) - f(n)|^2 + margin) on unit vectors f: Schroff, Kalenichenko and Philbin
2015 (FaceNet), section 3.1; semi-hard negatives as in their section 3.2. The miner and the loss are those of
pytorch-metric-learning, which is imported when triplets are trained and never before.

Legend: B examples of the global batch, b of this process, D length of an embedding, T triplets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from condgen.condition import Batch
from condgen.data import Dataset
from condgen.embedding import Embedding
from condgen.errors import MachineError, ModelError
from condgen.recipe import SampleSection, TrainSection
from condgen.train.batches import share
from condgen.train.chores import Chore
from condgen.train.identities import IdentityOrder
from condgen.train.verification import RocPictures, VerificationFigures


class Summing(Protocol):
    """As much of ``Ranks`` as gathering needs."""

    rank: int
    size: int

    def sum(self, tensor: Tensor) -> None: ...


class TripletObjective:
    """The triplet loss of an embedding, over the global batch.

    Embeddings and labels of all ranks are gathered first, with gradient; then every rank finds the same triplets and
    answers for the anchors of its own share. The loss of an example is the mean over the mined triplets that it
    anchors, 0 where there are none.

    Args:
        train: of it ``batch_size``, B; ``views``; ``margin``, on squared distances, which lie in 0 .. 4; and
            ``mining``: ``semihard``: negatives that are farther than the positive, but by less than the margin;
            ``hard``: those that are nearer than the positive; ``all``: both.

    Raises:
        MachineError: pytorch-metric-learning is not installed; the sentence has the line that installs it.
    """

    couples_examples = True
    unit = "triplet_loss"
    scale = 1.0
    figure = "auc"
    figure_rises = True

    def __init__(self, model: Embedding, train: TrainSection, ranks: Summing) -> None:
        distances, losses, miners, reducers = _library()
        if ranks.size > train.batch_size:
            raise MachineError(
                f"{ranks.size} processes share a batch of {train.batch_size}, and each needs an example of it; start "
                "fewer or raise train.batch_size.",
                field="train.batch_size",
            )
        self.module = model
        self._train, self._ranks = train, ranks
        # |f - g|^2 = 2 - 2 f.g on unit vectors: a margin on the squared distance is half of it on the cosine. A matrix
        # product has a smooth gradient everywhere, torch.cdist has none at a distance of 0 and loses digits near by.
        cosine = distances.CosineSimilarity()
        self._miner = miners.TripletMarginMiner(train.margin / 2, type_of_triplets=train.mining, distance=cosine)
        self._loss = losses.TripletMarginLoss(train.margin / 2, distance=cosine, reducer=reducers.DoNothingReducer())

    def loss(self, batch: Batch) -> Tensor:
        """(b,), of this rank's examples."""
        _check_no_batch_statistics(self.module)
        vectors = self.module.embed(batch)
        vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))  # bf16 cannot tell near neighbours
        size = self._train.batch_size
        first, last = share(size, self._ranks.rank, self._ranks.size)
        everything = gathered(vectors, self._ranks, first, size)  # (B, D)
        labels = gathered(batch["label"], self._ranks, first, size)  # (B,)
        return self.losses_of(everything, labels)[first:last]

    def losses_of(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """The loss of each example of a whole batch: vectors (B, D), labels (B,) -> (B,)."""
        with torch.autocast(vectors.device.type, enabled=False):
            triplets = self._miner(vectors, labels)
            anchors = triplets[0]
            total = 0 * vectors.sum(1)  # (B,), tied to the graph: without a triplet ranks meet in its backward pass too
            if not len(anchors):
                return total
            each = 2 * self._loss(vectors, labels, triplets)["loss"]["losses"]  # (T,)
        counts = torch.zeros_like(total).index_add(0, anchors, torch.ones_like(each))
        return total.index_add(0, anchors, each) / counts.clamp(min=1)

    def order(self, images: Dataset, seed: int) -> IdentityOrder:
        return IdentityOrder(images.identities, self._train.batch_size, self._train.views, seed)

    def initialise(self, batch: Batch) -> None:
        """An embedding starts as its encoder is built."""

    def compile(self) -> None:
        self.module.encoder.compile()

    def validation(self, average: Embedding, images: Dataset, limit: int, batch_size: int) -> Chore:
        return VerificationFigures(images, limit, batch_size, average)

    def pictures(
        self,
        average: Embedding,
        folder: Path,
        sample: SampleSection,
        images: Dataset,
        validation: Dataset | None,
        quiet: bool | None,
    ) -> Chore | None:
        return None if validation is None else RocPictures(folder, validation, average)


class _Gathered(torch.autograd.Function):
    """Rows of all ranks. The gradient of a row is the sum of what all ranks think of it."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, ranks: Summing, first: int, size: int) -> Tensor:
        ctx.ranks, ctx.rows = ranks, slice(first, first + len(own))
        whole = own.new_zeros(size, *own.shape[1:])
        whole[ctx.rows] = own
        ranks.sum(whole)  # zeros from the others: exact, and shares may be uneven
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        gradient = gradient.contiguous().clone()
        ctx.ranks.sum(gradient)
        return gradient[ctx.rows], None, None, None


def gathered(own: Tensor, ranks: Summing, first: int, size: int) -> Tensor:
    """The rows (b, ...) of every rank in order, (size, ...), with gradient; ``first`` is the place of one's own."""
    if ranks.size == 1:
        return own
    whole: Tensor = _Gathered.apply(own, ranks, first, size)
    return whole


def _check_no_batch_statistics(module: nn.Module) -> None:
    """Raises:
    ModelError: a layer would normalise by the batch, and its figures depend on how the batch is split.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training:
            raise ModelError(
                f"train.objective: {name} of the encoder would use the statistics of a batch, which a loss that "
                "compares examples must not; keep it in evaluation mode, or use GroupNorm.",
                field="encoder.type",
            )


def _library() -> tuple[Any, Any, Any, Any]:
    try:
        from pytorch_metric_learning import distances, losses, miners, reducers
    except ImportError as error:
        raise MachineError(
            "train.objective: triplets need pytorch-metric-learning, which is not installed; run "
            "pip install 'condgen[triplets]'.",
            field="train.objective",
        ) from error
    return distances, losses, miners, reducers
