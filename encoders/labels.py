"""Class labels and named attributes as conditions."""

from __future__ import annotations

import difflib
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from condgen import Batch, Condition, DataInfo, Encoder, Options
from condgen.errors import RecipeError, shown
from condgen.streams import example_uniforms


class LabelOptions(Options):
    code: Literal["one_hot", "embedding", "attributes"] = Field(
        "one_hot", description="one_hot or learned embedding of the class, or named attributes (yes, no, unknown)."
    )
    size: int = Field(32, ge=1, le=65536, description="embedding: its length.")
    hide: float = Field(
        0.5, ge=0, le=0.5, description="attributes: share made unknown in training, on average over examples."
    )


def _nearest(name: str, known: tuple[str, ...], what: str) -> str:
    match = difflib.get_close_matches(name, known, 1)
    listed = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    hint = f"did you mean {match[0]!r}?" if match else f"known: {listed}."
    return f"--label: there is no {what} {shown(name)!r}; {hint}"


class Labels(Encoder):
    """The class of an image (one-hot or a learned embedding), or its named attributes."""

    Options = LabelOptions
    words = ("label",)

    def __init__(self, options: Any, info: DataInfo) -> None:
        super().__init__(options, info)
        by_attributes = options.code == "attributes"
        names = info.attributes if by_attributes else info.classes
        if not names:
            has, other = ("named attributes", "one_hot") if by_attributes else ("classes", "attributes")
            raise RecipeError(
                f"encoder.code: {options.code} needs {has}, which this data does not have; try encoder.code={other} "
                "or encoder.type=none.",
                field="encoder.code",
            )
        self.names = names
        self.reads = ("attributes",) if by_attributes else ("label",)
        self.embedding = nn.Embedding(len(names), options.size) if options.code == "embedding" else None
        # attributes take two numbers each, so that "no" differs from "unknown"
        self.vector_size = {"one_hot": len(names), "embedding": options.size, "attributes": 2 * len(names)}[
            options.code
        ]

    def encode(self, batch: Batch) -> Condition:
        """Label (B,) or attributes (B, A) of 1 yes, 0 no, -1 unknown -> vector (B, D)."""
        if self.options.code == "attributes":
            return Condition(vector=self._attributes(batch))
        label = batch["label"]
        if self.embedding is not None:
            return Condition(vector=self.embedding(label))
        return Condition(vector=F.one_hot(label, len(self.names)).float())

    def _attributes(self, batch: Batch) -> Tensor:
        values = batch["attributes"]
        if self.training and self.options.hide and "key" in batch:
            # Each example hides its own share, from none to twice the average, so that a few named attributes are as
            # familiar to the model as all of them.
            drawn = example_uniforms(batch["key"], -2, 1 + values.shape[1])  # (B, 1 + A)
            hidden = drawn[:, 1:] < 2 * self.options.hide * drawn[:, :1]
            values = values.masked_fill(hidden, -1)
        return torch.cat([values == 1, values == 0], dim=1).float()  # (B, A) -> (B, 2 A)

    def parse(self, word: str, value: str) -> dict[str, Tensor]:
        """``--label sneaker``, ``--label 7``, ``--label "glasses,no hat"`` (attributes not named are unknown)."""
        if word != "label":
            return super().parse(word, value)
        if self.options.code == "attributes":
            return {"attributes": self._parse_attributes(value)}
        by_name = {name.casefold(): k for k, name in enumerate(self.names)}
        wanted = value.strip()
        if wanted.casefold() in by_name:
            return {"label": torch.tensor([by_name[wanted.casefold()]])}
        if wanted.isascii() and wanted.isdigit() and len(wanted) < 10 and int(wanted) < len(self.names):
            return {"label": torch.tensor([int(wanted)])}
        raise RecipeError(_nearest(wanted, self.names, "class"), field="label")

    def _parse_attributes(self, value: str) -> Tensor:
        by_name = {name.casefold(): k for k, name in enumerate(self.names)}
        code = torch.full((1, len(self.names)), -1, dtype=torch.int8)
        for entry in value.split(","):
            wanted = " ".join(entry.split())
            if not wanted:
                continue
            named, answer = wanted, 1
            for prefix in ("no ", "not ", "without "):
                if wanted.casefold() not in by_name and wanted.casefold().startswith(prefix):
                    named, answer = wanted[len(prefix) :], 0
            if named.casefold() not in by_name:
                raise RecipeError(_nearest(named, self.names, "attribute"), field="label")
            code[0, by_name[named.casefold()]] = answer
        return code

    def examples(self) -> list[tuple[str, str]]:
        return [("label", name) for name in self.names]
