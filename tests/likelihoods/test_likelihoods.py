"""Likelihoods against enumeration, a slow fp64 witness, and the numbers of the original implementation."""

from __future__ import annotations

import math
from collections.abc import Callable

import golden
import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from condgen.likelihoods import (
    Bernoulli,
    Categorical,
    ContinuousMixture,
    Likelihood,
    LinearCategorical,
    LogisticMixture,
    scaled,
)
from condgen.samplers import noise


def parameters_for(likelihood: Likelihood, batch: int = 2, side: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, likelihood.outputs, side, side, generator=generator, dtype=torch.float64)


CASES = [
    Categorical(1, 256), Categorical(3, 4), Categorical(4, 2), Bernoulli(1), Bernoulli(3),
    *(LogisticMixture(c, v, k, rule) for c, v, k, rule in
      [(1, 256, 5, "exact"), (3, 256, 3, "exact"), (4, 16, 2, "exact"), (2, 8, 3, "exact")]),
    LinearCategorical(1, 256), LinearCategorical(3, 16), LinearCategorical(4, 4), ContinuousMixture(3, 16, 3),
]  # fmt: skip


def name_of(likelihood: Likelihood) -> str:
    return f"{type(likelihood).__name__}-{likelihood.channels}-{likelihood.levels}"


@pytest.mark.parametrize("likelihood", CASES, ids=name_of)
def test_every_conditional_sums_to_one_and_log_prob_is_their_sum(likelihood: Likelihood) -> None:
    parameters = 3 * parameters_for(likelihood)
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, likelihood.levels, (2, likelihood.channels, 3, 3), generator=generator)
    total = torch.zeros(2, 3, 3, dtype=torch.float64)
    for channel in range(likelihood.channels):
        table = likelihood.table(parameters, x, channel)
        assert table.shape == (2, likelihood.levels, 3, 3)
        assert (table.logsumexp(1).abs() < 1e-10).all()
        total += table.gather(1, x[:, channel, None])[:, 0]
    torch.testing.assert_close(likelihood.log_prob(parameters, x), total, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("likelihood", CASES, ids=name_of)
def test_draws_follow_the_table(likelihood: Likelihood) -> None:
    """Frequencies of the last channel's values given the earlier ones, over many draws of one pixel."""
    n = 40_000 if likelihood.levels < 256 else 6_000
    one = parameters_for(likelihood, batch=1, side=1)
    uniforms = noise(0, [0], likelihood.planes * n, 1, 1).view(n, likelihood.planes, 1, 1)
    x = torch.zeros(n, likelihood.channels, 1, 1, dtype=torch.uint8)
    for step in range(likelihood.passes):
        x = likelihood.draw(one.expand(n, -1, -1, -1), x, uniforms, step)
    channel = likelihood.channels - 1
    # witness: the mean of the conditional table over the earlier colours that were drawn
    expected = likelihood.table(one.expand(n, -1, -1, -1), x, channel).exp().mean(0).flatten()
    seen = torch.bincount(x[:, channel].flatten().long(), minlength=likelihood.levels) / n
    deviation = (expected * (1 - expected) / n).sqrt()
    assert ((seen - expected).abs() < 5 * deviation + 1e-3).all()


SMALL = [
    *(kind(c, v) for kind in (Categorical, LinearCategorical) for c, v in ((1, 8), (3, 4), (4, 3))),
    *(kind(c, v, 2) for kind in (LogisticMixture, ContinuousMixture) for c, v in ((1, 8), (3, 4), (4, 3))),
]


def every_pixel(likelihood: Likelihood) -> Tensor:
    """All V^C pixels, in counting order of their colours: (V^C, C, 1, 1)."""
    digits = [torch.arange(likelihood.levels)] * likelihood.channels
    return torch.cartesian_prod(*digits).view(-1, likelihood.channels, 1, 1)


@pytest.mark.parametrize("likelihood", SMALL, ids=name_of)
def test_every_pixel_there_is_has_a_probability_and_is_drawn_as_often(likelihood: Likelihood) -> None:
    x, n = every_pixel(likelihood), 20_000
    one = 2 * parameters_for(likelihood, batch=1, side=1, seed=3)
    probabilities = likelihood.log_prob(one.expand(len(x), -1, -1, -1), x).flatten().exp()
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-10)
    uniforms = noise(1, [0], likelihood.planes * n, 1, 1).view(n, likelihood.planes, 1, 1)
    drawn = torch.zeros(n, likelihood.channels, 1, 1, dtype=torch.uint8)
    for step in range(likelihood.passes):
        drawn = likelihood.draw(one.expand(n, -1, -1, -1), drawn, uniforms, step)
    places = likelihood.levels ** torch.arange(likelihood.channels - 1, -1, -1)
    seen = torch.bincount((drawn.flatten(1).long() * places).sum(1), minlength=len(x)).double()
    often = probabilities * n >= 5  # outcomes expected less often are counted together, as the test demands
    counts = torch.cat([seen[often], seen[~often].sum()[None]])
    expected = torch.cat([probabilities[often], probabilities[~often].sum()[None]]) * n
    keep = expected > 0
    assert chisquare(counts[keep].numpy(), expected[keep].numpy(), sum_check=False).pvalue > 1e-3


@pytest.mark.parametrize(
    "likelihood", [LogisticMixture(3, 256, 10), ContinuousMixture(3, 256, 10), LinearCategorical(3, 256), *CASES[:1]],
    ids=name_of,
)  # fmt: skip
def test_autocast_does_not_touch_the_arithmetic(likelihood: Likelihood) -> None:
    """From bf16 parameters and under autocast: the very numbers of their fp32 copy, and its gradient rounded."""
    parameters = parameters_for(likelihood).bfloat16().requires_grad_()
    copy = parameters.detach().float().requires_grad_()
    x = torch.randint(0, 256, (2, likelihood.channels, 3, 3), generator=torch.Generator().manual_seed(1))
    keys = torch.tensor([3, 4])
    outside = likelihood.log_bound(copy, x, keys)
    with torch.autocast("cpu", torch.bfloat16):
        inside = likelihood.log_bound(parameters, x, keys)
        assert torch.equal(likelihood.log_prob(parameters, x), likelihood.log_prob(copy, x))
        assert torch.equal(likelihood.table(parameters, x, 0), likelihood.table(copy, x, 0))
    assert inside.dtype == torch.float32 and torch.equal(inside, outside)
    inside.sum().backward()
    outside.sum().backward()
    assert parameters.grad is not None and copy.grad is not None
    assert torch.equal(parameters.grad, copy.grad.bfloat16())


@pytest.mark.parametrize("likelihood", CASES, ids=name_of)
def test_temperature_narrows_the_draws(likelihood: Likelihood) -> None:
    n = 2000
    one = parameters_for(likelihood, batch=1, side=1).expand(n, -1, -1, -1)
    uniforms = noise(0, [0], likelihood.planes * n, 1, 1).view(n, likelihood.planes, 1, 1)

    def spread(temperature: float) -> float:
        x = torch.zeros(n, likelihood.channels, 1, 1, dtype=torch.uint8)
        for step in range(likelihood.passes):
            x = likelihood.draw(one, x, uniforms, step, temperature)
        return float(x.double().var(0).sum())

    assert spread(0.02) < spread(1.0)


def test_mixtures_have_a_temperature_of_the_choice_and_one_of_the_width() -> None:
    """Two wide components about a quarter and three quarters of the range, the first a little likelier."""
    n, likelihood = 2000, LogisticMixture(1, 256, 2)
    one = torch.tensor([0.5, 0.0, -0.5, 0.5, -3.0, -3.0]).view(1, 6, 1, 1).expand(n, -1, -1, -1)
    uniforms = noise(0, [0], 2 * n, 1, 1).view(n, 2, 1, 1)

    def drawn(temperature: float | tuple[float, float]) -> Tensor:
        x = torch.zeros(n, 1, 1, 1, dtype=torch.uint8)
        return likelihood.draw(one, x, uniforms, 0, temperature).flatten().double()

    assert torch.equal(drawn(0.7), drawn((0.7, 0.7))) and not torch.equal(drawn(0.7), drawn((0.7, 0.6)))
    assert bool((drawn((0.01, 1.0)) < 128).all())  # the likelier component alone, as wide as ever
    assert float(drawn((0.01, 1.0)).std()) > 8
    sharp = drawn((1.0, 0.001))  # both, as often as ever, without any width
    assert set(sharp.tolist()) == {64.0, 191.0}
    assert float((sharp == 64).double().mean()) == pytest.approx(1 / (1 + math.exp(-0.5)), abs=0.04)
    with pytest.raises(ValueError, match="mixtures alone"):
        Categorical(1, 256).draw(torch.zeros(n, 256, 1, 1), torch.zeros(n, 1, 1, 1), uniforms, 0, (1.0, 0.5))


@pytest.mark.parametrize("log_scale", [-9.0, -7.0, -5.0, -3.0, 0.0, 4.0, 8.0, 40.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_exact_rule_is_finite_and_sums_to_one_at_every_scale(log_scale: float, dtype: torch.dtype) -> None:
    likelihood = LogisticMixture(1, 256, 1)
    for mean in (-1.5, -1.0, -0.3, 0.0, 0.999, 1.5):
        parameters = torch.tensor([0.0, mean, log_scale], dtype=dtype).view(1, 3, 1, 1).requires_grad_()
        table = likelihood.table(parameters, torch.zeros(1, 1, 1, 1, dtype=torch.long), 0)
        assert torch.isfinite(table).all()
        assert abs(float(table.detach().double().exp().sum()) - 1) < (1e-10 if dtype == torch.float64 else 2e-5)
        (gradient,) = torch.autograd.grad(table.sum(), parameters)
        assert torch.isfinite(gradient).all()


def slow_log_mass(value: int, mean: float, log_scale: float) -> float:
    """ln of the bin's mass by 1100-digit arithmetic (the far tail is e^-2000)."""
    from decimal import Decimal, localcontext

    with localcontext() as context:
        context.prec = 1100
        scale = Decimal(max(log_scale, -7.0)).exp()

        def below(edge: Decimal) -> Decimal:
            return 1 / (1 + (-(edge - Decimal(mean)) / scale).exp())

        x, half = Decimal(value * 2 - 255) / 255, Decimal(1) / 255
        upper = Decimal(1) if value == 255 else below(x + half)
        lower = Decimal(0) if value == 0 else below(x - half)
        return float((upper - lower).ln())


def test_exact_rule_equals_long_arithmetic() -> None:
    likelihood = LogisticMixture(1, 256, 1)
    for mean, log_scale in ((-1.1, -8.0), (-0.2, -6.5), (0.31, -4.0), (0.97, -1.0), (0.4, 2.0)):
        parameters = torch.tensor([0.0, mean, log_scale], dtype=torch.float64).view(1, 3, 1, 1)
        table = likelihood.table(parameters, torch.zeros(1, 1, 1, 1, dtype=torch.long), 0).flatten()
        for value in (0, 1, 128, 254, 255):
            assert float(table[value]) == pytest.approx(slow_log_mass(value, mean, log_scale), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("levels", [3, 16, 256])
def test_the_gradient_of_the_exact_mass_is_its_slope(levels: int) -> None:
    likelihood = LogisticMixture(1, levels, 2)
    x = torch.arange(levels).view(-1, 1, 1, 1)[:: max(1, levels // 16)]
    x = torch.cat([x, torch.tensor([levels - 1]).view(1, 1, 1, 1)])
    for spread in (0.5, 4.0):  # of means and log scales: the latter from e^-7 to e^10
        parameters = (spread * parameters_for(likelihood, len(x), 1)).requires_grad_()
        assert torch.autograd.gradcheck(lambda p: likelihood.log_prob(p, x), parameters, atol=1e-6)


def test_the_slope_is_right_in_fp32_at_every_scale() -> None:
    x = torch.tensor([0, 1, 128, 254, 255]).view(5, 1, 1, 1)
    likelihood = LogisticMixture(1, 256, 1)
    for mean, log_scale in ((-1.1, -6.9), (0.004, -6.5), (0.3, -4.0), (0.97, 0.0), (0.4, 6.0), (0.2, 40.0)):
        exact = torch.tensor([0.0, mean, log_scale], dtype=torch.float64).view(1, 3, 1, 1).expand(5, -1, 1, 1)
        slopes = []
        for leaf in (exact.clone(), exact.float()):
            leaf.requires_grad_()
            (slope,) = torch.autograd.grad(likelihood.log_prob(leaf, x).sum(), leaf)
            slopes.append(slope.double())
        torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-4, atol=2e-4)


@golden.needed
@pytest.mark.parametrize("mixtures", [1, 3, 10])
def test_golden_numbers_of_the_original(mixtures: int) -> None:
    with np.load(golden.FOLDER / "dmol_cases.npz", allow_pickle=False) as file:
        case = {key[len(f"k{mixtures}_") :]: file[key] for key in file.files if key.startswith(f"k{mixtures}_")}
    parameters = torch.from_numpy(case["params"])[:, :, None, None]  # (n, 10 K, 1, 1)
    x = torch.from_numpy(case["x"]).long()[:, :, None, None]  # (n, 3, 1, 1)
    exact = LogisticMixture(3, 256, mixtures).log_prob(parameters.double(), x).flatten()
    torch.testing.assert_close(exact, torch.from_numpy(case["logprob_exact_float64"]), rtol=1e-9, atol=1e-9)
    # fp32 loses what rounding x - mu loses: an ulp of 1 over a scale of e^-7
    rough = LogisticMixture(3, 256, mixtures).log_prob(parameters, x).flatten()
    torch.testing.assert_close(rough.double(), exact, rtol=2e-5, atol=2e-3)
    original = torch.from_numpy(case["logprob_original"]).double()
    classic_rule = LogisticMixture(3, 256, mixtures, "classic")
    # the original ran in fp32, where the difference of two sigmoids is worth up to 0.016 nats a sub-pixel
    classic = classic_rule.log_prob(parameters.double(), x).flatten()
    assert ((classic - original).abs() <= 0.05 + 1e-5 * original.abs()).all()
    assert float((classic - original).abs().mean()) < 1e-3
    if "grad_of_logprob_original" in case:
        leaf = parameters.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(classic_rule.log_prob(leaf, x).sum(), leaf)
        wanted = torch.from_numpy(case["grad_of_logprob_original"])
        assert float((gradient[:, :, 0, 0] - wanted).norm() / wanted.norm()) < 1e-3


@golden.needed
def test_golden_samples_of_the_original() -> None:
    """Same component, same logistic noise: the original's continuous sample, rounded to the grid, is ours.

    The original feeds unrounded colours on, so G and B may differ by a level where rounding moves their means.
    """
    with np.load(golden.FOLDER / "sampler_cases.npz", allow_pickle=False) as file:
        params, u_mixture, u_logistic, sample = (
            torch.from_numpy(file[key]).double() for key in ("params", "uniform_mixture", "uniform_logistic", "sample")
        )
    likelihood = LogisticMixture(3, 256, 5)
    component = (params[:, :5] - torch.log(-torch.log(u_mixture))).argmax(1)
    # a uniform in the middle of the component's share of the cumulated softmax picks it
    weights = params[:, :5].softmax(1)
    middle = (weights.cumsum(1) - weights / 2).gather(1, component[:, None])
    uniforms = torch.cat([u_logistic, middle], dim=1)[:, :, None, None]
    x = torch.zeros(len(params), 3, 1, 1, dtype=torch.uint8)
    drawn = likelihood.draw(params[:, :, None, None], x, uniforms, 0)[:, :, 0, 0].double()
    wanted = ((sample + 1) * 127.5).round()
    assert ((drawn[:, 0] - wanted[:, 0]).abs() <= 1e-9).double().mean() > 0.995  # ties in fp32
    assert ((drawn - wanted).abs() <= 1).all()


def without_tanh(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tensor, "tanh", lambda raw: raw)


def transposed_layout(patch: pytest.MonkeyPatch) -> None:
    """Means, scales and coefficients of all colours together, as a (3, 3 K) reshaped to (3 K, 3) has them."""

    patch.setattr(LogisticMixture, "split_blocks", lambda self, blocks: blocks.split(3, dim=1))


def colours_shifted_by_the_wrong_one(patch: pytest.MonkeyPatch) -> None:
    """G's and B's coefficients in the order (B from G, G from R, B from R)."""
    sound = LogisticMixture._split

    def split(self: LogisticMixture, parameters: Tensor) -> tuple[Tensor, ...]:
        *others, coefficients = sound(self, parameters)
        return *others, coefficients.roll(1, dims=1)

    patch.setattr(LogisticMixture, "_split", split)


def edges_on_the_wrong_side(patch: pytest.MonkeyPatch) -> None:
    from condgen.likelihoods.logistic import _LogMass

    def swapped(centred: Tensor, log_scale: Tensor, lowest: Tensor, highest: Tensor, half: float) -> Tensor:
        mass: Tensor = sound(centred, log_scale, highest, lowest, half)
        return mass

    sound = _LogMass.apply
    patch.setattr(_LogMass, "apply", swapped)


def half_a_bin_on_one_side(patch: pytest.MonkeyPatch) -> None:
    """Bins from v to v + 1 instead of v - 1/2 to v + 1/2."""
    from condgen.likelihoods import logistic

    def shifted(x: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
        return scaled(x, levels, dtype) + 1 / (levels - 1)

    patch.setattr(logistic, "scaled", shifted)


@golden.needed
@pytest.mark.parametrize(
    "plant",
    [without_tanh, transposed_layout, colours_shifted_by_the_wrong_one, edges_on_the_wrong_side,
     half_a_bin_on_one_side],
)  # fmt: skip
def test_the_golden_numbers_find_the_planted_bug(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        test_golden_numbers_of_the_original(3)


def test_scaled_is_the_inverse_of_rounding_for_every_bit_depth() -> None:
    for bits in range(1, 9):
        levels = 2**bits
        values = torch.arange(levels)
        on_grid = scaled(values, levels, torch.float32)
        assert float(on_grid[0]) == -1 and float(on_grid[-1]) == 1
        assert torch.equal(((on_grid + 1) * (levels - 1) / 2).round().long(), values)


def test_a_uniform_categorical_has_eight_bits() -> None:
    likelihood = Categorical(3, 256)
    nats = -likelihood.log_prob(torch.zeros(1, 768, 2, 2), torch.zeros(1, 3, 2, 2, dtype=torch.uint8)).sum()
    assert float(nats) / (math.log(2) * 12) == pytest.approx(8, abs=1e-6)
