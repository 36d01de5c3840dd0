"""The continuous mixture: a density that integrates to the discretised mass, and a bound that is one."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from building import random_images, tiny_model
from torch import Tensor

from condgen import streams
from condgen.likelihoods import ContinuousMixture, LogisticMixture
from condgen.likelihoods.logistic import _DEQUANTISATION

CASES = [ContinuousMixture(1, 8, 3), ContinuousMixture(3, 4, 2), ContinuousMixture(3, 256, 2)]


def name_of(likelihood: ContinuousMixture) -> str:
    return f"{likelihood.channels}-{likelihood.levels}"


def parameters_for(likelihood: ContinuousMixture, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, likelihood.outputs, 1, 1, generator=generator, dtype=torch.float64)


def inner_pixel(likelihood: ContinuousMixture) -> Tensor:
    middle = likelihood.levels // 2
    return (
        torch.tensor([middle, middle - 1, middle + 1][: likelihood.channels])
        .clamp(1, likelihood.levels - 2)
        .view(1, -1, 1, 1)
    )


def gauss(channels: int, points: int = 12) -> tuple[Tensor, Tensor]:
    """Nodes (n, channels, 1, 1) in (0, 1) and weights (n,) of the product rule."""
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(points))
    grid = torch.cartesian_prod(*[(nodes + 1) / 2] * channels).view(-1, channels, 1, 1)
    products = torch.cartesian_prod(*[weights / 2] * channels).view(len(grid), channels)
    return grid, products.prod(1)


def average(likelihood: ContinuousMixture, x: Tensor, seed: int, of: Callable[[Tensor], Tensor]) -> float:
    """The integral over u of ``of`` (log density)."""
    uniforms, weights = gauss(likelihood.channels)
    n = len(weights)
    parameters = parameters_for(likelihood, seed).expand(n, -1, -1, -1)
    density = likelihood.log_density(parameters, x.expand(n, -1, -1, -1), uniforms).flatten()
    return float((weights * of(density)).sum())


def exact(likelihood: ContinuousMixture, x: Tensor, seed: int) -> float:
    return float(likelihood.log_prob(parameters_for(likelihood, seed), x))


def the_density_integrates_to_the_mass(likelihood: ContinuousMixture) -> None:
    """Over an inner bin in every colour, the integral of f is the discretised probability."""
    x = inner_pixel(likelihood)
    for seed in range(5):
        mass = average(likelihood, x, seed, torch.exp)
        assert math.log(mass) == pytest.approx(exact(likelihood, x, seed), abs=1e-6)


@pytest.mark.parametrize("likelihood", CASES, ids=name_of)
def test_the_density_integrates_to_the_mass(likelihood: ContinuousMixture) -> None:
    the_density_integrates_to_the_mass(likelihood)


@pytest.mark.parametrize("likelihood", CASES, ids=name_of)
def test_on_average_the_bound_is_below_log_prob(likelihood: ContinuousMixture) -> None:
    top = likelihood.levels - 1
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        inner = torch.randint(0, top + 1, (1, likelihood.channels, 1, 1), generator=generator)
        for x in (inner, torch.zeros_like(inner), torch.full_like(inner, top)):  # the outer bins lose their tails
            assert average(likelihood, x, seed, lambda density: density) <= exact(likelihood, x, seed) + 1e-9
    x = inner_pixel(likelihood)
    assert exact(likelihood, x, 0) - average(likelihood, x, 0, lambda density: density) > 1e-9


@pytest.mark.parametrize("likelihood", CASES, ids=name_of)
def test_the_mean_over_many_examples_is_the_integral_over_the_noise(likelihood: ContinuousMixture) -> None:
    x, n = inner_pixel(likelihood), 20_000
    keys = streams.example_keys(np.arange(n), 0, "test")
    parameters = parameters_for(likelihood).expand(n, -1, -1, -1)
    found = likelihood.log_bound(parameters, x.expand(n, -1, -1, -1), keys).flatten()
    wanted = average(likelihood, x, 0, lambda density: density)
    assert float(found.mean()) == pytest.approx(wanted, abs=5 * float(found.std()) / math.sqrt(n) + 1e-9)
    assert float(found.std()) > 0


def test_the_noise_belongs_to_the_example_and_to_no_other_stream() -> None:
    likelihood = ContinuousMixture(3, 16, 2)
    generator = torch.Generator().manual_seed(0)
    parameters = torch.randn(4, likelihood.outputs, 5, 6, generator=generator, dtype=torch.float64)
    x = torch.randint(0, 16, (4, 3, 5, 6), generator=generator).to(torch.uint8)
    keys = streams.example_keys(np.arange(4), 0, "test")
    whole = likelihood.log_bound(parameters, x, keys)
    for order in (torch.tensor([2, 0]), torch.tensor([3])):
        torch.testing.assert_close(likelihood.log_bound(parameters[order], x[order], keys[order]), whole[order])
    assert not torch.allclose(likelihood.log_bound(parameters, x, keys.flip(0)), whole)
    assert _DEQUANTISATION not in (-1, -2) and _DEQUANTISATION < 0  # flips, hidden labels, dropout
    with pytest.raises(ValueError, match="keys"):
        likelihood.log_bound(parameters, x)


def test_it_samples_and_scores_as_the_discretised_mixture() -> None:
    ours, other = ContinuousMixture(3, 16, 2), LogisticMixture(3, 16, 2)
    generator = torch.Generator().manual_seed(0)
    parameters = torch.randn(3, ours.outputs, 2, 2, generator=generator, dtype=torch.float64)
    x = torch.randint(0, 16, (3, 3, 2, 2), generator=generator).to(torch.uint8)
    uniforms = torch.rand(3, ours.planes, 2, 2, generator=generator, dtype=torch.float64)
    assert torch.equal(ours.log_prob(parameters, x), other.log_prob(parameters, x))
    assert torch.equal(ours.table(parameters, x, 2), other.table(parameters, x, 2))
    assert torch.equal(ours.draw(parameters, x, uniforms, 0), other.draw(parameters, x, uniforms, 0))
    assert ours.bound and not other.bound
    assert torch.equal(other.log_bound(parameters, x), other.log_prob(parameters, x))


def test_the_gradient_of_the_bound_is_its_slope() -> None:
    likelihood = ContinuousMixture(3, 16, 2)
    x, keys = inner_pixel(likelihood), torch.tensor([7])
    for seed in range(3):
        leaf = (3 * parameters_for(likelihood, seed)).requires_grad_()
        assert torch.autograd.gradcheck(lambda p: likelihood.log_bound(p, x, keys), leaf)


def test_training_lowers_the_bound_and_scores_are_exact() -> None:
    model = tiny_model("continuous_mixture", channels=3, bit_depth=4)
    x = random_images(model, 3)
    keys = streams.example_keys(np.arange(3), 0, "test")
    with torch.no_grad():
        exact_nats = -model.log_prob(x)
        nll = model.train().nll({"image": x, "key": keys})
        model.eval()
        found, bound = model.log_prob_and_bound(x, None, keys)
    assert torch.equal(-found, exact_nats) and torch.equal(-bound, nll)
    assert (nll - exact_nats).abs().min() > 1e-3


# planted bugs


def off_by_half(patch: pytest.MonkeyPatch) -> None:
    """y = v + u."""
    sound = ContinuousMixture.log_density
    patch.setattr(
        ContinuousMixture,
        "log_density",
        lambda self, parameters, x, uniforms: sound(self, parameters, x, uniforms + 0.5),
    )


def density_of_the_scaled_value(patch: pytest.MonkeyPatch) -> None:
    """Per unit of x in [-1, 1], not of v: 4.8 nats a sub-pixel better than it is."""
    sound = ContinuousMixture.log_density

    def density(self: ContinuousMixture, parameters: Tensor, x: Tensor, uniforms: Tensor) -> Tensor:
        return sound(self, parameters, x, uniforms) + self.channels * math.log((self.levels - 1) / 2)

    patch.setattr(ContinuousMixture, "log_density", density)


def means_moved_by_the_noise(patch: pytest.MonkeyPatch) -> None:
    """Later colours see the dequantised earlier ones: another model than the one that is sampled."""

    def density(self: ContinuousMixture, parameters: Tensor, x: Tensor, uniforms: Tensor) -> Tensor:
        return sound(self, parameters, x + (uniforms - 0.5), torch.full_like(uniforms, 0.5))

    sound = ContinuousMixture.log_density
    patch.setattr(ContinuousMixture, "log_density", density)


@pytest.mark.parametrize("plant", [off_by_half, density_of_the_scaled_value, means_moved_by_the_noise])
def test_the_integral_finds_the_planted_bug(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        the_density_integrates_to_the_mass(ContinuousMixture(3, 4, 2))
