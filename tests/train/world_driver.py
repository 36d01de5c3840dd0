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

from condgen.train import run
from condgen.train.batches import Batch, fetcher


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
        run.run_training(tiny_recipe(folder, **overrides), out=folder / name, device="cpu", quiet=True)
        (folder / f"{name}.{rank}.json").write_text(json.dumps([seen[step] for step in range(20)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
