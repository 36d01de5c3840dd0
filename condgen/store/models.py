"""``load`` and ``save_model``: from a folder to what was trained, usually a ``ConditionalModel``, and back."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from condgen.condition import DataInfo, Encoder
from condgen.errors import CondgenError, MachineError, ModelError, RecipeError, lacks_memory, shown
from condgen.files import aside_of, read_regular, sync_folder, unwritable, write_new
from condgen.model import ConditionalModel
from condgen.progress import warn
from condgen.recipe import Recipe
from condgen.recipe.build import Trained, build_trained
from condgen.store.checkpoints import Checkpoint, Checkpoints
from condgen.store.config import CONFIG, config_of, parse_config, read_config
from condgen.store.frozen import frozen_state, read_frozen
from condgen.store.sealed import seal
from condgen.store.shipped import shipped, shipped_names
from condgen.store.tensors import check_finite, decode, encode

_WEIGHTS = "model.safetensors"
_FILES = {CONFIG, _WEIGHTS, "README.md"}
_LIMIT = 1 << 40


def fresh_model(recipe: Recipe, info: DataInfo) -> Trained:
    """What the recipe trains, with random weights, on the CPU, in the precision that its training keeps weights in.

    Raises:
        RecipeError: there is no such encoder, or it cannot work with this data.
        ModelError: the encoder is broken.
    """
    try:
        model = build_trained(recipe, info)
    except CondgenError:
        raise
    except Exception as error:  # a stranger's encoder may raise anything
        if lacks_memory(error):
            raise
        name, reason = shown(recipe.encoder.type), shown(f"{type(error).__name__}: {error}")
        raise ModelError(
            f"encoder.type: {name} cannot be built ({reason}); mend it or choose another.", field="encoder.type"
        ) from error
    return model.double() if recipe.train.precision == "fp64" else model


def load_pretrained(encoder: Encoder) -> None:
    """``encoder.load_pretrained()``, its errors turned into ours.

    Raises:
        CondgenError: what the encoder raises of it.
        ModelError: anything else goes wrong.
    """
    try:
        encoder.load_pretrained()
    except CondgenError:
        raise
    except Exception as error:  # a stranger's encoder may raise anything
        if lacks_memory(error):
            raise
        reason = shown(" ".join(f"{type(error).__name__}: {error}".split())[:300])
        raise ModelError(
            f"The encoder {type(encoder).__name__} cannot take the weights that it begins with ({reason}); mend it or "
            "choose another encoder.type.",
            field="encoder.type",
        ) from error


def load(
    target: str | Path,
    *,
    weights: Literal["ema", "raw"] = "ema",
    checkpoint: Literal["last", "best"] | int = "last",
    device: str | torch.device | None = None,
) -> Any:
    """What a run trained or a model folder holds, in eval mode. Nothing in the files is executed.

    Args:
        target: a run folder, a model folder, the name of a run in ``./runs``, or that of a model that ships with
            condgen.
        weights: ``ema``, the averaged ones, or ``raw``, as the optimiser left them (runs only).
        checkpoint: of a run: ``last`` (the newest that verifies), ``best`` by validation, or a step.
        device: where the model goes; default: it stays on the CPU.

    Returns:
        What ``train.objective`` trains: a ``ConditionalModel``, or for squared_error an ``Autoencoder``. Its
        attributes ``recipe`` and ``source`` say what it was made by and read from.

    Raises:
        ModelError: missing, damaged, of another version, or its encoder is not there.
        MachineError: the device is not there.
    """
    if weights not in ("ema", "raw"):
        raise RecipeError(f"weights is 'ema' or 'raw', not {shown(weights)!r}.", field="weights")
    folder, halved = find(target), False
    if (folder / "checkpoints").is_dir():
        found = _choose(folder, checkpoint)
        recipe, info = parse_config(found.manifest, found.folder / "manifest.json")
        path = found.folder / ("ema.safetensors" if weights == "ema" else _WEIGHTS)
        data = found.read(path.name)
        model = _built(recipe, info, folder)
        kept = read_frozen(folder, found.manifest.get("frozen"), frozen_state(model))
    else:
        if weights == "raw" or checkpoint != "last":
            raise ModelError(
                f"{shown(folder)} is a model folder: it has no raw weights and no checkpoints.", file=folder
            )
        recipe, info, content = read_config(folder / CONFIG)
        path = folder / _WEIGHTS
        data = read_regular(path, _LIMIT, error=ModelError)
        if content.get("weights") != hashlib.sha256(data).hexdigest():
            raise ModelError(f"{shown(path)} is damaged: its content does not fit {CONFIG}.", file=path)
        model, kept = _built(recipe, info, folder), {}
        halved = content.get("halved") is True
    own = {name: tensor for name, tensor in model.state_dict().items() if name not in kept}
    put(model, decode(data, _halved(own) if halved else own, path) | kept)
    model.recipe = recipe
    model.source = folder
    try:
        return model.to(device or "cpu").eval()
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise MachineError(f"There is no device {shown(device)} here; choose cpu.", field="device") from error


def load_conditional(target: str | Path, **choice: Any) -> ConditionalModel:
    """``load``, for whoever needs a density p(x | h).

    Raises:
        ModelError: as ``load``; also if something else was trained.
    """
    model = load(target, **choice)
    return as_conditional(model, model.recipe, model.source)


def as_conditional(model: Trained, recipe: Recipe, source: object) -> ConditionalModel:
    """``model``, which ``recipe`` trains, if it is a density.

    Raises:
        ModelError: it is something else; the sentence names ``source``.
    """
    if not isinstance(model, ConditionalModel):
        raise ModelError(
            f"{shown(source)} has no likelihood, being of train.objective={recipe.train.objective}; give one of "
            "train.objective=likelihood.",
            file=source,
            field="train.objective",
        )
    return model


def _built(recipe: Recipe, info: DataInfo, folder: Path) -> Trained:
    try:
        return fresh_model(recipe, info)
    except RecipeError as error:  # a recipe that once worked: here it is the model that cannot be used
        raise ModelError(
            f"{shown(folder)} cannot be built here: {error.message}", file=folder, field=error.field
        ) from error


def find(target: str | Path) -> Path:
    """The folder that ``target`` means: a path, the name of a run in ``./runs``, or of a model that ships with condgen.

    Raises:
        ModelError: there is none, or it is a file.
    """
    folder = Path(target)
    bare = len(folder.parts) == 1 and not folder.is_absolute()
    own = shipped(str(target)) if bare else None
    try:
        if not folder.exists() and bare and (Path("runs") / folder).is_dir():
            folder = Path("runs") / folder
        if own is not None and not folder.is_file() and not (folder / CONFIG).is_file():
            return own  # a folder of that name that holds no model, as of pictures, does not hide it
        if folder.is_file():
            raise ModelError(
                f"{shown(folder)} is a file; give a run or model folder (condgen import makes one of other programs' "
                "weights).",
                file=folder,
            )
        if not folder.is_dir():
            ships = "".join(f", or {name}" for name in shipped_names())
            raise ModelError(
                f"There is no run or model {shown(target)}; give the path of its folder{ships}.", file=target
            )
        if not (folder / CONFIG).is_file():
            raise ModelError(f"{shown(folder)} is no run or model folder: it has no {CONFIG}.", file=folder)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ModelError(f"{shown(target)} cannot be opened ({shown(error)}).", file=target) from error
    return folder


def _choose(folder: Path, which: str | int) -> Checkpoint:
    checkpoints = Checkpoints(folder / "checkpoints", warn)
    if isinstance(which, int):
        return checkpoints.open(which)
    if which not in ("last", "best"):
        raise RecipeError(f"checkpoint is 'last', 'best' or a step, not {shown(which)!r}.", field="checkpoint")
    newest = checkpoints.newest()
    if newest is None:
        raise ModelError(f"{shown(folder)} has no checkpoint yet; train it first.", file=folder)
    best = newest.manifest.get("best")
    if which == "last":
        return newest
    if not isinstance(best, dict) or not isinstance(best.get("step"), int):
        raise ModelError(f"{shown(folder)} was never validated: it has no best checkpoint.", file=folder)
    return checkpoints.open(best["step"])


@torch.no_grad()
def put(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copies ``tensors`` (by name, all of them present) into ``module``, whose memory layout stays."""
    for name, own in module.state_dict().items():
        own.copy_(tensors[name])


def check_free(folder: Path, force: bool = False) -> None:
    """Raises:
    RecipeError: ``folder`` exists, and ``force`` is off or there is something else there than a model; or the folder
        that it would lie in does not exist.
    """
    if not os.path.lexists(folder):
        if not os.path.isdir(folder.parent):
            raise RecipeError(
                f"{shown(folder)} cannot be made: {shown(folder.parent)} is no folder; make it, or choose another "
                "name.",
                file=folder,
            )
        return
    if not force:
        raise RecipeError(f"{shown(folder)} exists; choose another name or add --force.", file=folder)
    if folder.is_symlink() or not folder.is_dir() or not {CONFIG, _WEIGHTS} <= set(os.listdir(folder)) <= _FILES:
        raise RecipeError(f"{shown(folder)} holds something else than a model; choose another name.", file=folder)


def _halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """fp32 as fp16; anything else as it is."""
    return {name: t.half() if t.dtype == torch.float32 else t for name, t in tensors.items()}


def save_model(
    model: Trained, recipe: Recipe, folder: str | Path, readme: str, *, force: bool = False, halved: bool = False
) -> None:
    """Writes a model folder: ``config.json``, ``model.safetensors``, ``README.md``; whole or not at all.

    Paths of this machine (``data.root``, ``data.columns``) are left out. With ``force`` a model folder of this name is
    replaced. With ``halved`` fp32 weights are written as fp16, half as large; ``load`` gives them back as fp32.

    Raises:
        RecipeError: ``folder`` exists.
        ModelError: a weight is NaN or infinite.
        MachineError: the disk refuses.
    """
    folder = Path(folder)
    check_free(folder, force)
    state = _halved(model.state_dict()) if halved else model.state_dict()
    check_finite(state, folder)
    portable = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": None, "columns": None})})
    weights = encode(state)
    config = {**config_of(portable, model.info), "weights": hashlib.sha256(weights).hexdigest()}
    if halved:
        config["halved"] = True
    aside = aside_of(folder)
    try:
        aside.mkdir()
        try:
            write_new(aside / _WEIGHTS, weights)
            write_new(aside / "README.md", readme.encode())
            write_new(aside / CONFIG, seal(config))
            sync_folder(aside)
            _put_in_place(aside, folder)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        sync_folder(folder.parent)
    except (OSError, ValueError) as error:
        raise unwritable(folder, error) from error


def _put_in_place(aside: Path, folder: Path) -> None:
    """Gives ``aside`` the name ``folder``; what had it goes when the new folder is there, or comes back."""
    if not os.path.lexists(folder):
        os.rename(aside, folder)
        return
    old = aside_of(folder)
    os.rename(folder, old)
    try:
        os.rename(aside, folder)
    except OSError:
        os.rename(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
