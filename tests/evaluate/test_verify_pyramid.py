"""``verify`` on PixelCNN++: it passes on sound cores of every build, in evaluation and under dropout's masks."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import pytest
import torch
from building import condition_for, random_images, tiny_model

from condgen.evaluate import findings
from condgen.evaluate.reach import _misplaced_layer
from condgen.evaluate.sight import look, probed_pixels
from condgen.evaluate.trial import Finding, in_float64, on_grid
from condgen.evaluate.verify import _promised_pixels
from condgen.model import ConditionalModel

Patch = pytest.MonkeyPatch
KINDS = {"logistic_mixture": 5, "linear_categorical": 3}
CONDITIONINGS = ["none", "global", "spatial", "both", "map", "vector+map"]
BUILDS: list[dict[str, Any]] = [
    {"resnets": 2}, {"scales": 1}, {"scales": 2, "resnets": 2}, {"scales": 4}, {"short_cuts": False}, {"field": 5},
    {"nonlinearity": "elu"}, {"nonlinearity": "relu"}, {"nonlinearity": "relu", "short_cuts": False, "scales": 2},
    {"full_sight": True}, {"full_sight": True, "nonlinearity": "relu"}, {"full_sight": True, "scales": 1},
    {"vector_width": 2}, {"filters": 3, "nonlinearity": "relu"},
]  # fmt: skip


def pyramid(kind: str = "logistic_mixture", channels: int = 3, **settings: Any) -> ConditionalModel:
    """With dropout: every other image that ``verify`` looks at is seen under its masks."""
    own = {"bit_depth": KINDS.get(kind, 1), "dropout": 0.5} | settings
    return tiny_model(kind, channels=channels, core="pixelcnn++", **own)


def check(model: ConditionalModel) -> dict[str, Finding]:
    found = findings(model, quiet=True)
    unconditional = not (model.encoder.vector_size or model.encoder.map_channels)
    expected = {name: None if name == "condition" and unconditional else True for name in found}
    assert {name: each.holds for name, each in found.items()} == expected, found
    return found


@pytest.fixture
def no_samples(monkeypatch: Patch) -> None:
    """Drawing images takes longer than all the rest, and asks nothing of the core but its parameters."""
    module = importlib.import_module("condgen.evaluate.verify")  # the name in the package is the function
    monkeypatch.setattr(module, "sampling_finding", lambda *arguments: Finding(True, "not tried"))


@pytest.fixture
def fresh_compiler() -> None:
    """Without the sizes that other tests compiled: there is a limit, beyond which nothing new is."""
    torch.compiler.reset()


@pytest.mark.usefixtures("no_samples")
@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_sound_cores_pass(kind: str, channels: int, conditioning: str) -> None:
    check(pyramid(kind, channels, conditioning=conditioning))


@pytest.mark.parametrize(("kind", "channels"), [("logistic_mixture", 3), ("linear_categorical", 4), ("bernoulli", 1)])
def test_samples_are_what_their_noise_picks(kind: str, channels: int) -> None:
    check(pyramid(kind, channels, height=4, width=8, conditioning="both"))


@pytest.mark.usefixtures("no_samples")
@pytest.mark.parametrize("build", BUILDS, ids=str)
def test_sound_cores_of_any_build_pass(build: dict[str, Any]) -> None:
    found = check(pyramid(conditioning="both", width=16, **build))
    assert ("every earlier pixel" in found["coverage"].detail) == bool(build.get("full_sight")), found


@pytest.mark.usefixtures("no_samples")
@pytest.mark.parametrize(("height", "width"), [(4, 4), (1, 6), (6, 1), (2, 10), (24, 12)])
def test_sound_cores_of_any_shape_pass(height: int, width: int) -> None:
    scales = next(s for s in (3, 2, 1) if height % 2 ** (s - 1) == width % 2 ** (s - 1) == 0)
    check(pyramid(height=height, width=width, scales=scales, conditioning="vector+map"))


@pytest.mark.usefixtures("no_samples")
@pytest.mark.parametrize("nonlinearity", ["concat_elu", "relu"])
def test_cores_pass_after_their_initialisation_and_after_training(nonlinearity: str) -> None:
    model = pyramid(conditioning="global", nonlinearity=nonlinearity, seed=3)
    x, h = random_images(model, 16), condition_for(model, 16)
    model.core.initialise(on_grid(model, x), model.core.terms(h))
    check(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    losses = []
    for _ in range(20):
        loss = -model.log_prob(x, h).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 1
    check(model)


@pytest.mark.usefixtures("no_samples")
def test_what_the_published_geometry_misses_is_said_in_words() -> None:
    """Of a row of 32 with two resnets a block, odd rows see ten pixels to the left, and ten to the right one row up."""
    model = pyramid(resnets=2, height=4, width=32, dropout=0.0)
    earlier = {(row, column): 32 * row + column for row, column in itertools.product(range(4), range(32))}
    missed = {pixel: earlier[pixel] - int(model.core.sees(*pixel, 4, 32).sum()) for pixel in earlier}
    short = sum(number > 0 for number in missed.values())
    worst = max(missed, key=lambda pixel: missed[pixel])
    assert missed[1, 0] == 32 - 11 and missed[1, 0] <= missed[worst]
    sentence = check(model)["coverage"].detail
    words = f"misses some early pixels: {short} of the 128 miss some, {worst} the most, {missed[worst]} of "
    assert words in sentence and "model.full_sight closes this hole" in sentence


@pytest.mark.usefixtures("no_samples")
def test_what_is_missed_without_short_cuts_is_said_in_words() -> None:
    """All goes through the coarsest scale: neither the pixel above (1, 0) is known nor the one left of (0, 1)."""
    model = pyramid(height=8, width=8, scales=2, short_cuts=False, dropout=0.0)
    assert not model.core.sees(1, 0, 8, 8)[0, 0] and not model.core.sees(0, 1, 8, 8)[0, 0]
    sentence = check(model)["coverage"].detail
    assert (
        "Without model.short_cuts all goes through the coarsest scale, past even the nearest neighbours: " in sentence
    )
    assert "model.short_cuts brings those back" in sentence and "published" not in sentence
    assert "published geometry" in check(pyramid(height=4, width=32, scales=1, short_cuts=False))["coverage"].detail


def test_dropout_is_looked_through() -> None:
    """What a core shows under its masks alone counts as seen."""
    model = in_float64(pyramid("bernoulli", 1, conditioning="none"))
    sound = model.core.forward

    def leaking(x: torch.Tensor, terms: Any, dropout_keys: torch.Tensor | None = None) -> torch.Tensor:
        parameters: torch.Tensor = sound(x, terms, dropout_keys)
        return parameters if dropout_keys is None else parameters + x.roll(-1, 3)

    model.core.forward = leaking
    pixels = probed_pixels(model, 0)
    seen = look(model, pixels, torch.zeros_like(_promised_pixels(model, pixels)), 0, lambda n: None).of
    row, column = pixels[10]
    assert bool(seen[10, 0, 0, row, column + 1]) and not model.core.training


@pytest.mark.parametrize("conditioning", ["spatial", "map", "vector+map"])
def test_a_map_is_taken_at_its_own_place(conditioning: str) -> None:
    model = in_float64(pyramid(conditioning=conditioning))
    assert _misplaced_layer(model, 0) is None
    model.core.down[1].ul[0].condition.register_forward_hook(lambda module, inputs, added: added.roll(1, 3))
    assert _misplaced_layer(model, 0) == "down.1.ul.0.condition at its own place"


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler", "no_samples")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's compiler asks for it
@pytest.mark.parametrize(
    ("kind", "channels", "conditioning"),
    [("logistic_mixture", 3, "both"), ("logistic_mixture", 1, "none"), ("linear_categorical", 4, "map")],
)
def test_compiled_cores_pass(kind: str, channels: int, conditioning: str) -> None:
    model = pyramid(kind, channels, conditioning=conditioning)
    x, h = random_images(model, 2), condition_for(model, 2)
    before = model.log_prob(x, h)
    model.core.compile()
    torch.testing.assert_close(model.log_prob(x, h), before, rtol=0, atol=1e-10)
    check(model)


@pytest.mark.slow
def test_a_core_of_quickstart_size_takes_less_than_a_minute() -> None:
    import time

    model = pyramid(height=32, width=32, bit_depth=8, filters=40, resnets=5, conditioning="global", dtype=torch.float32)
    start = time.process_time()
    check(model)
    assert time.process_time() - start < 60
