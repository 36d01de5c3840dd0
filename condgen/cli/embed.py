"""``condgen embed``: what a model's encoder makes of pictures, as numbers in a file."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from condgen.cli.options import (
    Checkpoint,
    Debug,
    Device,
    Force,
    Json,
    Labels,
    ModelOption,
    Quiet,
    Weights,
    checkpoint_of,
    conditions_of_images,
    device_of,
    free_path,
    one_of,
    split_words,
    without_overrides,
)
from condgen.cli.outcome import answer
from condgen.cli.photos import Aligned, Box, Face, Sought
from condgen.errors import ModelError, RecipeError, shown
from condgen.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from condgen.condition import Condition
    from condgen.model import Encoded

_KINDS = (".safetensors", ".npz", ".csv")


def embed(
    image: Annotated[list[str], typer.Argument(metavar="IMAGE", help="Image files.")],
    model_name: ModelOption,
    label: Labels = None,
    face: Face = None,
    box: Box = None,
    aligned: Aligned = False,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="F.safetensors, F.npz, or F.csv (vectors alone); default: a new name here.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    weights: Weights = "ema",
    checkpoint: Checkpoint = "last",
    device: Device = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write what a model's encoder makes of pictures: vector (N, D) and map (N, S, H, W), a row for each picture.

    Pictures are encoded one at a time: no row depends on the others. A file of vectors can be used as data.columns for
    encoder.type=vector.
    """
    words, rest = split_words(image, label, None)
    files, overrides = without_overrides(rest)
    if overrides:
        raise RecipeError(f"{shown(overrides[0])[:60]}: embed takes no overrides; leave it out.", field="IMAGE")
    path = None if out is None else _destination(out, force)
    which, step = one_of("weights", weights, ["ema", "raw"]), checkpoint_of(checkpoint)
    sought = Sought.of(face, box, aligned)
    check_pictures(files)
    from condgen.condition import Condition
    from condgen.store import load

    model = embedding_images(load(model_name, weights=which, checkpoint=step, device=device_of(device)))
    found: list[Condition] = []
    with Progress("embedding", len(files), "images") as bar:
        for k, file in enumerate(files):
            mine = [(word, value) for word, value in _nth(words, k, len(files))]
            found.append(conditions_of_images(model, mine, [sought.read(model.encoder, file)]))
            bar.advance()
    parts = _parts(model, Condition.stack(found))
    path = path or free_path("embeddings", ".safetensors")
    _write(path, parts, force)
    shapes = {name: list(part.shape[1:]) for name, part in parts.items()}
    what = " and ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
    result = {"file": str(path), "images": files, "parts": shapes}
    answer(result, f"{len(files)} images, {what} each: {shown(path)}", as_json)


def check_pictures(files: Sequence[str]) -> None:
    """Whether there are pictures and each can be one, before a model is loaded.

    Raises:
        RecipeError: there is none.
        InputError: a file is missing, no picture or too large.
    """
    from condgen.data import check_picture

    if not files:
        raise RecipeError("There is no image; name a file.", field="IMAGE")
    for file in files:
        check_picture(file)


def embedding_images(model: Encoded) -> Any:
    """``model``, whose encoder can read a picture.

    Raises:
        ModelError: it cannot.
    """
    if "image" not in model.encoder.words:
        raise ModelError(
            f"{shown(model.source)} does not embed images (encoder.type={shown(model.recipe.encoder.type)}); give a "
            "run whose encoder does, as autoencoder.",
            file=model.source,
            field="encoder.type",
        )
    return model


def _nth(words: Sequence[tuple[str, str]], k: int, count: int) -> list[tuple[str, str]]:
    """The words for picture ``k``: one that is given once is for all.

    Raises:
        RecipeError: one is given neither once nor once a picture.
    """
    by_word: dict[str, list[str]] = {}
    for word, value in words:
        by_word.setdefault(word, []).append(value)
    for word, values in by_word.items():
        if len(values) not in (1, count):
            raise RecipeError(
                f"--{shown(word)[:60]} is given {len(values)} times; give it once or {count} times.", field=word
            )
    return [(word, values[k % len(values)]) for word, values in by_word.items()]


def _parts(model: Encoded, condition: Condition) -> dict[str, Tensor]:
    """The tensors that are there, by name; of an embedding unit vectors, as its figures are of those."""
    from torch.nn.functional import normalize

    from condgen.embedding import Embedding

    parts = {"vector": condition.vector, "map": condition.map}
    found = {name: part.cpu() for name, part in parts.items() if part is not None}
    return {name: normalize(part, dim=1) for name, part in found.items()} if isinstance(model, Embedding) else found


def _destination(out: str, force: bool) -> Path:
    """Raises:
    RecipeError: ``out`` is of another kind, exists and ``force`` is off, or its folder does not exist.
    """
    path = Path(out)
    if path.suffix.lower() not in _KINDS:
        raise RecipeError(f"{shown(out)[:200]}: give a name that ends in {', '.join(_KINDS)}.", file=out, field="out")
    if os.path.lexists(path) and not force:
        raise RecipeError(f"{shown(path)} exists; choose another name or add --force.", file=path)
    if not path.parent.is_dir():
        raise RecipeError(f"{shown(path)}: there is no folder {shown(path.parent)}; make it first.", file=path)
    return path


def _write(path: Path, parts: dict[str, Tensor], force: bool) -> None:
    import numpy as np

    from condgen.files import write_whole
    from condgen.store.tensors import encode

    kind = path.suffix.lower()
    if kind == ".safetensors":
        write_whole(path, encode(parts), force=force)
    elif kind == ".npz":
        file = io.BytesIO()
        np.savez(file, **{name: part.numpy() for name, part in parts.items()})  # type: ignore[arg-type]
        write_whole(path, file.getvalue(), force=force)
    else:
        if set(parts) != {"vector"}:
            raise RecipeError(
                f"{shown(path)}: the encoder yields a map, which a csv cannot hold; give a name in .npz or "
                ".safetensors.",
                file=path,
                field="out",
            )
        rows = parts["vector"].tolist()
        lines = [",".join(f"h{k}" for k in range(len(rows[0]))), *(",".join(map(repr, row)) for row in rows)]
        write_whole(path, ("\n".join(lines) + "\n").encode(), force=force)
