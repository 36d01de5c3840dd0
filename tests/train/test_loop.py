"""The loop trains whatever an objective gives it: here a straight line through points, no image in sight."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from condgen.condition import DataInfo
from condgen.errors import Interrupted, MachineError, NumericalError, RecipeError
from condgen.recipe import Recipe, TrainSection
from condgen.store.run import Run, read_log
from condgen.train.batches import Batch, Batches, Order, fetcher
from condgen.train.budget import Budget
from condgen.train.loop import Loop, Outputs
from condgen.train.ranks import Ranks
from condgen.train.report import Report
from condgen.train.schedule import ema_decay, learning_rate
from condgen.train.signals import Signals
from condgen.train.state import TrainState


class Line:
    """Squared error of w x + b."""

    unit = figure = "squared_error"
    figure_rises = False
    scale = 1.0

    def __init__(self, couples_examples: bool = False) -> None:
        self.couples_examples = couples_examples
        self.module = nn.Linear(1, 1).double()
        with torch.no_grad():
            self.module.weight.fill_(0.5)
            self.module.bias.fill_(-0.25)
        self.seen: list[list[float]] = []
        self.spoil: Callable[[int, Tensor], Tensor] = lambda step, losses: losses

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        assert self.module.training
        self.seen.append(batch["x"][:, 0].tolist())
        losses = ((self.module(batch["x"]) - batch["y"]) ** 2)[:, 0]
        return self.spoil(len(self.seen), losses)


class Points:
    """y = 3 x + 1 at 10 places."""

    x = torch.linspace(-1, 1, 10, dtype=torch.float64)[:, None]

    def __len__(self) -> int:
        return 10

    def batch(self, indices: np.ndarray, sources: np.ndarray | None = None) -> Batch:
        x = self.x[torch.from_numpy(indices)]
        return {"x": x, "y": 3 * x + 1, "index": torch.from_numpy(indices)}


class Validation:
    """Squared error over all points, with a record of the calls."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.steps: list[int] = []

    def __call__(self, module: Any, step: int) -> dict[str, float]:
        assert not module.training
        self.steps.append(step)
        with torch.no_grad():
            return {"squared_error": float(((module(Points.x) - 3 * Points.x - 1) ** 2).mean())}


def settings(**fields: Any) -> TrainSection:
    basic: dict[str, Any] = {
        "batch_size": 4,
        "max_steps": 6,
        "warmup_steps": 2,
        "learning_rate": 0.05,
        "ema_decay": 0.6,
    }
    return TrainSection(**{**basic, "evaluate_every": 3, "checkpoint_every": 100, **fields})


@contextlib.contextmanager
def opened(
    folder: Path,
    train: TrainSection,
    objective: Line,
    *,
    validate: Any = None,
    draw: Any = None,
    drawings: int = 0,
    signals: Signals | None = None,
    budget: Budget | None = None,
) -> Iterator[Loop]:
    ranks, order = Ranks("cpu"), Order(10, train.seed)
    recipe = Recipe(train=train)
    with Run(folder, recipe, DataInfo(1, 1, 1), "points", warn=print) as run:
        state = TrainState(objective.module, train)
        newest = run.checkpoints.newest()
        if newest:
            state.restore(newest)
        step = state.counters.samples // train.batch_size
        fetch = fetcher(Points(), order, train.batch_size, 0, 1, flip=False, pin=False)
        with Report(run, step, tensorboard=False, quiet=True) as report, Batches(fetch, step) as batches:
            outputs = Outputs(run, report, validate, draw, drawings)
            budget = budget or Budget(train.max_steps, train.max_minutes, state.counters.seconds)
            yield Loop(train, objective, state, order, batches, ranks, budget, signals or Signals(), outputs)


def witness(train: TrainSection, steps: int) -> tuple[dict[str, float], dict[str, float], list[float]]:
    """Weights, their average and losses by plain Python: gradient by hand, Adam and average by formula."""
    weights = {"weight": 0.5, "bias": -0.25}
    average, first, second = dict(weights), dict.fromkeys(weights, 0.0), dict.fromkeys(weights, 0.0)
    losses = []
    for t in range(steps):
        indices, _ = Order(10, train.seed).at(t * train.batch_size, (t + 1) * train.batch_size)
        gradient, total = dict.fromkeys(weights, 0.0), 0.0
        for index in indices:
            x = float(Points.x[index])
            error = weights["weight"] * x + weights["bias"] - 3 * x - 1
            total += error**2
            gradient["weight"] += 2 * error * x / train.batch_size
            gradient["bias"] += 2 * error / train.batch_size
        losses.append(total / train.batch_size)
        norm = math.sqrt(sum(g**2 for g in gradient.values()))
        if train.clip_norm and norm > train.clip_norm:
            gradient = {name: g * train.clip_norm / norm for name, g in gradient.items()}
        for name, g in gradient.items():
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g * g
            corrected = (first[name] / (1 - 0.9 ** (t + 1)), second[name] / (1 - 0.999 ** (t + 1)))
            weights[name] -= learning_rate(train, t) * corrected[0] / (math.sqrt(corrected[1]) + train.adam_epsilon)
        decay = ema_decay(train, t)
        average = {name: decay * average[name] + (1 - decay) * weights[name] for name in weights}
    return weights, average, losses


@pytest.mark.parametrize("fields", [{}, {"micro_batch": 3}, {"clip_norm": 0.5}, {"decay": 0.9, "decay_steps": 5}])
def test_against_the_formulas(tmp_path: Path, fields: dict[str, Any]) -> None:
    train, objective = settings(**fields), Line()
    with opened(tmp_path / "run", train, objective) as loop:
        loop.fit()
    weights, average, losses = witness(train, 6)
    assert not loop.state.average.training
    for name in weights:
        assert objective.module.get_parameter(name).item() == pytest.approx(weights[name], rel=1e-6)
        assert loop.state.average.get_parameter(name).item() == pytest.approx(average[name], rel=1e-6)
    lines = read_log(tmp_path / "run" / "metrics.jsonl")
    assert [line["loss"] for line in lines] == pytest.approx(losses, rel=1e-6)
    assert [line["squared_error"] for line in lines] == [line["loss"] for line in lines]
    sizes = [len(part) for part in objective.seen]
    assert sizes == ([3, 1] * 6 if "micro_batch" in fields else [4] * 6)


def test_validation_and_best(tmp_path: Path) -> None:
    validate = Validation()
    with opened(tmp_path / "run", settings(max_steps=7), Line(), validate=validate) as loop:
        loop.fit()
    assert validate.steps == [3, 6, 7]
    lines = read_log(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in lines if "validation_squared_error" in line] == [3, 6, 7]
    best = loop.state.counters.best
    assert best is not None and best["step"] == 7  # it only gets better here
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-00000006", "step-00000007"]  # each best one was saved, older ones were pruned


def test_grids_evenly_over_the_steps(tmp_path: Path) -> None:
    draw = Validation()
    with opened(tmp_path / "run", settings(max_steps=9), Line(), draw=draw, drawings=2) as loop:
        loop.fit()
    assert draw.steps == [3, 6, 9]


def test_minutes_leave_room_for_what_comes_last(tmp_path: Path) -> None:
    """A clock that moves 1 s a step: of 20 s the last validation (3) and grid (4) need 1.1 * 7, and the next step 1."""

    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    clock, train, objective = Clock(), settings(max_steps=None, max_minutes=20 / 60), Line()

    def tick(step: int, losses: Tensor) -> Tensor:
        clock.now += 1
        return losses

    objective.spoil = tick
    validate, draw = Validation(3.0), Validation(4.0)
    budget = Budget(None, train.max_minutes, clock=clock)
    with opened(tmp_path / "a", train, objective, validate=validate, draw=draw, drawings=1, budget=budget) as loop:
        loop.fit()
    assert loop.step == 12 and validate.steps[-1] == 12  # 11 + 7.7 + 1 < 20 <= 12 + 7.7 + 1
    assert draw.steps == [12]  # a grid on the way would have eaten a fifth of the budget
    draw.seconds = 1.0
    clock.now = 0.0
    objective.seen.clear()
    with opened(
        tmp_path / "b", train, objective, draw=draw, drawings=1, budget=Budget(None, 20 / 60, clock=clock)
    ) as loop:
        loop.fit()
    assert draw.steps == [12, 10, 18]


def test_a_loss_that_compares_examples_is_never_cut(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"train\.micro_batch: this loss compares"):
        with opened(tmp_path / "run", settings(micro_batch=2), Line(couples_examples=True)):
            pass
    with opened(tmp_path / "run", settings(), Line(couples_examples=True)) as loop:
        loop.fit()


def nan_at(step: int, place: int = 2) -> Callable[[int, Tensor], Tensor]:
    def spoil(now: int, losses: Tensor) -> Tensor:
        weight = torch.ones_like(losses)
        weight[place] = torch.nan if now == step else 1
        return losses * weight

    return spoil


def test_nan_stops_before_the_weights_move(tmp_path: Path) -> None:
    train, objective = settings(), Line()
    objective.spoil = nan_at(5)
    with pytest.raises(NumericalError, match=r"step 5 is not finite.*train\.skip_steps=\[5\]") as caught:
        with opened(tmp_path / "run", train, objective) as loop:
            loop.fit()
    assert caught.value.exit_code == 5
    weights, average, _ = witness(train, 4)
    assert objective.module.weight.item() == pytest.approx(weights["weight"], rel=1e-6)
    assert loop.state.average.get_parameter("weight").item() == pytest.approx(average["weight"], rel=1e-6)
    found = json.loads((tmp_path / "run" / "bad-step.json").read_text())
    indices, _ = Order(10, 0).at(16, 20)
    assert found["step"] == 5 and found["batch"] == indices.tolist() and found["ranks"] == [0]
    assert found["examples"] == [indices[2]] and found["tensors"] == ["weight", "bias"]
    # the last good state was saved, and passing over the step goes on from it
    again = Line()
    train = settings(skip_steps=(5,))
    with opened(tmp_path / "run", train, again) as loop:
        assert loop.step == 4
        loop.fit()
    lines = read_log(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[4] == {"step": 5, "skipped": True}
    assert loop.state.counters.updates == 5 and loop.state.counters.samples == 24
    assert lines[5]["learning_rate"] == learning_rate(train, 4)
    places, _ = Order(10, 0).at(20, 24)
    assert again.seen == [Points.x[places][:, 0].tolist()]  # later examples stay in their places


def test_an_infinite_gradient_of_a_finite_loss_stops_too(tmp_path: Path) -> None:
    objective = Line()

    def spoil(step: int, losses: Tensor) -> Tensor:
        return losses + torch.sqrt((losses * 0).sum()) if step == 2 else losses

    objective.spoil = spoil
    with pytest.raises(NumericalError, match="step 2"):
        with opened(tmp_path / "run", settings(), objective) as loop:
            loop.fit()
    assert json.loads((tmp_path / "run" / "bad-step.json").read_text())["examples"] == []
    assert loop.state.counters.updates == 1


def test_skipping_has_an_end(tmp_path: Path) -> None:
    def run(bad: set[int], name: str) -> Loop:
        objective = Line()

        def spoil(step: int, losses: Tensor) -> Tensor:
            return losses * torch.inf if step in bad else losses

        objective.spoil = spoil
        with opened(tmp_path / name, settings(max_steps=8, on_nonfinite="skip"), objective) as loop:
            loop.fit()
        return loop

    loop = run({2, 3, 5}, "a")
    assert (loop.state.counters.updates, loop.state.counters.skipped, loop.step) == (5, 3, 8)
    with pytest.raises(NumericalError, match="step 6"):
        run({3, 4, 5, 6}, "b")  # four in a row
    with pytest.raises(NumericalError, match="step 7"):
        run({1, 3, 5, 7}, "c")  # more than three of so few


def test_weights_that_overflow_are_never_saved(tmp_path: Path) -> None:
    objective = Line()
    train = settings(checkpoint_every=1)

    def spoil(step: int, losses: Tensor) -> Tensor:
        if step == 3:
            with torch.no_grad():
                objective.module.weight.fill_(torch.inf)
            return losses * torch.nan
        return losses

    objective.spoil = spoil
    with pytest.raises(NumericalError):
        with opened(tmp_path / "run", train, objective) as loop:
            loop.fit()
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-00000001", "step-00000002"]


def test_a_save_on_request_changes_nothing(tmp_path: Path) -> None:
    signals, objective = Signals(), Line()

    def spoil(step: int, losses: Tensor) -> Tensor:
        signals.save = step == 2 or signals.save
        return losses

    objective.spoil = spoil
    with opened(tmp_path / "run", settings(), objective, signals=signals) as loop:
        loop.fit()
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-00000002", "step-00000006"]
    assert objective.module.weight.item() == pytest.approx(witness(settings(), 6)[0]["weight"], rel=1e-6)


def test_sigterm_is_143(tmp_path: Path) -> None:
    signals = Signals()
    signals.stop = 143
    with pytest.raises(Interrupted, match="after step 1") as caught:
        with opened(tmp_path / "run", settings(), Line(), signals=signals) as loop:
            loop.fit()
    assert caught.value.exit_code == 143


def failing_at(number: int, signals: Signals, stop: int | None) -> Callable[[int, Tensor], Tensor]:
    """As where a terminal's Ctrl-C ends the compiler that torch has started."""

    def spoil(step: int, losses: Tensor) -> Tensor:
        if step == number:
            signals.stop = stop
            raise RuntimeError("g++ has died")
        return losses

    return spoil


@pytest.mark.parametrize("code", [130, 143])
def test_what_a_signal_breaks_is_a_stop(tmp_path: Path, code: int) -> None:
    signals, objective = Signals(), Line()
    objective.spoil = failing_at(4, signals, code)
    with pytest.raises(Interrupted, match="after step 3, which is saved") as caught:
        with opened(tmp_path / "run", settings(), objective, signals=signals) as loop:
            loop.fit()
    assert caught.value.exit_code == code and isinstance(caught.value.__cause__, RuntimeError)
    again = Line()
    with opened(tmp_path / "run", settings(), again) as loop:  # and what was saved is the state after step 3
        assert loop.step == 3
        loop.fit()
    assert again.module.weight.item() == pytest.approx(witness(settings(), 6)[0]["weight"], rel=1e-6)


def test_what_a_signal_breaks_before_the_first_step(tmp_path: Path) -> None:
    signals, objective = Signals(), Line()
    objective.spoil = failing_at(1, signals, 130)
    with pytest.raises(Interrupted, match="before the first step; nothing was saved"):
        with opened(tmp_path / "run", settings(), objective, signals=signals) as loop:
            loop.fit()
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_what_breaks_without_a_signal_stays_what_it_is(tmp_path: Path) -> None:
    objective = Line()
    objective.spoil = failing_at(2, Signals(), None)
    with pytest.raises(RuntimeError, match="has died"):
        with opened(tmp_path / "run", settings(), objective) as loop:
            loop.fit()


def test_errors_of_our_own_outlive_a_signal() -> None:
    signals = Signals()
    signals.stop = 143
    with pytest.raises(MachineError, match="no room"), signals.blamed(lambda: "stopped"):
        raise MachineError("no room.")
    with pytest.raises(Interrupted, match="stopped"), signals.blamed(lambda: "stopped"):
        raise ValueError("half a picture")


def test_short_of_room_training_goes_on_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def full(self: Run, step: int, *args: Any, **kwargs: Any) -> None:
        tried.append(step)
        raise MachineError("no room.")

    monkeypatch.setattr(Run, "save", full)
    with pytest.raises(MachineError, match="no room"):
        with opened(tmp_path / "run", settings(checkpoint_every=4, max_steps=50), Line()) as loop:
            loop.fit()
    assert tried == [4, 6, 8]
    tried.clear()
    with pytest.raises(MachineError):
        with opened(tmp_path / "last", settings(max_steps=3), Line()) as loop:
            loop.fit()
    assert tried == [3]


def test_nothing_to_train(tmp_path: Path) -> None:
    from condgen.errors import ModelError

    with pytest.raises(ModelError, match="no parameter to train"):
        TrainState(nn.Linear(1, 1).requires_grad_(False), settings())


def test_frozen_weights_are_shared_and_stay(tmp_path: Path) -> None:
    objective = Line()
    objective.module.bias.requires_grad_(False)
    with opened(tmp_path / "run", settings(), objective) as loop:
        loop.fit()
    assert objective.module.bias.item() == -0.25
    assert loop.state.average.get_parameter("bias") is objective.module.bias
    assert set(loop.state.tensors()["optimizer.safetensors"]) == {"weight/step", "weight/exp_avg", "weight/exp_avg_sq"}


def test_a_gradient_that_lies_otherwise_in_memory_moves_the_right_weights() -> None:
    """torch's fused step takes weight and gradient by their place in memory, not by their indices."""
    weight = torch.zeros(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    module = nn.Module()
    module.weight = nn.Parameter(weight)
    state = TrainState(module, settings(learning_rate=1.0, warmup_steps=0))
    gradient = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    module.weight.grad = gradient
    state.update()
    assert torch.allclose(module.weight.detach(), -gradient.sign(), atol=1e-4)
