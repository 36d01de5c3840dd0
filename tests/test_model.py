"""The model as a probability distribution: enumerated, sampled and conditioned."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from building import all_images, condition_for, random_images, tiny_model
from scipy.stats import chisquare

from condgen.condition import Condition
from condgen.errors import CondgenError, InputError, RecipeError
from condgen.model import ConditionalModel


@pytest.mark.parametrize(
    ("kind", "channels", "height", "width", "bit_depth"),
    [("bernoulli", 1, 2, 4, 1), ("bernoulli", 2, 2, 2, 1), ("categorical", 1, 2, 2, 2), ("categorical", 3, 1, 2, 1),
     ("logistic_mixture", 1, 2, 2, 2), ("logistic_mixture", 2, 2, 1, 2), ("logistic_mixture", 4, 1, 1, 2),
     ("continuous_mixture", 3, 1, 1, 2)],
)  # fmt: skip
@pytest.mark.parametrize("conditioning", ["none", "both", "vector+map"])
@torch.no_grad()
def test_all_images_together_have_probability_one(
    kind: str, channels: int, height: int, width: int, bit_depth: int, conditioning: str
) -> None:
    model = tiny_model(
        kind, channels=channels, height=height, width=width, bit_depth=bit_depth, conditioning=conditioning
    )
    log_prob = model.log_prob(all_images(model), condition_for(model))
    assert float(log_prob.exp().sum()) == pytest.approx(1, abs=1e-10)


def trained_on_eight_pixels(conditioning: str) -> ConditionalModel:
    """A few seconds of training on bars: rows of a 2x4 binary image are mostly equal."""
    model = tiny_model("bernoulli", height=2, width=4, conditioning=conditioning, filters=8)
    generator = torch.Generator().manual_seed(3)
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    h = condition_for(model)
    for _ in range(200):
        bars = torch.randint(0, 2, (64, 1, 1, 4), generator=generator).expand(-1, -1, 2, -1)
        flips = torch.rand(64, 1, 2, 4, generator=generator) < 0.1
        loss = -model.log_prob((bars ^ flips).to(torch.uint8), h).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


@pytest.mark.parametrize("conditioning", ["none", "both"])
def test_a_trained_model_of_eight_binary_pixels_is_what_it_samples(conditioning: str) -> None:
    model = trained_on_eight_pixels(conditioning)
    h = condition_for(model)
    with torch.no_grad():
        expected = model.log_prob(all_images(model), h).exp()
    assert float(expected.sum()) == pytest.approx(1, abs=1e-10)
    assert float(-(expected * expected.log()).sum()) < 0.9 * torch.tensor(256.0).log()  # it learned something
    n = 20_000
    x = model.sample(h, count=n, seed=1, tile=500)
    code = (x.flatten(1).long() * 2 ** torch.arange(7, -1, -1)).sum(1)
    seen = torch.bincount(code, minlength=256).double()
    # outcomes expected less than five times are counted together, as the test demands
    rare = expected * n < 5
    pooled_seen = torch.cat([seen[~rare], seen[rare].sum()[None]])
    pooled_expected = torch.cat([expected[~rare], expected[rare].sum()[None]]) * n
    keep = pooled_expected > 0
    assert chisquare(pooled_seen[keep], pooled_expected[keep] * (n / pooled_expected[keep].sum())).pvalue > 1e-4


@pytest.mark.parametrize("kind", ["categorical", "bernoulli", "logistic_mixture"])
@torch.no_grad()
def test_a_sample_is_the_fixed_point_of_its_own_parameters(kind: str) -> None:
    """Teacher-forced on the finished image, every pixel is drawn again: the same integers."""
    model = tiny_model(kind, channels=3, height=5, width=6, conditioning="both")
    from condgen.likelihoods import scaled
    from condgen.samplers import noise

    h = condition_for(model)
    x = model.sample(h, count=3, seed=5)
    uniforms = noise(5, range(3), model.likelihood.planes, 5, 6)
    parameters = model.core(scaled(x, model.likelihood.levels, torch.float64), model.core.terms(h.expand(3)))
    again = x
    for step in range(model.likelihood.passes):
        again = model.likelihood.draw(parameters, again, uniforms, step)
    assert torch.equal(again, x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_picture_depends_on_its_condition_and_number_alone(dtype: torch.dtype) -> None:
    model = tiny_model(
        "logistic_mixture", channels=3, bit_depth=8, conditioning="vector+map", dtype=dtype, height=6, width=5
    )
    h = condition_for(model, 3)
    together = model.sample(h, count=2, seed=7, tile=4)
    assert together.shape == (6, 3, 6, 5) and together.dtype == torch.uint8
    for i in range(3):
        assert torch.equal(model.sample(h[i], count=2, seed=7, tile=4), together[2 * i : 2 * i + 2])
        assert torch.equal(model.sample(h[i], count=1, first=1, seed=7, tile=4), together[2 * i + 1 : 2 * i + 2])
    assert not torch.equal(together, model.sample(h, count=2, seed=8, tile=4))


@pytest.mark.parametrize("kind", ["categorical", "logistic_mixture"])
def test_known_pixels_are_kept_and_change_what_comes_later(kind: str) -> None:
    model = tiny_model(kind, channels=3, height=6, width=6, bit_depth=8)
    known = random_images(model, 1)
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[:3, 1:4] = True
    free = model.sample(count=4, seed=2)
    kept = model.sample(count=4, seed=2, known=known, mask=mask)
    assert torch.equal(kept[:, :, mask], known.expand(4, -1, -1, -1)[:, :, mask])
    assert torch.equal(kept[:, :, 0, 0], free[:, :, 0, 0])  # nothing known comes before it
    assert not torch.equal(kept[:, :, 3:], free[:, :, 3:])
    assert torch.equal(
        model.sample(count=2, known=known, mask=torch.ones(6, 6, dtype=torch.bool)), known.repeat(2, 1, 1, 1)
    )


def test_progress_counts_the_pixels_of_all_tiles() -> None:
    seen: list[tuple[int, int]] = []
    tiny_model(height=2, width=3).sample(count=5, tile=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(k, 18) for k in range(1, 19)]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: m.log_prob(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)), InputError, "images are"),
        (lambda m: m.log_prob(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)), RecipeError, "conditional"),
        (lambda m: m.sample(), RecipeError, "conditional"),
        (lambda m: m.sample(condition_for(m), sampler="magic"), RecipeError, "magic"),
        (lambda m: m.sample(condition_for(m), temperature=float("nan")), RecipeError, "temperature"),
        (lambda m: m.sample(condition_for(m), temperature="a"), RecipeError, "temperature is a number above 0, not a"),
        (lambda m: m.sample(condition_for(m), guidance="a"), RecipeError, "guidance is a number from -1 to 100"),
        (lambda m: m.sample(condition_for(m), temperature=(1.0, 0.0)), RecipeError, "temperature"),
        (lambda m: m.sample(condition_for(m), temperature=(1.0, 0.5)), RecipeError, "Categorical likelihood is not"),
        (lambda m: m.sample(condition_for(m), count=0), RecipeError, "count"),
        (lambda m: m.sample(condition_for(m), known=random_images(m, 1)), RecipeError, "together"),
        (lambda m: m.encode(label="cat"), RecipeError, "label"),
        (lambda m: m.log_prob(random_images(m, 3), condition_for(m, 2)), CondgenError, "does not fit 3"),
    ],
)
def test_wrong_use_is_one_sentence(call: object, error: type[CondgenError], words: str) -> None:
    model = tiny_model(conditioning="global")
    with pytest.raises(error, match=words):
        call(model)  # type: ignore[operator]


def test_the_empty_condition_stands_for_every_image() -> None:
    model = tiny_model()
    x = random_images(model, 5)
    assert torch.equal(model.log_prob(x), model.log_prob(x, Condition()))


@pytest.mark.parametrize("value", [3, None, [], ["cat", 3], 0.5])
def test_words_that_are_no_text_are_a_sentence(value: Any) -> None:
    with pytest.raises(RecipeError, match=r"^label: expected text, several texts or a tensor, found ") as error:
        tiny_model().encode(label=value)
    assert error.value.field == "label"
