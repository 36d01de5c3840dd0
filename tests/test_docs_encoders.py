"""docs/encoders.md: its code runs, and its table of breaches has the sentences that people get, all of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import condgen
from condgen import plugins
from condgen.condition import Batch, Condition, DataInfo, Encoder, Options
from condgen.errors import CondgenError, RecipeError
from condgen.recipe import read_recipe

PAGE = (Path(__file__).parents[1] / "docs" / "encoders.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SENTENCES = dict(
    re.findall(r"^\| (.*?) \| ((?:The encoder|The images|encoder\.type|\.\.\.).*) \|$", PAGE, re.MULTILINE)
)
TINY = {
    "data.identities": 16,
    "data.views": 2,
    "model.filters": 8,
    "model.layers": 2,
    "model.first_kernel_size": 3,
    "model.map_channels": 4,
    "train.max_steps": 2,
    "train.evaluate_images": 0,
    "sample.count": 1,
}
INFO = DataInfo(1, 2, 3)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the code blocks define, run one after another as a reader would."""
    monkeypatch.setattr(plugins, "_registered", {})
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, "docs/encoders.md", "exec"), names)  # noqa: S102
    return names


def test_the_first_encoder_is_short_and_trains_and_loads(page: dict[str, Any], tmp_path: Path) -> None:
    assert len(BLOCKS[0].splitlines()) < 25
    run = condgen.train("quickstart", {"encoder.type": "brightness", **TINY}, out=tmp_path / "run", quiet=True)
    model = condgen.load(run)
    picture = condgen.open_data(model.recipe.data, "test").batch(np.array([0]))["image"]
    assert len(model.encode(image=picture)) == 1
    condgen.check_encoder(model.encoder)


def test_the_second_takes_a_word_and_a_field(page: dict[str, Any], tmp_path: Path) -> None:
    wanted = {"encoder.type": "light", "encoder.size": 3, **TINY}
    model = condgen.load(condgen.train("quickstart", wanted, out=tmp_path / "run", quiet=True))
    h = model.encode(light=["20", "80"])
    assert h.vector is not None and h.vector.shape == (2, 3) and not torch.equal(*h.vector)
    with pytest.raises(RecipeError, match=r"--light: expected a percentage from 0 to 100, found '101'\."):
        model.encode(light="101")


class Kept(Encoder):
    """Does as it is told."""

    reads = ("image",)
    vector_size = 2

    def __init__(self, options: Any = None, info: DataInfo = INFO) -> None:
        super().__init__(options or Options(), info)
        self.give: Callable[[Batch], Any] = lambda batch: Condition(torch.zeros(len(batch["image"]), 2))

    def encode(self, batch: Batch) -> Condition:
        return self.give(batch)


def giving(give: Callable[[Batch], Any]) -> Callable[[], object]:
    def act() -> object:
        encoder = Kept()
        encoder.give = give
        return condgen.check_encoder(encoder)

    return act


def mates(batch: Batch) -> Condition:
    level = batch["image"].float().mean((1, 2, 3))
    return Condition(torch.stack([level, level.mean().expand(len(level))], dim=1))


def alone(batch: Batch) -> Condition:
    if len(batch["image"]) == 1:
        raise ValueError("one")
    return Condition(torch.zeros(len(batch["image"]), 2))


def of_another_size() -> object:
    encoder = Kept()
    encoder.give = lambda batch: Condition(batch["image"].flatten(1).float() @ torch.ones(6, 2))
    assert len(encoder({"image": torch.zeros(1, 1, 2, 3)})) == 1
    return encoder({"image": torch.zeros(1, 1, 4, 3)})


def writing(batch: Batch) -> Condition:
    batch["image"].zero_()
    return Condition(torch.zeros(len(batch["image"]), 2))


class TakenOptions(Options):
    dropout: float = 0.5


class Taken(Kept):
    Options = TakenOptions


def size(batch: Batch) -> int:
    return len(batch["image"])


BREACHES: dict[str, Callable[[], object]] = {
    "a key that the data lack": lambda: Kept()({"label": torch.zeros(1)}),
    "no `Condition`": giving(lambda batch: torch.zeros(size(batch), 2)),
    "another width, another batch size, or a part that is missing or not declared": giving(
        lambda batch: Condition(torch.zeros(size(batch), 3))
    ),
    "images of another size or other channels than it was made for (exit 3)": of_another_size,
    "whole numbers": giving(lambda batch: Condition(torch.zeros(size(batch), 2, dtype=torch.int64))),
    "NaN": giving(lambda batch: Condition(torch.full((size(batch), 2), torch.nan))),
    "another device": giving(lambda batch: Condition(torch.zeros(size(batch), 2, device="meta"))),
    "any exception": giving(lambda batch: batch["nothing"]),
    "a result that depends on batch mates": giving(mates),
    "one example alone fails": giving(alone),
    "the batch is written to": giving(writing),
    "a word it does not have (exit 2)": lambda: Kept().parse("label", "x"),
}
"""Of one encoder; what concerns names and saved models stands in tests of their own below."""


def sentence_of(act: Callable[[], object], breach: str) -> None:
    """Holds what ``act`` raises against the page's sentence for ``breach``."""
    template = SENTENCES[breach]
    with pytest.raises(CondgenError) as caught:
        act()
    pattern = ".*".join(re.escape(part) for part in re.split(r" ?\.\.\. ?", template))  # dots stand for anything
    assert re.fullmatch(pattern, caught.value.message, re.DOTALL), (breach, caught.value.message)
    wanted = re.search(r"exit (\d)", breach)
    assert caught.value.exit_code == (int(wanted[1]) if wanted else 4)


@pytest.mark.parametrize("breach", BREACHES)
def test_breaches_of_an_encoder(breach: str) -> None:
    sentence_of(BREACHES[breach], breach)


NAMES: dict[str, list[tuple[str, str]]] = {
    "no such encoder is installed (exit 2)": [],
    "it cannot be imported": [("no_such_module:X", "one")],
    "two packages claim the name": [("a:X", "one"), ("b:X", "two")],
    "something else than an encoder": [("math:pi", "one")],
}


@pytest.mark.parametrize("breach", NAMES)
def test_breaches_of_a_name(breach: str, monkeypatch: pytest.MonkeyPatch) -> None:
    points = []
    for target, package in NAMES[breach]:
        point: Any = metadata.EntryPoint("odd", target, plugins.GROUP)
        points.append(SimpleNamespace(name="odd", value=target, load=point.load, dist=SimpleNamespace(name=package)))
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)
    sentence_of(lambda: plugins.find_encoder("odd"), breach)


def test_a_field_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_registered", {"taken": Taken})
    sentence_of(lambda: read_recipe("quickstart", {"encoder.type": "taken"}), "a field that every encoder has")


class Level(Encoder):
    """How bright a picture is."""

    reads = ("image",)
    vector_size = 1

    def encode(self, batch: Batch) -> Condition:
        return Condition(batch["image"].float().mean((1, 2, 3))[:, None])


def test_a_model_of_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_registered", {"level": Level})
    run = condgen.train("quickstart", {"encoder.type": "level", **TINY}, out=tmp_path / "run", quiet=True)
    condgen.load(run)
    monkeypatch.setattr(Level, "version", 2)
    sentence_of(lambda: condgen.load(run), "a model of another version of the encoder")


def test_a_model_whose_package_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point: Any = metadata.EntryPoint("odd", "condgen.encoders.plain:NoCondition", plugins.GROUP)
    package = SimpleNamespace(name="strange-package", version="1.2")
    found = SimpleNamespace(name="odd", value=point.value, load=point.load, dist=package)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [found])
    run = condgen.train("quickstart", {"encoder.type": "odd", **TINY}, out=tmp_path / "run", quiet=True)
    condgen.load(run)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [])
    sentence_of(lambda: condgen.load(run), "a model whose package is not here")


def test_every_sentence_of_the_page_is_tried() -> None:
    others = (
        "a field that every encoder has",
        "a model of another version of the encoder",
        "a model whose package is not here",
    )
    assert {*BREACHES, *NAMES, *others} == set(SENTENCES)
