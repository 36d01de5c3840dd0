"""Everything that a resumed run needs, in one place. Whatever is added to training adds its state here."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from condgen.errors import ModelError, shown
from condgen.recipe import TrainSection
from condgen.store.checkpoints import Checkpoint
from condgen.store.frozen import frozen_state, read_frozen
from condgen.store.models import put
from condgen.store.sealed import from_json, to_json
from condgen.store.tensors import check_finite, decode, encode
from condgen.train.schedule import ema_decay, learning_rate

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class Counters:
    """What is counted. The step is not: it is ``samples`` over the batch size."""

    samples: int = 0
    """Examples consumed by finished steps: the position in the data."""
    updates: int = 0
    """Steps that moved the weights; schedule and average count these."""
    skipped: int = 0
    skipped_in_a_row: int = 0
    seconds: float = 0.0
    """Training, evaluation and pictures together, over all restarts."""
    pictures: int = 0
    """Grids drawn before the last one."""
    validation: dict[str, float] | None = None
    """The newest validation: step, value and its interval; ``best`` is the one with the lowest value."""
    best: dict[str, float] | None = None
    finished: list[float | None] | None = None
    """The budget [max_steps, max_minutes] that was used up."""


class TrainState:
    """Weights, their average, the optimiser and the counters.

    Args:
        module: what is trained, on its device and initialised; parameters without gradient stay as they are.
        train: the recipe's section.
    """

    def __init__(self, module: nn.Module, train: TrainSection) -> None:
        self.module = module
        self.train = train
        self.counters = Counters()
        self.trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if not self.trainable:
            raise ModelError(f"{type(module).__name__} has no parameter to train.")
        # frozen weights never differ: both modules share them
        frozen = {id(p): p for p in module.parameters() if not p.requires_grad}
        self.average = copy.deepcopy(module, frozen).requires_grad_(False).eval()
        # the fused step clones what is not plainly contiguous, so it is given every weight as it lies in memory
        self._flat = {name: nn.Parameter(_flat(p.detach())) for name, p in self.trainable.items()}
        self.optimizer = torch.optim.Adam(
            self._flat.values(), lr=0.0, betas=train.adam_betas, eps=train.adam_epsilon, fused=True
        )
        for parameter in self._flat.values():  # as Adam's first step would make it, so that it can be restored
            self.optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        averaged = dict(self.average.named_parameters())
        self._averages: list[Tensor] = [averaged[name] for name in self.trainable]
        self._frozen = [frozen_state(module), frozen_state(self.average)]  # parameters are one, buffers are two

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        for parameter in self.trainable.values():
            parameter.grad = None

    @torch.no_grad()
    def update(self) -> None:
        """One step of Adam and of the average; gradients are those of the mean loss."""
        done = self.counters.updates
        self.optimizer.param_groups[0]["lr"] = learning_rate(self.train, done)
        for name, parameter in self.trainable.items():
            gradient = parameter.grad
            if gradient is not None and not _lie_alike(gradient, parameter):
                gradient = torch.empty_like(parameter).copy_(gradient)
            self._flat[name].grad = None if gradient is None else _flat(gradient)
        self.optimizer.step()
        weights: list[Tensor] = list(self.trainable.values())
        torch._foreach_lerp_(self._averages, weights, 1 - ema_decay(self.train, done))
        for own, live in zip(self.average.buffers(), self.module.buffers(), strict=True):
            own.copy_(live)
        self.counters.updates = done + 1

    def restart_average(self) -> None:
        """The average becomes the weights: after initialisation, before the first step."""
        put(self.average, self.module.state_dict())

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        found = {}
        for name, parameter in self.trainable.items():
            for moment in _MOMENTS:
                tensor: Tensor = self.optimizer.state[self._flat[name]][moment]
                found[f"{name}/{moment}"] = tensor if moment == "step" else _shaped(tensor, parameter)
        return found

    @property
    def frozen(self) -> dict[str, Tensor]:
        """The weights of frozen encoders, which a run keeps once (``store.frozen``)."""
        return self._frozen[0]

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Every tensor of a checkpoint by file and name: the very ones, not copies."""
        model, average = (
            {name: tensor for name, tensor in module.state_dict().items() if name not in self.frozen}
            for module in (self.module, self.average)
        )
        return {
            "model.safetensors": model,
            "ema.safetensors": average,
            "optimizer.safetensors": self._optimizer_tensors(),
        }

    def everything(self) -> Iterator[Tensor]:
        """Every tensor that processes which train together hold alike."""
        for group in (*self.tensors().values(), *self._frozen):
            yield from group.values()

    def size(self) -> int:
        """Bytes of a checkpoint."""
        return sum(t.numel() * t.element_size() for group in self.tensors().values() for t in group.values())

    def files(self, notes: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
        """The files of a checkpoint; ``notes`` go into ``state.json`` for people.

        Raises:
            ModelError: a tensor holds NaN or infinity: such a state is never saved.
        """
        groups = self.tensors()
        for name, tensors in groups.items():
            check_finite(tensors, name)
        for name, tensors in groups.items():
            yield name, encode(tensors)
        yield "state.json", to_json({"counters": asdict(self.counters), **notes})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Takes everything from ``checkpoint``, by name; a failure leaves this state as it was.

        Raises:
            ModelError: a file is damaged or does not fit.
        """
        own, folder = self.tensors(), checkpoint.folder
        found = {name: decode(checkpoint.read(name), tensors, folder / name) for name, tensors in own.items()}
        frozen = read_frozen(folder.parents[1], checkpoint.manifest.get("frozen"), self.frozen)
        counters = _counters(from_json(checkpoint.read("state.json"), folder / "state.json"), folder / "state.json")
        with torch.no_grad():
            for own_frozen in self._frozen:
                for key, tensor in own_frozen.items():
                    tensor.copy_(frozen[key])
            for name, tensors in own.items():
                for key, tensor in tensors.items():
                    tensor.copy_(found[name][key])
        self.counters = counters

    def initialise_from(self, other: nn.Module, source: object) -> None:
        """Takes the weights of ``other``, all of them, and nothing else.

        Raises:
            ModelError: a weight is missing on one side or has another shape; the sentence names it.
        """
        mine, theirs = self.module.state_dict(), other.state_dict()
        for name in sorted({*mine, *theirs}):
            shapes = [tuple(state[name].shape) if name in state else "absent" for state in (theirs, mine)]
            if shapes[0] != shapes[1]:
                raise ModelError(
                    f"{shown(source)} cannot initialise this model: {name} is {shapes[0]} there and {shapes[1]} here; "
                    "use the recipe it was trained by.",
                    file=source,
                )
        put(self.module, theirs)
        self.restart_average()


def _flat(tensor: Tensor) -> Tensor:
    """The elements in the order in which they lie in memory, as a view; the tensor has no gaps."""
    return tensor.as_strided((tensor.numel(),), (1,))


def _shaped(flat: Tensor, like: Tensor) -> Tensor:
    """``_flat`` undone for a tensor that lies in memory as ``like`` does."""
    return flat.as_strided(like.shape, like.stride())


def _lie_alike(one: Tensor, other: Tensor) -> bool:
    """Whether both have their elements in the same order in memory; strides of a single element do not matter."""
    return all(n == 1 or a == b for n, a, b in zip(one.shape, one.stride(), other.stride(), strict=True))


def _counters(content: dict[str, Any], path: Path) -> Counters:
    found = content.get("counters")
    names = {field.name for field in fields(Counters)}
    if not isinstance(found, dict) or set(found) != names:
        raise ModelError(f"{shown(path)} is not the state of a training; use the condgen that wrote it.", file=path)
    return Counters(**found)
