"""From a recipe to a trained run: opens data, model, folder and processes, and lets the loop work."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from condgen import streams
from condgen.condition import DataInfo, Encoder
from condgen.data import Dataset, open_data
from condgen.data.embeddings import with_conditions
from condgen.errors import CondgenError, InputError, Interrupted, ModelError, shown
from condgen.probe import probe
from condgen.progress import warn
from condgen.recipe import Recipe
from condgen.recipe.build import Trained
from condgen.store.checkpoints import Checkpoints
from condgen.store.config import versions
from condgen.store.models import fresh_model, load, load_pretrained
from condgen.store.run import Run
from condgen.train.batches import Batches, Sequence, fetcher
from condgen.train.budget import Budget
from condgen.train.loop import NOT_SAVED, NOTHING_SAVED, Loop, Outputs
from condgen.train.objective import Training, build_objective
from condgen.train.precision import bf16_is_fast
from condgen.train.process import determinism, explained
from condgen.train.ranks import TIMEOUT, Ranks, abandon
from condgen.train.report import Report
from condgen.train.signals import Signals
from condgen.train.state import Counters, TrainState

_INITIAL_EXAMPLES = 64


@dataclass
class TrainResult:
    """What a training came to. Without validation images the figures are None.

    Attributes:
        unit: of the figures, as the objective calls it: ``bits_per_dim``, ``squared_error``, ``auc``.
        figure: of the averaged weights on validation images.
        ci95: half-width of its 95 % interval.
        bound: whether the figure is a variational bound (see ``Likelihood.bound``).
    """

    run: Path
    steps: int
    unit: str
    figure: float | None
    ci95: float | None
    bound: bool = False


def run_training(
    recipe: Recipe,
    *,
    out: str | os.PathLike[str],
    device: str | None = None,
    init_from: str | os.PathLike[str] | None = None,
    quiet: bool | None = None,
    signals: Signals | None = None,
) -> TrainResult:
    """Trains ``recipe`` in the run folder ``out``, or goes on with the training that is there.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N``; None: a GPU where there is one.
        init_from: run or model folder whose averaged weights a new run starts from.
        quiet: no progress; None: as ``progress.set_quiet`` says.
        signals: handlers that were installed earlier.

    Raises:
        RecipeError, InputError, ModelError: before any training step; what lies in ``out`` is untouched.
        NumericalError, MachineError, Interrupted: as ``Loop.fit``.
    """
    with contextlib.ExitStack() as stack:
        signals = signals or stack.enter_context(Signals())
        # compiling takes minutes, and not the same on every process
        ranks = Ranks(device, TIMEOUT * 10 if recipe.train.compile else TIMEOUT)
        stack.enter_context(determinism(recipe.train.deterministic, ranks.device))
        try:
            with explained():
                return _Job(recipe, Path(out), ranks, signals, init_from, quiet).work(stack)
        except BaseException:
            abandon()
            raise


class _Job:
    """The parts of one training, opened in the order in which they can fail."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        ranks: Ranks,
        signals: Signals,
        init_from: str | os.PathLike[str] | None,
        quiet: bool | None,
    ) -> None:
        self.recipe = _absolute(recipe)
        self.folder, self.ranks, self.signals, self.quiet = folder, ranks, signals, quiet
        self.origin = None if init_from is None else Path(init_from)

    def work(self, stack: contextlib.ExitStack) -> TrainResult:
        recipe, ranks = self.recipe, self.ranks
        with ranks.one_after_rank_0():
            images = open_data(recipe.data, "train")
            validation = open_data(recipe.data, "validation") if recipe.train.evaluate_images else None
        if len(images) == 0:
            raise InputError("The train split has no images; check data.root and data.source.", field="data.root")
        ranks.check_equal([_bits(images.fingerprint)], "The data")
        model = fresh_model(recipe, images.info)
        if ranks.first and self.origin is None and not self._goes_on():
            load_pretrained(model.encoder)
        model = model.to(ranks.device)
        _check_readable(model, images)
        objective = build_objective(recipe, model, ranks)
        order = objective.order(images, recipe.train.seed)

        run = stack.enter_context(self._open_run(images, images.info)) if ranks.first else None
        if recipe.train.precision == "bf16" and ranks.first and not bf16_is_fast(ranks.device):
            warn(f"train.precision: {ranks.device} has no fast bf16; fp32 is the better choice on this machine.")
        state = self._prepare(objective, order, images, run)
        done = state.counters.samples // recipe.train.batch_size
        with ranks.one_after_rank_0():
            images = self._with_conditions(images, model.encoder)
            validation = validation and self._with_conditions(validation, model.encoder)
        if recipe.train.compile:
            # on a CPU it would say on stderr that CUDA is installed and no GPU there
            logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
            objective.compile()
        budget = Budget(recipe.train.max_steps, recipe.train.max_minutes, state.counters.seconds)
        outputs = self._outputs(stack, run, images, validation, objective, state, budget) if run else None
        ranks.wait()
        fetch = fetcher(
            images,
            order,
            recipe.train.batch_size,
            ranks.rank,
            ranks.size,
            flip=recipe.data.flip,
            pin=ranks.device.type == "cuda",
            augment=recipe.data.augment,
            bit_depth=recipe.data.bit_depth,
            pairs=images.pairs,
        )
        batches = stack.enter_context(Batches(fetch, done))
        loop = Loop(recipe.train, objective, state, order, batches, ranks, budget, self.signals, outputs)
        if self.signals.stop is not None and not loop.step and ranks.size == 1:  # many stop after a common step
            raise Interrupted(NOTHING_SAVED, exit_code=self.signals.stop)
        with _status(run, loop), self.signals.blamed(lambda: NOT_SAVED if loop.step else NOTHING_SAVED):
            loop.fit()
        found = state.counters.validation or {}
        figures = found.get(objective.figure), found.get(f"{objective.figure}_ci95")
        return TrainResult(self.folder, loop.step, objective.figure, *figures, bound=bool(found.get("bound")))

    def _goes_on(self) -> bool:
        """Whether the run folder holds checkpoints: they bring every weight along."""
        folder = self.folder / "checkpoints"
        return os.path.isdir(folder) and bool(Checkpoints(folder, warn).steps())

    def _open_run(self, images: Dataset, info: DataInfo) -> Run:
        return Run(
            self.folder,
            self.recipe,
            info,
            f"{len(images)} {images.fingerprint}",
            origin=None if self.origin is None else str(self.origin.resolve()),
            warn=warn,
        )

    def _prepare(self, objective: Training, order: Sequence, images: Dataset, run: Run | None) -> TrainState:
        """Weights and counters: of the newest checkpoint, of another model, or fresh; rank 0 decides, all follow."""
        state = TrainState(objective.module, self.recipe.train)
        if run is not None:
            newest = run.checkpoints.newest()
            if newest is not None:
                state.restore(newest)
                run.facts["frozen"] = newest.manifest.get("frozen")
            elif self.origin is not None:
                other = load(self.origin)
                state.initialise_from(other, self.origin)
                _check_same_function(self.recipe, other.recipe, self.origin)
            else:
                first, _ = order.at(0, min(len(images), _INITIAL_EXAMPLES))
                objective.module.eval()
                with torch.no_grad():
                    objective.initialise(_on(self.ranks.device, images.batch(first)))
                state.restart_average()
            if newest is None:
                run.keep_frozen(state.frozen)
        self.ranks.wait()
        self.ranks.share_tensors(state.everything())
        state.counters = Counters(**self.ranks.share_facts(asdict(state.counters)))
        return state

    def _with_conditions(self, images: Dataset, encoder: Encoder) -> Dataset:
        """``images`` with the conditions of a frozen encoder, which are made now if they were not before."""

        def look() -> None:
            if self.signals.stop is not None:
                raise Interrupted(
                    "Stopped by a signal while images were encoded; the same command begins that again.",
                    exit_code=self.signals.stop,
                )

        return with_conditions(images, encoder, self.ranks.device, between=look, quiet=self.quiet)

    def _outputs(
        self,
        stack: contextlib.ExitStack,
        run: Run,
        images: Dataset,
        validation: Dataset | None,
        objective: Training,
        state: TrainState,
        budget: Budget,
    ) -> Outputs:
        recipe, average = self.recipe, state.average
        _check_room(run.folder, state.size())
        report = Report(
            run,
            state.counters.samples // recipe.train.batch_size,
            tensorboard=recipe.train.tensorboard,
            quiet=self.quiet,
        )
        stack.enter_context(report)
        outputs = Outputs(run, report, drawings=recipe.sample.during, notes=self._notes())
        if validation is not None and len(validation):
            size = min(recipe.train.micro_batch or recipe.train.batch_size, recipe.train.evaluate_images)
            outputs.validate = objective.validation(average, validation, recipe.train.evaluate_images, size)
        if recipe.sample.count:
            outputs.draw = objective.pictures(
                average, run.folder / "samples", recipe.sample, images, validation, self.quiet
            )
            left = (budget.max_seconds or float("inf")) - budget.seconds
            if outputs.draw and outputs.draw.seconds > left / 2:
                report.say(
                    f"sample grids are left out: one would take {outputs.draw.seconds:.0f} of {left:.0f} seconds"
                )
                outputs.draw = None
        return outputs

    def _notes(self) -> dict[str, Any]:
        return {
            "processes": self.ranks.size,
            "threads": torch.get_num_threads(),
            "device": str(self.ranks.device),
            "deterministic": self.recipe.train.deterministic,
            "versions": versions(),
        }


def _absolute(recipe: Recipe) -> Recipe:
    """A run remembers where its data are, wherever it is continued from."""
    paths = {name: getattr(recipe.data, name) for name in ("root", "columns")}
    found = {name: str(Path(path).absolute()) for name, path in paths.items() if path is not None}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=found)})


def _on(device: torch.device, batch: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.to(device) for name, tensor in batch.items()}


def _bits(text: str) -> torch.Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def _check_same_function(recipe: Recipe, other: Recipe, source: Path) -> None:
    """What changes a network's function and no weight's shape: the same weights would be another model.

    Raises:
        ModelError: the two recipes differ in it.
    """
    here, there = recipe.model.nonlinearity, other.model.nonlinearity
    if recipe.model.core == "pixelcnn++" and here != there:
        raise ModelError(
            f"{shown(source)} cannot initialise this model: model.nonlinearity is {there} there and {here} here; "
            f"set it to {there}.",
            file=source,
            field="model.nonlinearity",
        )


def _check_readable(model: Trained, images: Dataset) -> None:
    """The encoder can read this data and keeps to its contract: said before anything is written."""
    indices = np.array([0, len(images) - 1])
    batch = images.batch(indices) | {"key": streams.example_keys(indices, 0, "probe")}
    probe(model.encoder, _on(model.device, batch))


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < 3 * size:
        warn(f"{shown(folder)}: three checkpoints take {3 * size >> 20:,} MiB, and {free >> 20:,} MiB are free.")


@contextlib.contextmanager
def _status(run: Run | None, loop: Loop) -> Iterator[None]:
    """Keeps ``status.json``: launchers of many processes drop exit codes, this does not."""
    if run is None:
        yield
        return
    run.note(state="training", step=loop.step, exit_code=None, message="")
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(CondgenError):  # the first error is the one to report
            code, message = getattr(error, "exit_code", 1), getattr(error, "message", type(error).__name__)
            run.note(state="stopped", step=loop.step, exit_code=code, message=message)
        raise
    run.note(state="finished", step=loop.step, exit_code=0, message="")
