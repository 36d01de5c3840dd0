"""What a training would take, before anything is allocated: parameters, memory, images."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from condgen.autoencoder import Autoencoder
from condgen.condition import Condition, DataInfo
from condgen.data import data_info, data_sizes, declared_info
from condgen.embedding import Embedding
from condgen.errors import CondgenError, RecipeError
from condgen.recipe import Recipe
from condgen.recipe.build import Trained, build_trained

_STAND_IN = tuple(str(k) for k in range(10))
"""Classes of a set that is not there, if it is one of these; the others name theirs beforehand."""
_UNNAMED = ("folder", "shards", "npz", "lfw")
_COPIES = 5
"""Of every weight that is trained: itself, its gradient, Adam's two moments, its average."""
_REFUSED = 2.0
"""An estimate beyond this many times the memory is refused; below, it may be too cautious or the system may swap."""


@dataclass(frozen=True)
class Memory:
    """Bytes, estimated. ``activations`` are those that one forward pass of one process keeps for its backward pass."""

    weights: int
    training: int
    activations: int
    total: int
    available: int


@dataclass(frozen=True)
class Plan:
    """What ``--dry-run`` shows.

    Attributes:
        data: the images of each split; None where the set is absent.
        classes_known: whether an encoder of classes was counted with as many as there are.
    """

    parameters: int
    memory: Memory
    data: dict[str, int] | None
    recipe: Recipe
    classes_known: bool

    def as_dict(self) -> dict[str, Any]:
        return {
            "parameters": self.parameters,
            "memory": asdict(self.memory),
            "data": self.data,
            "recipe": self.recipe.model_dump(mode="json"),
        }


def make_plan(recipe: Recipe, device: torch.device, processes: int = 1) -> Plan:
    """Parameters, memory and data of a training on ``processes`` such devices.

    Raises:
        RecipeError: it needs far more memory than there is.
        InputError: ``data.root`` is named and missing or empty.
    """
    info = data_info(recipe.data)
    model = _shadow(recipe, info or _declared(recipe))
    memory = _estimate(model, recipe, device, processes)
    parameters = sum(weight.numel() for weight in model.parameters())
    known = info is not None or recipe.data.source not in _UNNAMED or "label" not in model.encoder.reads
    return Plan(parameters, memory, data_sizes(recipe.data), recipe, known)


def check_memory(recipe: Recipe, device: torch.device, processes: int = 1) -> None:
    """Refuses what cannot fit before data are opened; an encoder that cannot be built without them passes.

    Raises:
        RecipeError: the recipe needs far more memory than there is; the sentence says how much.
    """
    try:
        model = _shadow(recipe, _declared(recipe))
    except Exception:  # with stand-ins for the data, whatever an encoder says is no news
        return
    _estimate(model, recipe, device, processes)


def planned_info(recipe: Recipe) -> DataInfo:
    """The images that ``recipe`` is about, whether its data are there or not; unknown classes are stood in for.

    Raises:
        InputError: ``data.root`` is named and missing or empty.
    """
    return data_info(recipe.data) or _declared(recipe)


def _declared(recipe: Recipe) -> DataInfo:
    info = declared_info(recipe.data)
    return replace(info, classes=_STAND_IN) if recipe.data.source in _UNNAMED and not info.classes else info


def _shadow(recipe: Recipe, info: DataInfo) -> Trained:
    """The model on torch's meta device: every shape, no memory."""
    try:
        with torch.device("meta"):
            return build_trained(recipe, info).to("meta")
    except CondgenError:
        raise
    except Exception:  # an encoder that computes while it is built
        return build_trained(recipe, info).to("meta")


def _estimate(model: Trained, recipe: Recipe, device: torch.device, processes: int) -> Memory:
    size = 8 if recipe.train.precision == "fp64" else 4
    weights = size * sum(weight.numel() for weight in model.parameters())
    share = -(-recipe.train.batch_size // processes)
    batch = min(recipe.train.micro_batch or share, share)
    one, two = (_activations(model, recipe.train.precision, count) for count in (1, 2))
    activations = one + (batch - 1) * (two - one)  # weights under a mask or a norm are kept once, whatever the batch
    images = 2 * share * model.info.dimensions  # this batch and the next
    learning = size * sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    training = weights + (_COPIES - 1) * learning  # of frozen weights there is one copy
    total = training + activations + images
    available = _memory_of(device)
    if total > _REFUSED * available:
        depth = {"gated": "model.layers", "pixelcnn++": "model.resnets"}[recipe.model.core]
        cause = f"model.filters or {depth}" if training > total / 2 else "train.batch_size or train.micro_batch"
        raise RecipeError(
            f"{cause}: this takes about {total / 2**30:,.1f} GiB of memory ({weights / 2**30:,.1f} of weights, "
            f"{activations / 2**30:,.1f} of activations), and {device} has {available / 2**30:,.1f}; lower it.",
            field=cause.split(" ")[0],
        )
    return Memory(weights, training, activations, total, available)


def _activations(model: Trained, precision: str, count: int) -> int:
    """Bytes that a forward pass of ``count`` images keeps for the backward pass."""
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    info, encoder = model.info, model.encoder
    x = torch.empty(count, info.channels, info.height, info.width, device="meta")
    h = Condition(
        torch.empty(count, encoder.vector_size, device="meta") if encoder.vector_size else None,
        torch.empty(count, encoder.map_channels, info.height, info.width, device="meta")
        if encoder.map_channels
        else None,
    )
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        if isinstance(model, Autoencoder):
            total = (model.drawn(h) - x).square().sum()
        elif isinstance(model, Embedding):
            total = _embedding(model, x.to(torch.uint8))
        else:
            keys = torch.empty(count, dtype=torch.int64, device="meta")  # masks of dropout are kept as well
            parameters = model.core(x, model.core.terms(h), keys)
            total = model.likelihood.log_prob(parameters, x.to(torch.uint8)).sum()
    weights = {weight.untyped_storage()._cdata for weight in model.parameters()}
    found = sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in weights)
    del total
    # float32 on the meta device; under autocast the core keeps half of that, the likelihood does not
    return {"fp32": found, "fp64": 2 * found, "bf16": found * 5 // 8}[precision]


def _embedding(model: Embedding, image: torch.Tensor) -> torch.Tensor:
    """The sum of the encoder's vectors; 0 where it cannot say without data."""
    try:
        vector = model.encoder.encode({"image": image}).vector
    except Exception:  # a stranger's encoder may ask for values, or for other things than images
        vector = None
    return torch.zeros((), device="meta") if vector is None else vector.sum()


def _memory_of(device: torch.device) -> int:
    """Bytes of memory of ``device``; of the CPU what this process may have of the machine's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(machine, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no such limit: "max", or another system
        return machine
