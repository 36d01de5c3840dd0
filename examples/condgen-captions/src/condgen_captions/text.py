"""A caption as a vector, by the word vectors that wordllama's wheel carries: nothing is trained or downloaded here.

A word piece has a vector w of 256 numbers. Their mean forgets the order: "a hat, no glasses" and "glasses, no hat"
would be one. So the mean of the pieces stands beside means of products of neighbours, w_i * roll(w_(i+1)), whose
rotation tells left from right (after the holographic representations of Plate 1995), one and two places apart.

Legend: n captions, T word pieces of one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from condgen.errors import InputError, MachineError, ModelError, shown
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor

WIDTH = 3 * 256
"""Numbers of a caption's vector: the pieces, and the pairs one and two places apart."""
LONGEST = 400
"""Characters of a caption: of a longer one the mean says little."""
_FILES = {
    "weights/l2_supercat_256.safetensors": "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
    "tokenizers/l2_supercat_tokenizer_config.json": "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68",
}
"""What is taken of the wheel, with its SHA-256: a model that was trained with other vectors would not know these."""


def cleaned(caption: str) -> str:
    """``caption`` in the form that is embedded: one line, lower case, no symbols.

    Raises:
        InputError: it is empty, longer than ``LONGEST``, or written in letters that the text model does not read.
    """
    if len(caption) > LONGEST:
        raise InputError(f"The caption {_quoted(caption)} has {len(caption):,} characters; {LONGEST} are the most.")
    text = unicodedata.normalize("NFKC", caption).casefold()
    for letter in text:
        if letter.isalpha() and not unicodedata.name(letter, "").startswith("LATIN"):
            raise InputError(
                f"The caption {_quoted(caption)} has the letter {shown(letter)!r}; the text model reads English: write "
                "it in Latin letters."
            )
    text = " ".join("".join(c if c.isalnum() or c in "',.-" else " " for c in text).split())
    if not any(c.isalpha() for c in text):
        raise InputError(
            f"The caption {_quoted(caption)} has no words; say what is to be seen, as in 'a smiling person'."
        )
    return text


def _quoted(caption: str) -> str:
    return f"'{shown(caption if len(caption) <= 40 else caption[:40] + '...')}'"


def vectors(captions: Sequence[str]) -> Tensor:
    """float32 (n, WIDTH): each a function of its caption alone.

    Raises:
        InputError: as ``cleaned``.
        MachineError, ModelError: as ``files``.
    """
    tokenizer, table = _model()
    pieces = [tokenizer.encode(cleaned(caption), add_special_tokens=False).ids for caption in captions]
    return torch.stack([_pooled(table[ids]) for ids in pieces]) if pieces else torch.empty(0, WIDTH)


def _pooled(w: Tensor) -> Tensor:
    """Word vectors (T, 256) -> (WIDTH,)."""
    even = (
        w / w.square().mean(1, keepdim=True).sqrt()
    )  # rare words have long vectors, their products would drown others
    turned, zero = even.roll(1, dims=1), w.new_zeros(w.shape[1])
    pairs = [(even[:-gap] * turned[gap:]).mean(0) if len(w) > gap else zero for gap in (1, 2)]
    return torch.cat([w.mean(0), *pairs])


def files() -> list[Path]:
    """The two files of wordllama's wheel, found without importing it.

    Raises:
        MachineError: wordllama is not installed, or without its vectors.
    """
    spec = importlib.util.find_spec("wordllama")
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()] if spec is not None else []
    found = [folder / name for name in _FILES for folder in folders if (folder / name).is_file()]
    if len(found) != len(_FILES):
        raise MachineError(
            "Captions are read with the word vectors of wordllama, which are missing; "
            "pip install 'wordllama>=0.4,<0.5'."
        )
    return found


@cache
def _model() -> tuple[Tokenizer, Tensor]:
    """Tokenizer and word vectors, float32 (32000, 256), of root mean square 1.

    Raises:
        MachineError: as ``files``.
        ModelError: they are other ones than captions were trained with.
    """
    paths = files()
    for path, digest in zip(paths, _FILES.values(), strict=True):
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise ModelError(
                f"{shown(path)} is not the file that captions are trained with; pip install 'wordllama>=0.4,<0.5'.",
                file=path,
            )
    with safe_open(paths[0], "pt") as file:
        table = file.get_tensor("embedding.weight").float()
    return Tokenizer.from_file(str(paths[1])), table / table.square().mean().sqrt()
