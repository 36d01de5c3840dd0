"""The two encoders against the contract, and what they refuse."""

from __future__ import annotations

import importlib.util

import condgen
import pytest
import torch
from condgen.errors import MachineError, RecipeError

from condgen_captions import text
from condgen_captions.encoder import CaptionOptions, Captions
from condgen_captions.mean_colour import MeanColour


def captions(info: condgen.DataInfo, **options: int) -> Captions:
    torch.manual_seed(0)
    return Captions(CaptionOptions(**options), info)


def with_column(width: int) -> condgen.DataInfo:
    return condgen.DataInfo(1, 8, 8, columns={"caption": width})


@pytest.mark.parametrize("info", [condgen.DataInfo(1, 4, 4), condgen.DataInfo(3, 16, 12, bit_depth=5)])
def test_the_smallest_encoder(info: condgen.DataInfo) -> None:
    h = condgen.check_encoder(MeanColour(MeanColour.Options(), info))
    assert h.vector is not None and h.vector.shape == (4, info.channels)


def test_captions_of_attributes_and_of_a_column(portraits: condgen.DataInfo) -> None:
    for encoder in (captions(portraits), captions(with_column(text.WIDTH), size=5), captions(with_column(3))):
        h = condgen.check_encoder(encoder)
        assert h.vector is not None and h.vector.shape == (4, encoder.vector_size)


def test_a_caption_on_the_command_line_is_the_one_of_a_file(portraits: condgen.DataInfo) -> None:
    encoder = captions(portraits)
    said = encoder({**encoder.parse("caption", "A smiling person!")}).vector
    other = encoder({**encoder.parse("caption", "a smiling person")}).vector
    assert said is not None and other is not None and torch.equal(said, other)
    column = captions(with_column(text.WIDTH))
    vectors = text.vectors(["a smiling person"])
    assert torch.equal(column.parse("caption", "a smiling person")["caption"], vectors)


def test_training_writes_another_caption_in_every_epoch(portraits: condgen.DataInfo) -> None:
    encoder = captions(portraits)
    batch = {"attributes": torch.ones(8, len(portraits.attributes), dtype=torch.int8), "index": torch.arange(8)}
    first, again = encoder(batch).vector, encoder(batch).vector
    later = encoder({**batch, "key": torch.arange(100, 108)}).vector
    assert first is not None and again is not None and later is not None
    assert torch.equal(first, again) and not torch.allclose(first, later)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", r"^--caption: The caption '' has no words; say what is to be seen"),
        ("x" * 401, r"^--caption: The caption 'x+\.\.\.' has 401 characters; 400 are the most\.$"),
        ("улыбка", r"^--caption: The caption 'улыбка' has the letter 'у'; the text model reads English"),
    ],
)
def test_bad_captions_on_the_command_line(portraits: condgen.DataInfo, value: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        captions(portraits).parse("caption", value)
    assert caught.value.exit_code == 2 and caught.value.field == "caption"


def test_refusals(portraits: condgen.DataInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match=r"has no word 'label' \(known: --caption\)"):
        captions(portraits).parse("label", "hat")
    with pytest.raises(
        RecipeError, match="needs a column called caption or named attributes, and this data has neither"
    ):
        captions(condgen.DataInfo(3, 8, 8, classes=("a",)))
    with pytest.raises(RecipeError, match=r"trained with text vectors of 3 numbers, .*model\.encode\(caption=vector\)"):
        captions(with_column(3)).parse("caption", "a hat")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    captions(with_column(text.WIDTH))  # reads vectors alone
    with pytest.raises(MachineError, match="pip install"):
        captions(portraits)
