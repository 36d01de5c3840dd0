"""The training loop. It knows an objective, a state, batches and other processes; not what is trained, nor by whom.

A step: losses of this rank's share (in micro-batches) -> gradient of their sum -> sum over ranks -> mean over the
global batch -> clip -> Adam and average. One small reduction carries everything that the ranks must agree on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from condgen import streams
from condgen.errors import Interrupted, MachineError, RecipeError
from condgen.progress import warn
from condgen.recipe import TrainSection
from condgen.store.run import Run
from condgen.train.batches import Batch, Batches, Sequence
from condgen.train.budget import Budget
from condgen.train.chores import Chore
from condgen.train.nonfinite import refuse_step
from condgen.train.objective import Objective
from condgen.train.process import seed_generators
from condgen.train.ranks import Ranks, sum_gradients
from condgen.train.report import Report
from condgen.train.schedule import learning_rate
from condgen.train.signals import Signals
from condgen.train.state import TrainState

NOTHING_SAVED = "Stopped by a signal before the first step; nothing was saved."
NOT_SAVED = "Stopped by a signal; the same command goes on from the last checkpoint."
_SAVED = "Stopped by a signal after step {}, which is saved; the same command goes on from there."


@dataclass
class Outputs:
    """What rank 0 has and the others have not."""

    run: Run
    report: Report
    validate: Chore | None = None
    draw: Chore | None = None
    drawings: int = 0
    """Grids before the last one, evenly over the budget."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Facts about this process, for ``state.json``."""


@dataclass
class Agreed:
    """What all ranks know alike after the reduction of a step."""

    loss: float
    norm: float
    bad: bool
    stop: int | None
    save: bool
    draw: bool
    out_of_time: bool


class Loop:
    """Trains until the budget ends; ``fit`` is the whole story.

    Args:
        train: the recipe's section.
        objective: what is lowered.
        state: what is moved, counted and saved.
        order: which examples come when.
        batches: this rank's share of them, from the state's step on.
        outputs: on rank 0, else None.

    Raises:
        RecipeError: ``train.micro_batch`` would cut the batches of a loss that compares examples.
    """

    def __init__(
        self,
        train: TrainSection,
        objective: Objective,
        state: TrainState,
        order: Sequence,
        batches: Batches,
        ranks: Ranks,
        budget: Budget,
        signals: Signals,
        outputs: Outputs | None,
    ) -> None:
        if objective.couples_examples and train.micro_batch is not None:
            raise RecipeError(
                "train.micro_batch: this loss compares the examples of a batch, which therefore cannot be cut; "
                "leave the field out.",
                field="train.micro_batch",
            )
        self.train, self.objective, self.state, self.order = train, objective, state, order
        self.batches, self.ranks, self.budget, self.signals, self.outputs = batches, ranks, budget, signals, outputs
        self.step_seconds = 0.0  # the shortest so far: the first ones warm up or compile
        self.out_of_time = ranks.share_facts(self.time_is_up())
        self.save_due = self.next_save()
        self.failed_saves = 0

    @property
    def step(self) -> int:
        """Finished steps."""
        return self.state.counters.samples // self.train.batch_size

    @property
    def over(self) -> bool:
        return self.out_of_time or (self.train.max_steps is not None and self.step >= self.train.max_steps)

    def fit(self) -> None:
        """Steps and what is due after each; in the end a validation, a grid and a checkpoint.

        Raises:
            NumericalError: a loss or gradient is not finite; the last good state was saved.
            Interrupted: a signal asked for it; the state was saved.
            MachineError: the state could not be saved, or another process was lost.
        """
        self.objective.module.train()
        if self.step and not self.over:
            self.catch_up()
        while not self.over:
            agreed = self.advance()
            line = self.log_line(agreed)
            if agreed.stop is None and self.step % self.train.evaluate_every == 0:
                line |= self.validate()
            self.report(line)
            if agreed.draw and agreed.stop is None and not self.over:
                self.draw()
                self.state.counters.pictures += 1
            best = self.state.counters.best
            due = self.step >= self.save_due or agreed.save or (best is not None and best["step"] == self.step)
            if agreed.stop is not None or (due and not self.over):
                self.save(must=agreed.stop is not None)
            if agreed.stop is not None:
                raise Interrupted(_SAVED.format(self.step), exit_code=agreed.stop)
        self.finish()

    def catch_up(self) -> None:
        """What was due after the last step and did not happen, because a signal wanted an end."""
        if self.step % self.train.evaluate_every == 0:
            self.validate_late()
        if self.ranks.share_facts(self.drawing_due(self.step)):
            self.draw()
            self.state.counters.pictures += 1

    def finish(self) -> None:
        """What comes after the last step; nothing where that was done before."""
        counters, used_up = self.state.counters, [self.train.max_steps, self.train.max_minutes]
        if counters.finished == used_up:
            return
        self.validate_late()
        self.draw()
        counters.finished = used_up
        self.save(must=True, replace=True)

    def advance(self) -> Agreed:
        """One step: an update of the weights or, where it must not be, examples passed over."""
        step, counters, train, start = self.step + 1, self.state.counters, self.train, self.budget.seconds
        seed_generators(streams.key(train.seed, "global", step, self.ranks.rank), self.ranks.device)
        batch = self.batches.next()
        if step in train.skip_steps:
            nothing = torch.zeros((), dtype=torch.float64, device=self.ranks.device)
            agreed = self.agree(nothing * torch.nan, nothing, len(batch.get("key", ())))
        else:
            with self.signals.blamed(self.cut_short):  # nothing has moved yet
                losses = self.backward(batch)
            gradients = sum_gradients(self.state.trainable.values(), self.ranks)
            torch._foreach_div_(gradients, float(train.batch_size))
            norm = torch.nn.utils.get_total_norm(gradients)
            agreed = self.agree(losses.sum(), norm, len(losses))
            if agreed.bad:
                self.refuse(losses, gradients)
                counters.skipped += 1
                counters.skipped_in_a_row += 1
            else:
                if train.clip_norm is not None:
                    torch.nn.utils.clip_grads_with_norm_(self.state.trainable.values(), train.clip_norm, norm)
                self.state.update()
                counters.skipped_in_a_row = 0
        counters.samples += train.batch_size
        self.out_of_time = agreed.out_of_time
        self.step_seconds = min(self.step_seconds or math.inf, self.budget.seconds - start)
        return agreed

    def backward(self, batch: Batch) -> Tensor:
        """Leaves the gradient of the *sum* of this rank's losses in ``.grad``; the losses, float64 (b,)."""
        self.state.zero_grad()
        found = [torch.zeros(0, dtype=torch.float64, device=self.ranks.device)]
        for part in _parts(batch, self.train.micro_batch):
            part = {name: tensor.to(self.ranks.device, non_blocking=True) for name, tensor in part.items()}
            with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.train.precision == "bf16"):
                losses = self.objective.loss(part).double()
            losses.sum().backward()
            found.append(losses.detach())
        return torch.cat(found)

    def agree(self, loss: Tensor, norm: Tensor, count: int) -> Agreed:
        """One reduction for all that is decided together: from the same numbers every rank decides the same."""
        save, self.signals.save = self.signals.save, False
        interrupted, terminated = self.signals.stop == 130, self.signals.stop == 143
        flags = [count, interrupted, terminated, save, self.drawing_due(self.step + 1), self.time_is_up()]
        bad = ~(torch.isfinite(loss) & torch.isfinite(norm))
        message = torch.cat([torch.stack([loss, bad.double()]), loss.new_tensor(flags)])
        self.ranks.sum(message)
        total, bad_ranks, examples, interrupts, terms, saves, draws, ends = message.tolist()
        if examples != self.train.batch_size:
            raise AssertionError(f"step {self.step + 1} had {examples} examples, not {self.train.batch_size}")
        stop = 143 if terms else 130 if interrupts else None
        mean = total / self.train.batch_size
        return Agreed(mean, float(norm), bool(bad_ranks), stop, bool(saves), bool(draws), bool(ends))

    def cut_short(self) -> str:
        """Saves what a signal left when it ended the computation of a step; the sentence about it."""
        if not self.step:
            return NOTHING_SAVED
        if self.ranks.size > 1:  # of which only this one may be here
            return NOT_SAVED
        self.save(must=True)
        return _SAVED.format(self.step)

    def refuse(self, losses: Tensor, gradients: list[Tensor]) -> None:
        """See ``refuse_step``; the last good state is saved before training stops."""
        indices, _ = self.order.at(self.step * self.train.batch_size, (self.step + 1) * self.train.batch_size)
        refuse_step(
            self.step + 1,
            losses,
            dict(zip(self.state.trainable, gradients, strict=True)),
            indices,
            self.train,
            self.state.counters,
            self.ranks,
            folder=self.outputs.run.folder if self.outputs else None,
            save=lambda: self.save(must=True) if self.step else None,
        )

    def log_line(self, agreed: Agreed) -> dict[str, Any]:
        if agreed.bad:
            return {"step": self.step, "skipped": True}
        return {
            "step": self.step,
            "loss": agreed.loss,
            self.objective.unit: agreed.loss * self.objective.scale,
            "gradient_norm": agreed.norm,
            "learning_rate": learning_rate(self.train, self.state.counters.updates - 1),
        }

    def report(self, line: dict[str, Any]) -> None:
        if self.outputs:
            unit, fraction = self.objective.unit, self.budget.fraction(self.step)
            self.outputs.report.step(line)
            self.outputs.report.moved(self.train.batch_size, fraction, unit, line.get(unit))

    def validate(self) -> dict[str, float]:
        """Validates the average; what the log says about it. ``best`` is the best so far."""
        counters, figure = self.state.counters, self.objective.figure
        sign = -1 if self.objective.figure_rises else 1
        if self.outputs and self.outputs.validate:
            found = self.outputs.validate(self.state.average, self.step)
            counters.validation = {"step": self.step, **found}
            if counters.best is None or sign * found[figure] < sign * counters.best[figure]:
                counters.best = counters.validation
        self.ranks.wait()
        counters.validation, counters.best = self.ranks.share_facts([counters.validation, counters.best])
        if counters.validation is None or counters.validation["step"] != self.step:
            return {}
        return {f"validation_{name}": value for name, value in counters.validation.items() if name != "step"}

    def validate_late(self) -> None:
        """Validates the last step unless that was done, and adds it to the line that is already in the log."""
        validation = self.state.counters.validation
        if validation is None or validation["step"] != self.step:
            found = self.validate()
            if self.outputs:
                self.outputs.report.amend(self.step, found)

    def draw(self) -> None:
        if self.outputs and self.outputs.draw:
            self.outputs.draw(self.state.average, self.step)
        self.ranks.wait()

    def drawing_due(self, step: int) -> bool:
        """Whether one of the grids before the last is to be drawn after ``step``; never one that eats the budget."""
        if not self.outputs or not self.outputs.draw:
            return False
        drawn, of = self.state.counters.pictures, self.outputs.drawings
        dear = self.budget.max_seconds is not None and self.outputs.draw.seconds > self.budget.max_seconds / 10
        return drawn < of and self.budget.fraction(step) >= (drawn + 1) / (of + 1) and not dear

    def time_is_up(self) -> bool:
        """Whether another step would leave too little time for the last validation and grid."""
        if not self.outputs:
            return False
        chores = [chore.seconds for chore in (self.outputs.validate, self.outputs.draw) if chore]
        return self.budget.exhausted(self.step_seconds + 1.1 * sum(chores))

    def next_save(self) -> int:
        return (self.step // self.train.checkpoint_every + 1) * self.train.checkpoint_every

    def save(self, *, must: bool, replace: bool = False) -> None:
        """A checkpoint of the finished steps. One that fails for want of room is tried again soon, unless it ``must``.

        Raises:
            MachineError: it must, or has failed three times in a row.
        """
        self.ranks.check_equal(self.state.trainable.values(), "The weights")
        self.save_due = self.next_save()
        try:
            if self.outputs:
                self._write(self.outputs, replace)
                self.failed_saves = 0
        except MachineError as error:
            self.failed_saves += 1
            if must or self.failed_saves == 3:
                raise
            warn(f"{error.message} Training goes on.")
            self.save_due = self.step + max(1, self.train.checkpoint_every // 2)
        finally:
            self.ranks.wait()

    def _write(self, outputs: Outputs, replace: bool) -> None:
        counters, run = self.state.counters, outputs.run
        counters.seconds = self.budget.seconds
        facts = {"samples": counters.samples, "best": counters.best}
        run.save(self.step, self.state.size(), self.state.files(outputs.notes), facts, replace=replace)
        run.checkpoints.prune(int(counters.best["step"]) if counters.best else None, self.train.keep_every)


def _parts(batch: Batch, size: int | None) -> Iterator[Batch]:
    """The batch in pieces of at most ``size`` examples; none where it is empty."""
    count = len(batch["key"]) if batch else 0
    for start in range(0, count, size or max(count, 1)):
        yield {name: tensor[start : start + (size or count)] for name, tensor in batch.items()}
