"""Trains in a child process, over and over, and kills it at random moments: ``victim.py FOLDER KILLS SEED OVERRIDES``,
the last as JSON; the run has 12 steps for each kill.

One process imports torch and forks the victims, which start in milliseconds. Prints one JSON line: how many kills fell
into a save. Exits 1 with a sentence when a promise is broken between two kills.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from tiny_run import tiny_recipe

from condgen import files
from condgen.recipe import Recipe
from condgen.store import checkpoints as store
from condgen.store.run import read_log
from condgen.train.run import run_training

EVERY = 5


def recipe(folder: Path, kills: int, overrides: dict[str, object]) -> Recipe:
    fixed = {"train__max_steps": 12 * kills, "train__checkpoint_every": EVERY, "train__evaluate_every": 7}
    return tiny_recipe(folder, **{**fixed, **overrides})


def train(recipe: Recipe, run: Path) -> None:
    """In the child: saves are slow, so that many kills fall into one."""
    written = files.write_new

    def slowly(path: Path, data: bytes) -> None:
        time.sleep(0.005)
        written(path, data)
        time.sleep(0.005)

    store.write_new = slowly  # type: ignore[attr-defined]
    torch.set_num_threads(1)
    run_training(recipe, out=run, device="cpu", quiet=True)


def check(run: Path) -> bool:
    """Every finished checkpoint verifies and little was lost; whether the kill fell into a save."""
    found = store.Checkpoints(run / "checkpoints", print)
    for step in found.steps():
        found.open(step)
    log = run / "metrics.jsonl"
    logged = read_log(log)[-1]["step"] if log.exists() and read_log(log) else 0
    newest = max(found.steps(), default=0)
    if not newest >= logged - EVERY - 1:
        sys.exit(f"step {logged} was logged, but the newest checkpoint is {newest}")
    return any(name.startswith(".") for name in os.listdir(run / "checkpoints")) if found.folder.is_dir() else False


def main(folder: Path, kills: int, seed: int, overrides: dict[str, object]) -> None:
    chance = random.Random(seed)  # noqa: S311
    run, in_saves = folder / "killed", 0
    longest = 1.5
    for kill in range(kills + 1):
        child = os.fork()
        if child == 0:
            try:
                train(recipe(folder, kills, overrides), run)
            except BaseException as error:
                print(f"victim: {error!r}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        if kill < kills:
            time.sleep(chance.uniform(0, longest))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if not (os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0):
            sys.exit("the victim failed by itself")
        in_saves += check(run) if run.exists() else 0
    print(json.dumps({"in_saves": in_saves}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4]))
