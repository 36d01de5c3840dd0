"""Run by torchrun (or alone): trains the recipes listed in a JSON file and writes down which examples each step saw.

world_driver.py FOLDER  with FOLDER/cases.json: {name: {field: value}}
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from tiny_run import tiny_recipe

from condgen.errors import NumericalError
from condgen.train import run
from condgen.train.batches import Batch, fetcher
from condgen.train.objective import LikelihoodObjective

SPOILED = ("nan", "overflow")


def watching(seen: dict[int, list[int]]) -> Callable[..., Callable[[int], Batch]]:
    """``fetcher`` whose results write into ``seen`` which examples they gave."""

    def make(*args: Any, **kwargs: Any) -> Callable[[int], Batch]:
        fetch = fetcher(*args, **kwargs)

        def fetched(step: int) -> Batch:
            batch = fetch(step)
            seen[step] = batch["index"].tolist() if batch else []
            return batch

        return fetched

    return make


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    rank = os.environ.get("RANK", "0")
    for name, overrides in json.loads((folder / "cases.json").read_text()).items():
        seen: dict[int, list[int]] = {}
        run.fetcher = watching(seen)  # type: ignore[attr-defined]
        setattr(LikelihoodObjective, "loss", spoiled(name, rank) if name in SPOILED else loss)  # noqa: B010  # for mypy
        error = ""
        try:
            run.run_training(tiny_recipe(folder, **overrides), out=folder / name, device="cpu", quiet=True)
        except NumericalError as caught:
            error = caught.message
        found = {"seen": [seen[step] for step in sorted(seen)], "error": error}
        (folder / f"{name}.{rank}.json").write_text(json.dumps(found))


loss = LikelihoodObjective.loss


def spoiled(name: str, rank: str) -> Callable[[LikelihoodObjective, Any], torch.Tensor]:
    """In step 5, nan: the second example of the second process is NaN; overflow: a weight is infinite everywhere."""
    calls = 0

    def spoilt(self: LikelihoodObjective, batch: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 5 and name == "overflow":
            next(self.module.core.parameters()).data.fill_(torch.inf)
        losses = loss(self, batch)
        return (
            losses
            * torch.tensor([1, torch.nan if calls == 5 and name == "nan" and rank == "1" else 1, 1, 1])[: len(losses)]
        )

    return spoilt


if __name__ == "__main__":
    main(Path(sys.argv[1]))
