"""The encoder ``captions``: a caption's vector, and a layer that learns what of it can be seen."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from condgen import Batch, Condition, DataInfo, Encoder, Options
from condgen.errors import InputError, RecipeError
from pydantic import Field
from torch import Tensor, nn

from condgen_captions import text, writing

COLUMN = "caption"


class CaptionOptions(Options):
    size: int = Field(64, ge=1, le=65536, description="Length of the condition's vector.")


class Captions(Encoder):
    """A caption: of the data's column "caption", else written from its named attributes; --caption "..." draws."""

    Options = CaptionOptions
    words = ("caption",)

    def __init__(self, options: Any, info: DataInfo) -> None:
        super().__init__(options, info)
        self.from_column = COLUMN in info.columns
        if not self.from_column and not info.attributes:
            raise RecipeError(
                "encoder.type: captions needs a column called caption or named attributes, and this data has neither; "
                "make the column with condgen-captions and name its file in data.columns.",
                field="encoder.type",
            )
        if not self.from_column:
            text.files()  # that they are missing is said before training, not in its first step
        self.reads = (COLUMN,) if self.from_column else ("attributes",)
        self.width = info.columns[COLUMN] if self.from_column else text.WIDTH
        self.vector_size = options.size
        self.project = nn.Linear(self.width, options.size)

    def encode(self, batch: Batch) -> Condition:
        """Text vectors (B, width), or attributes (B, A) that are put into words first -> vector (B, D)."""
        vectors = batch[COLUMN] if COLUMN in batch else self._written(batch)
        # of one length before and behind the layer, whatever text model made them: so they reach the core as strong as
        # labels do
        evened = F.layer_norm(vectors.to(self.project.weight), (self.width,))
        return Condition(vector=F.layer_norm(self.project(evened), (self.vector_size,)))

    def _written(self, batch: Batch) -> Tensor:
        values = batch["attributes"]
        return text.vectors(writing.written(self.info.attributes, values, writing.keys_of(batch, len(values))))

    def parse(self, word: str, value: str) -> dict[str, Tensor]:
        """``--caption "a smiling person with red hair"``."""
        if word != "caption":
            return super().parse(word, value)
        if self.width != text.WIDTH:
            raise RecipeError(
                f"--caption: this model was trained with text vectors of {self.width} numbers, which condgen-captions "
                "does not make; give such a vector in Python, model.encode(caption=vector).",
                field="caption",
            )
        try:
            parsed = {COLUMN: text.vectors([value])}
        except InputError as error:
            raise RecipeError(f"--caption: {error.message}", field="caption") from error
        if not self.from_column:  # the batch of one has what data has, as far as it is known
            parsed["attributes"] = torch.full((1, len(self.info.attributes)), -1, dtype=torch.int8)
        return parsed
