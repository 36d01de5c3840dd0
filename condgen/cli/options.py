"""The options that mean the same in every command, and what several commands do with theirs."""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from condgen import progress
from condgen.errors import RecipeError, shown

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from condgen.condition import Condition, Encoder
    from condgen.model import ConditionalModel
    from condgen.recipe import Recipe

SECTIONS = ("data", "encoder", "model", "train", "sample")
_LONGEST_WORD = 4096
_OPTIONS = (
    *("count", "seed", "temperature", "temperature-mixture", "temperature-logistic", "guidance", "sampler", "out"),
    *("map", "mask", "rows", "region", "face", "box", "aligned", "model", "force", "weights", "checkpoint", "device"),
    "json",
)
"""Of the commands that take an encoder's words as options, for those that are misspelt."""
_MOST_ROWS = 16
"""Conditions that a sheet shows by itself."""


def _quiet(asked: bool) -> bool:
    progress.set_quiet(asked)
    return asked


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", callback=_quiet, help="Show no progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="NAME", help="cpu, cuda or cuda:1; default: a GPU if there is one.", show_default=False
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", metavar="N", min=0, max=2**63 - 1, help="Seed of everything random here.", show_default=False
    ),
]
Run = Annotated[
    str, typer.Argument(metavar="RUN", help="A run or model folder, or the name of one in ./runs or of condgen's own.")
]
ModelOption = Annotated[
    str, typer.Option("--model", metavar="RUN", help="A run folder, a model folder, or the name of a run in ./runs.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="section.key=value", help="Fields of the recipe to change.", show_default=False),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label", metavar="L", help='A label: sneaker, or "glasses,no hat". May be repeated.', show_default=False
    ),
]
Vectors = Annotated[
    list[str] | None,
    typer.Option(
        "--vector",
        metavar="F|NUMBERS",
        help="A vector, or a row for each: a csv, npy, npz or safetensors file, or 0.1,-2,3.",
        show_default=False,
    ),
]
Weights = Annotated[str, typer.Option("--weights", metavar="ema|raw", help="Averaged weights, or the last ones.")]
Checkpoint = Annotated[str, typer.Option("--checkpoint", metavar="last|best|N", help="Which checkpoint of a run.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")]


def device_of(name: str | None) -> torch.device:
    """The device that ``--device`` names, or the best there is.

    Raises:
        MachineError: this machine does not have it.
    """
    from condgen.train.ranks import choose_device

    return choose_device(name)


def one_of(option: str, text: str, choices: Sequence[str]) -> Any:
    """``text``, which is one of ``choices``.

    Raises:
        RecipeError: it is not.
    """
    if text in choices:
        return text
    near = difflib.get_close_matches(text, choices, 1)
    hint = f"did you mean {near[0]}?" if near else f"choose {', '.join(choices)}."
    raise RecipeError(f"--{option}: there is no {shown(text)[:60]!r}; {hint}", field=option)


def checkpoint_of(text: str) -> Any:
    """``last``, ``best`` or a step, as ``condgen.load`` takes them.

    Raises:
        RecipeError: ``text`` is none of these.
    """
    if text in ("last", "best"):
        return text
    if text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    raise RecipeError(f"--checkpoint: expected last, best or a step, found {shown(text)[:60]!r}.", field="checkpoint")


def picture_path(text: str, force: bool) -> Path:
    """The file that an option names, looked at before the work rather than after it.

    Raises:
        RecipeError: it does not end in .png, or exists and ``force`` is off.
    """
    path = Path(text)
    if path.suffix.lower() != ".png":
        raise RecipeError(
            f"{shown(text)[:200]}: a picture is written as PNG; give a name that ends in .png.", file=text
        )
    if os.path.lexists(path) and not force:
        raise RecipeError(f"{shown(path)} exists; choose another name or add --force.", file=path)
    if not path.parent.is_dir():
        raise RecipeError(f"{shown(path)}: there is no folder {shown(path.parent)}; make it first.", file=path)
    return path


def free_path(stem: str, suffix: str) -> Path:
    """A name in the working directory that is not taken: ``stem.png``, ``stem-2.png``, ..."""
    names = (Path(f"{stem}{suffix}" if k == 1 else f"{stem}-{k}{suffix}") for k in itertools.count(1))
    return next(path for path in names if not os.path.lexists(path))


def changed(
    recipe: Recipe, overrides: Sequence[str] | None, sections: Sequence[str], fields: Sequence[str] = ()
) -> Recipe:
    """``recipe`` (of a trained model) with overrides, which may touch ``sections`` and ``fields`` alone.

    Raises:
        RecipeError: an override is wrong, or of a field in which a trained model cannot be changed.
    """
    from condgen.recipe import with_overrides

    for override in overrides or ():
        name = override.partition("=")[0]
        section = name.partition(".")[0]
        if section in SECTIONS and section not in sections and name not in fields:
            others = f", {' and '.join(fields)}" if fields else ""
            takes = f"fields of {' and '.join(sections)}{others} alone" if sections else "no overrides here"
            raise RecipeError(f"{shown(name)[:60]}: a model that is trained takes {takes}; leave it out.", field=name)
    return with_overrides(recipe, overrides or ())


def split_words(
    extra: Sequence[str] | None, labels: Sequence[str] | None, vectors: Sequence[str] | None
) -> tuple[list[tuple[str, str]], list[str]]:
    """The words for the encoder, as (word, value), and the arguments that are left.

    ``extra`` holds arguments and unknown options alike: ``--source a.jpg`` (or ``--source=a.jpg``) is the word
    ``source`` of whatever encoder has one.

    Raises:
        RecipeError: an option without a value, or one without end.
    """
    words = [("label", value) for value in labels or ()] + [("vector", value) for value in vectors or ()]
    rest: list[str] = []
    arguments = iter(extra or ())
    for argument in arguments:
        if not argument.startswith("-") or argument == "-":
            rest.append(argument)
            continue
        name, equals, value = argument.lstrip("-").partition("=")
        if not equals:
            value = next(arguments, "--")
        if value.startswith("--") or not name:
            raise RecipeError(
                f"{shown(argument)[:60]}: unknown, or a word of the encoder without its value.", field=name
            )
        words.append((name, value))
    for name, value in words:
        if len(value) > _LONGEST_WORD:
            raise RecipeError(f"--{shown(name)[:60]}: {len(value):,} characters are no word; shorten it.", field=name)
    return words, rest


def without_overrides(rest: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files and the overrides among ``rest``: an override names a section and a value, and is no file that is
    there; anything else is a file, whatever characters it has."""
    starts = tuple(f"{section}." for section in SECTIONS)
    overrides = [entry for entry in rest if entry.startswith(starts) and "=" in entry and not os.path.lexists(entry)]
    return [entry for entry in rest if entry not in overrides], overrides


def _unknown(word: str, known: Sequence[str]) -> RecipeError:
    """The error for an option that is neither one of the command's nor a word of the encoder."""
    has = ", ".join(f"--{name}" for name in known) or "none"
    near = difflib.get_close_matches(word, [*known, *_OPTIONS], 1, cutoff=0.75)
    hint = f"; did you mean --{near[0]}?" if near else "."
    return RecipeError(f"--{shown(word)[:60]}: no option, and no word of this encoder (it has {has}){hint}", field=word)


def _rows(encoder: Encoder, words: Sequence[tuple[str, str]], count: int | None = None) -> list[list[tuple[str, str]]]:
    """One of each word for every row; ``count`` rows, or as many as a word is given times.

    Raises:
        RecipeError: the encoder does not know a word, or one is given neither once nor once a row.
    """
    by_word: dict[str, list[str]] = {}
    for word, value in words:
        if word not in encoder.words:
            raise _unknown(word, encoder.words)
        by_word.setdefault(word, []).append(value)
    count = count or max(map(len, by_word.values()), default=0)
    for word, values in by_word.items():
        if len(values) not in (1, count):
            times = "once" if count == 1 else f"once or {count} times"
            raise RecipeError(f"--{shown(word)} is given {len(values)} times; give it {times}.", field=word)
    return [[(word, values[i % len(values)]) for word, values in by_word.items()] for i in range(count)]


def _labelled(encoder: Encoder, words: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """``words``, and where none of them is the label that the encoder reads, the one that says nothing.

    Raises:
        RecipeError: no label says nothing: it has to be given.
    """
    if "label" not in encoder.words or any(word == "label" for word, _ in words):
        return words
    try:
        encoder.parse("label", "")
    except RecipeError:
        raise RecipeError("The model is conditional on a label as well; give --label.", field="label") from None
    return [*words, ("label", "")]


def conditions_of_images(
    model: ConditionalModel, words: Sequence[tuple[str, str]], images: Sequence[Mapping[str, Tensor]]
) -> Condition:
    """One condition for each of ``images``, batches of one, and the ``words`` beside them: given once for all, or once
    for each. Each is encoded by itself.

    Raises:
        RecipeError: the encoder does not know a word or its value, or one is missing.
    """
    from condgen.condition import Condition

    rows = _rows(model.encoder, _labelled(model.encoder, words), len(images))
    each: list[dict[str, Any]] = [{**batch, **dict(row)} for batch, row in zip(images, rows, strict=True)]
    return Condition.stack([model.encode(**read) for read in each])


def conditions(
    model: ConditionalModel, words: Sequence[tuple[str, str]], image: Mapping[str, Tensor] | None = None
) -> list[tuple[str, Condition]]:
    """(name, condition of batch 1) for each row that ``words`` ask for; all of one ``image``, a batch of one, where the
    encoder looks at one.

    Without words: the recipe's ``sample.labels`` for the encoder's first word, else its own examples, at most 16, else
    no condition, of a model that knows that case.

    Raises:
        RecipeError: the encoder does not know a word or its value, or it needs words and there are none.
    """
    from condgen.condition import Condition

    encoder = model.encoder
    if not words and not (encoder.vector_size or encoder.map_channels):
        return [("", Condition())]
    rows: list[list[tuple[str, str]]]
    if image is not None:
        rows = _rows(encoder, _labelled(encoder, words)) or [[]]
    elif words:
        rows = _rows(encoder, _labelled(encoder, words) if "image" in encoder.reads else words)
    else:
        labels = model.recipe.sample.labels
        word = encoder.words[0] if encoder.words else "label"
        rows = [[(word, label)] for label in labels] or [[example] for example in encoder.examples()[:_MOST_ROWS]]
    if not rows and model.condition_dropout:
        return [("no condition", model.no_condition())]
    if not rows:
        known = " or ".join(f"--{word}" for word in encoder.words) or "a condition through Python"
        raise RecipeError(f"The model is conditional; give {known}.", field=next(iter(encoder.words), None))
    found = []
    for row in rows:
        read: dict[str, Any] = {**(image or {}), **dict(row)}
        condition = model.encode(**read)
        name = ", ".join(Path(value).name if os.path.isfile(value) else value for _, value in row)
        found += [(name if len(condition) == 1 else f"{name} {k}", condition[k]) for k in range(len(condition))]
    return found
