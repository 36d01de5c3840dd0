"""Guidance: what is drawn is p(v | h)^(1 + W) / p(v)^W, sub-pixel by sub-pixel, and comes with its own probability."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from building import all_images, condition_for, random_images, tiny_model
from scipy.stats import chisquare
from torch import Tensor

from condgen.condition import Condition
from condgen.cores.cache import Cache
from condgen.cores.guided import GuidedCore
from condgen.errors import RecipeError
from condgen.likelihoods import Guided, Likelihood, LogisticMixture, Temperature
from condgen.model import ConditionalModel
from condgen.samplers import SAMPLERS, noise

FEW: list[tuple[str, str, dict[str, Any]]] = [
    ("gated", "categorical", {"channels": 3, "height": 1, "width": 2, "bit_depth": 1}),
    ("gated", "categorical", {"channels": 1, "height": 2, "width": 2, "bit_depth": 2}),
    ("gated", "bernoulli", {"channels": 2, "height": 2, "width": 2}),
    ("gated", "logistic_mixture", {"channels": 3, "height": 1, "width": 1, "bit_depth": 2}),
    ("gated", "continuous_mixture", {"channels": 1, "height": 2, "width": 2, "bit_depth": 2}),
    ("pixelcnn++", "logistic_mixture", {"channels": 2, "height": 1, "width": 2, "bit_depth": 2, "scales": 1}),
    ("pixelcnn++", "linear_categorical", {"channels": 3, "height": 1, "width": 2, "bit_depth": 1, "scales": 1}),
]
"""Models that know few enough images to count."""


def guidable(core: str, kind: str, sizes: dict[str, Any], conditioning: str = "vector+map") -> ConditionalModel:
    """With weights large enough that the condition says something."""
    model = tiny_model(kind, core=core, conditioning=conditioning, condition_dropout=0.1, **sizes)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in model.core.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return model


def values(model: ConditionalModel, images: Tensor, h: Condition, place: tuple[int, int, int]) -> Tensor:
    """ln p(v | earlier, h) of every value at a sub-pixel, (images, V), out of nothing but ``log_prob``: the images of
    each value, summed over all that comes later."""
    c, row, column = place
    info = model.info
    flat = {(c, r, w): ((r * info.width) + w) * info.channels + c for c in range(info.channels)
            for r in range(info.height) for w in range(info.width)}  # fmt: skip
    every = all_images(model)
    nats = model.log_prob(every, h)
    order = sorted(flat, key=lambda each: flat[each])
    earlier = order[: order.index(place)]
    found = torch.empty(len(images), 2**info.bit_depth, dtype=torch.float64)
    for i, image in enumerate(images):
        alike = torch.ones(len(every), dtype=torch.bool)
        for each in earlier:
            alike &= every[(slice(None), *each)] == image[each]
        for v in range(found.shape[1]):
            found[i, v] = nats[alike & (every[:, c, row, column] == v)].logsumexp(0)
    return found.log_softmax(1)


def witness(model: ConditionalModel, images: Tensor, h: Condition, guidance: float) -> Tensor:
    """ln p_W of each image, sub-pixel by sub-pixel, as the formula stands."""
    info, total = model.info, torch.zeros(len(images), dtype=torch.float64)
    for row in range(info.height):
        for column in range(info.width):
            for c in range(info.channels):
                place = (c, row, column)
                given, free = (values(model, images, each, place) for each in (h, model.no_condition()))
                table = (given.exp() ** (1 + guidance) / free.exp() ** guidance).clamp(min=0)
                p = table / table.sum(1, keepdim=True)
                total += p[torch.arange(len(images)), images[:, c, row, column].long()].log()
    return total


@pytest.mark.parametrize(("core", "kind", "sizes"), FEW)
@torch.no_grad()
def test_its_probability_is_the_formula_and_sums_to_one(core: str, kind: str, sizes: dict[str, Any]) -> None:
    model = guidable(core, kind, sizes)
    h, every = condition_for(model, 1, seed=2), all_images(model)
    for guidance in (-0.5, 0.7, 3.0):
        nats = model.log_prob(every, h, guidance=guidance)
        assert nats.dtype == torch.float64
        assert float(nats.exp().sum()) == pytest.approx(1, abs=1e-10)
        some = torch.linspace(0, len(every) - 1, 8).long()
        torch.testing.assert_close(nats[some], witness(model, every[some], h, guidance), rtol=1e-9, atol=1e-9)
    assert (model.log_prob(every, h, guidance=3.0) - model.log_prob(every, h)).abs().max() > 0.1
    for end, same in ((0.0, h), (-1.0, model.no_condition()), (-1.0, None)):
        torch.testing.assert_close(
            model.log_prob(every, h, guidance=end), model.log_prob(every, same), rtol=1e-10, atol=1e-10
        )


COUNT = 20_000


def p_value(counts: np.ndarray, p: np.ndarray) -> float:
    """Of Pearson's chi-square; images that are expected less than ten times are one case."""
    often = 10 <= p * COUNT
    observed, expected = counts[often], p[often] * COUNT
    if not often.all():
        observed, expected = np.append(observed, counts[~often].sum()), np.append(expected, p[~often].sum() * COUNT)
    return float(chisquare(observed, expected * observed.sum() / expected.sum()).pvalue)


@pytest.mark.parametrize(("core", "kind", "sizes", "sampler"), [
    (*FEW[1], "cached"), (*FEW[2], "cached"), (*FEW[3], "naive"), (*FEW[5], "cached"), (*FEW[5], "fixed_point"),
])  # fmt: skip
@torch.no_grad()
def test_images_come_as_often_as_it_says(core: str, kind: str, sizes: dict[str, Any], sampler: str) -> None:
    model, guidance = guidable(core, kind, sizes), 1.5
    h, every = condition_for(model, 1, seed=2), all_images(model)
    guided, likelihood = GuidedCore(model.core), Guided(model.likelihood, guidance)
    uniforms = noise(5, range(COUNT), likelihood.planes, model.info.height, model.info.width)
    x, nats = SAMPLERS[sampler](guided, likelihood, guided.terms(h.expand(COUNT), keep=True), uniforms)
    weights = torch.tensor([2 ** (model.info.bit_depth * k) for k in reversed(range(model.info.dimensions))])
    number = x.flatten(1).long() @ weights
    counts = np.bincount(number.numpy(), minlength=len(every)).astype(float)

    def law(guidance: float, h: Condition) -> np.ndarray:
        p: np.ndarray = model.log_prob(every, h, guidance=guidance).exp().numpy()
        return p

    assert p_value(counts, law(guidance, h)) > 1e-4
    for other, condition in ((0.0, h), (1.0, h), (-guidance - 1, h), (guidance, condition_for(model, 1, seed=3))):
        if -1 <= other:
            assert p_value(counts, law(other, condition)) < 1e-4, (other, condition)
    torch.testing.assert_close(nats, model.log_prob(every, h, guidance=guidance)[number], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("core", "kind", "channels", "conditioning"), [
    ("gated", "categorical", 3, "global"), ("gated", "categorical", 3, "vector+map"), ("gated", "bernoulli", 1, "both"),
    ("gated", "logistic_mixture", 3, "map"), ("pixelcnn++", "logistic_mixture", 3, "both"),
    ("pixelcnn++", "logistic_mixture", 3, "vector+map"), ("pixelcnn++", "linear_categorical", 3, "global"),
])  # fmt: skip
@torch.no_grad()
def test_samplers_agree(core: str, kind: str, channels: int, conditioning: str) -> None:
    """In fp64 they draw the same integers, and their ln p is the one of scoring."""
    sizes = {"channels": channels, "height": 4, "width": 4, "bit_depth": 3}
    model = guidable(core, kind, sizes, conditioning)
    h, known = condition_for(model, 2), random_images(model, 2, 5)
    mask = torch.rand(4, 4, generator=torch.Generator().manual_seed(1)) < 0.4
    cases: list[dict[str, Any]] = [{}, {"temperature": 0.6}, {"known": known, "mask": mask}]
    if model.likelihood.picks_component:
        cases.append({"temperature": (0.7, 1.3)})
    for options in cases:
        drawn = {
            name: model.sample_and_log_prob(h, 2, seed=3, sampler=name, tile=4, guidance=1.5, **options)
            for name in SAMPLERS
        }
        x, nats = drawn["naive"]
        for other, own in drawn.values():
            assert torch.equal(other, x)
            torch.testing.assert_close(own, nats, rtol=1e-11, atol=0)
        torch.testing.assert_close(nats, model.log_prob(x, h.repeat(2), guidance=1.5), rtol=1e-11, atol=0)
        if "mask" in options:
            assert torch.equal(x[:, :, mask], known.repeat_interleave(2, 0)[:, :, mask])
        assert not torch.equal(x, model.sample(h, 2, seed=3, tile=4, guidance=-0.9, **options))


@pytest.mark.parametrize(("core", "kind"), [("gated", "categorical"), ("pixelcnn++", "logistic_mixture")])
def test_guidance_of_zero_is_the_model_itself_and_of_minus_one_the_model_without_condition(
    core: str, kind: str
) -> None:
    model = guidable(core, kind, {"channels": 3, "height": 4, "width": 4, "bit_depth": 3})
    h = condition_for(model, 2)
    x, nats = model.sample_and_log_prob(h, 3, seed=1)
    for zero in (0, 0.0, -0.0):
        same, own = model.sample_and_log_prob(h, 3, seed=1, guidance=zero)
        assert torch.equal(same, x) and torch.equal(own, nats)
    first, second = model.sample(h, 3, seed=1, guidance=-1.0).view(2, 3, 3, 4, 4)
    assert torch.equal(first, second)  # whatever the condition is
    if kind == "categorical":  # which is drawn by one uniform a sub-pixel either way
        assert torch.equal(first, model.sample(None, 3, seed=1))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_neither_batch_size_nor_mates_change_a_picture(sampler: str) -> None:
    sizes = {"channels": 3, "height": 8, "width": 4, "bit_depth": 8, "filters": 12, "resnets": 1, "scales": 2}
    model = guidable("pixelcnn++", "logistic_mixture", {**sizes, "dtype": torch.float32})
    h = condition_for(model, 3)
    images, nats = model.sample_and_log_prob(h, 2, seed=7, sampler=sampler, tile=4, guidance=1.0)
    alone, own = model.sample_and_log_prob(h[1], 1, seed=7, first=1, sampler=sampler, tile=4, guidance=1.0)
    assert torch.equal(alone[0], images[3]) and torch.equal(own[0], nats[3])


class Swapped(GuidedCore):
    """A planted bug: without a condition first."""

    def head(self, features: Tensor, cache: Cache | None = None) -> Tensor:
        both = super().head(features, cache)
        return both.roll(both.shape[1] // 2, 1)


@torch.no_grad()
def test_a_core_that_mixes_up_its_halves_is_seen() -> None:
    model, guidance = guidable(*FEW[1]), 1.5
    h = condition_for(model, 1, seed=2)
    likelihood = Guided(model.likelihood, guidance)
    uniforms = noise(5, range(8), likelihood.planes, 2, 2)

    def drawn(guided: GuidedCore) -> Tensor:
        return SAMPLERS["cached"](guided, likelihood, guided.terms(h.expand(8), keep=True), uniforms)[0]

    expected = model.sample(h, 8, seed=5, guidance=guidance)
    assert torch.equal(drawn(GuidedCore(model.core)), expected)
    assert not torch.equal(drawn(Swapped(model.core)), expected)


LAWS: list[tuple[str, Temperature]] = [
    ("categorical", 0.5), ("linear_categorical", 1.7), ("bernoulli", 0.5), ("logistic_mixture", 1.0),
    ("logistic_mixture", 0.6), ("logistic_mixture", (0.5, 1.6)), ("continuous_mixture", (2.0, 0.4)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "temperature"), LAWS)
def test_the_table_of_a_temperature_is_what_is_drawn_at_it(kind: str, temperature: Temperature) -> None:
    likelihood = tiny_model(kind, channels=2, bit_depth=2).likelihood
    parameters = torch.randn(1, likelihood.outputs, 1, 1, generator=torch.Generator().manual_seed(4)).double()
    V, n = likelihood.levels, 20_000
    uniforms = noise(1, range(n), likelihood.planes, 1, 1).view(n, -1, 1, 1)
    x = torch.zeros(n, 2, 1, 1, dtype=torch.uint8)
    for step in range(likelihood.passes):
        x = likelihood.draw(parameters.expand(n, -1, -1, -1), x, uniforms, step, temperature)
    counts = np.bincount((x[:, 0] * V + x[:, 1]).flatten().numpy(), minlength=V * V).astype(float)

    def law(temperature: Temperature) -> np.ndarray:
        pair = torch.arange(V).view(V, 1, 1, 1).to(torch.uint8).expand(V, 2, 1, 1)
        every = parameters.expand(V, -1, -1, -1)
        first = likelihood.table(every, pair, 0, temperature)[0, :, 0, 0].exp()
        p: np.ndarray = (first[:, None] * likelihood.table(every, pair, 1, temperature)[:, :, 0, 0].exp()).numpy()
        return p.ravel()

    assert law(temperature).sum() == pytest.approx(1, abs=1e-12)
    assert chisquare(counts, law(temperature) * n).pvalue > 1e-4
    other = 1.0 if temperature != 1.0 else 0.8
    assert chisquare(counts, law(other) * n).pvalue < 1e-4


@pytest.mark.parametrize("rule", ["exact", "classic"])
@torch.no_grad()
def test_the_masses_of_all_values_are_those_of_each(rule: str) -> None:
    """Scales from the floor to far beyond the range, means off it."""
    likelihood = LogisticMixture(1, 256, 4, rule)
    generator = torch.Generator().manual_seed(0)
    mean = 3 * torch.randn(1, 4, 1, 50, generator=generator, dtype=torch.float64)
    log_scale = torch.empty(1, 4, 1, 50, dtype=torch.float64).uniform_(-7, 4, generator=generator)
    log_scale[..., :2] = torch.tensor([-30.0, 300.0])
    every = likelihood._log_masses(mean, log_scale)
    one = torch.stack([likelihood._log_mass(torch.tensor(v), mean, log_scale) for v in range(256)], dim=2)
    torch.testing.assert_close(every, one, rtol=1e-12, atol=1e-12)
    assert float(every.min()) < -500


def test_whole_images_are_drawn_in_bands_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    likelihood = Guided(tiny_model("logistic_mixture", channels=3, bit_depth=4).likelihood, 2.0)
    parameters = torch.randn(2, likelihood.outputs, 6, 5, generator=torch.Generator().manual_seed(0))
    x = torch.randint(0, 16, (2, 3, 6, 5), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    uniforms = noise(0, range(2), likelihood.planes, 6, 5)
    nats, drawn, before = likelihood.log_prob(parameters, x), likelihood.draw(parameters, x, uniforms, 0), x.clone()
    monkeypatch.setattr("condgen.likelihoods.guided._LARGEST_TABLE", 2 * 2 * 5 * 16 * 2)
    assert len(likelihood._bands(x)) == 3
    torch.testing.assert_close(likelihood.log_prob(parameters, x), nats, rtol=1e-13, atol=0)
    assert torch.equal(likelihood.draw(parameters, x, uniforms, 0), drawn)
    assert torch.equal(x, before) and not torch.equal(x, drawn)


def test_tables_stay_finite_where_both_are_certain() -> None:
    """Scales at the floor, means off the range: ln p of thousands."""
    base: Likelihood = tiny_model("logistic_mixture", bit_depth=8).likelihood
    wild = torch.randn(1, 2 * base.outputs, 1, 64, generator=torch.Generator().manual_seed(0)) * 20
    likelihood = Guided(base, 100.0)
    table = likelihood.table(wild, torch.zeros(1, 1, 1, 64, dtype=torch.uint8), 0, (0.1, 0.1))
    assert bool(table.isnan().any()) is False
    torch.testing.assert_close(table.exp().sum(1), torch.ones(1, 1, 64, dtype=torch.float64))


@pytest.mark.parametrize("guidance", [math.nan, math.inf, -math.inf, -1.5, 101.0])
def test_numbers_that_are_refused(guidance: float) -> None:
    model = guidable(*FEW[1])
    for call in (model.sample, lambda h, guidance: model.log_prob(random_images(model, 1), h, guidance=guidance)):
        with pytest.raises(RecipeError, match="guidance is a number from -1 to 100, 0 for none, not") as error:
            call(condition_for(model), guidance=guidance)
        assert error.value.field == "guidance"


def test_models_that_have_nothing_to_be_guided_by() -> None:
    model = tiny_model(conditioning="global")
    with pytest.raises(RecipeError, match=r"never trained without its condition; train one with encoder\.dropout"):
        model.sample(condition_for(model), guidance=1.0)
    with pytest.raises(RecipeError, match="has no condition to be guided by"):
        tiny_model(condition_dropout=0.1).sample(guidance=1.0)
