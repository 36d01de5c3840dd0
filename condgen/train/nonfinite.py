"""A step whose loss or gradient is NaN or infinite moves nothing: no weight, no average, no schedule, on any rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from condgen.errors import ModelError, NumericalError
from condgen.files import write_whole
from condgen.recipe import TrainSection
from condgen.store.sealed import to_json
from condgen.train.batches import share
from condgen.train.ranks import Ranks
from condgen.train.state import Counters

_IN_A_ROW = 3


def refuse_step(
    step: int,
    losses: Tensor,
    gradients: Mapping[str, Tensor],
    indices: np.ndarray,
    train: TrainSection,
    counters: Counters,
    ranks: Ranks,
    *,
    folder: Path | None,
    save: Callable[[], None],
) -> None:
    """Returns where ``train.on_nonfinite`` allows to pass over ``step``: at most three in a row and 1 % in all.

    Args:
        losses: of this rank's share.
        gradients: by parameter, of the global batch.
        indices: the examples of the global batch, in order.
        folder: the run, on rank 0.
        save: saves the state before the step.

    Raises:
        NumericalError: training stops; ``bad-step.json`` in the run names the examples and tensors.
    """
    first, last = share(train.batch_size, ranks.rank, ranks.size)
    bad = torch.zeros(train.batch_size, dtype=torch.int64, device=losses.device)
    bad[first:last] = (~torch.isfinite(losses)).long()
    ranks.sum(bad)
    skips = train.on_nonfinite == "skip" and counters.skipped_in_a_row < _IN_A_ROW
    if skips and counters.skipped < max(_IN_A_ROW, step // 100):
        return
    try:
        save()
    except ModelError:
        pass  # the weights themselves are not finite: the older checkpoints are the good ones
    if folder is not None:
        places = bad.nonzero().flatten().tolist()
        shares = [range(*share(train.batch_size, rank, ranks.size)) for rank in range(ranks.size)]
        facts = {
            "step": step,
            "ranks": [rank for rank, own in enumerate(shares) if any(place in own for place in places)],
            "examples": indices[places].tolist(),
            "batch": indices.tolist(),
            "tensors": [name for name, gradient in gradients.items() if not bool(torch.isfinite(gradient).all())],
        }
        write_whole(folder / "bad-step.json", to_json(facts), force=True)
    raise NumericalError(
        f"The loss or gradient of step {step} is not finite (bad-step.json lists its examples), and resuming meets it "
        f"again: set train.skip_steps=[{step}] to pass it over, or start anew with a lower train.learning_rate or "
        "train.precision=fp32."
    )
