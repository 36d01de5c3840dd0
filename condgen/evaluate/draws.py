"""Whether sampling does what the likelihood says: the drawing of values, and the samplers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from condgen import streams
from condgen.evaluate.trial import Finding, forward_operations, parameters_of, random_condition, random_images, shaken
from condgen.model import ConditionalModel
from condgen.progress import Progress
from condgen.samplers import SAMPLERS, noise

DRAWS_TOLERANCE = 3.0
"""Of the Kolmogorov-Smirnov statistic sqrt(n) D: honest draws exceed it with probability 3e-8."""
SAMPLING_OPERATIONS = 1e11
"""Multiplications and additions that one sampler may take, seconds on two cores in float64."""
LEAST_OPERATIONS = 1e8
"""What a forward pass costs at least: a small network's time goes into calls, not into arithmetic."""


@torch.no_grad()
def _distance_of_draws(model: ConditionalModel, seed: int) -> float:
    """How far the likelihood's draws are from its own table: the Kolmogorov-Smirnov statistic sqrt(n) D.

    With a value v drawn from a table of cumulated probabilities F, F(v - 1) + u p(v) is uniform. Tried on random
    parameters of 128 pixels, 64 draws each, all channels. Half of the parameters lie about 0 and half about -5.5: among
    mixtures that gives many with their mean in range and a scale of about a bin, where rounding shows.
    """
    likelihood = model.likelihood
    P, draws = 128, 64

    def uniforms(what: str, *shape: int) -> Tensor:
        return torch.from_numpy(streams.uniforms(int(np.prod(shape)), seed, "draws", what)).view(shape)

    normal, low = (uniforms(what, 1, likelihood.outputs, 1, P) for what in ("parameters", "low"))
    parameters = (torch.special.ndtri(normal) - 5.5 * (low < 0.5)).to(model.device)
    noises = uniforms("noise", draws, likelihood.planes, 1, P)
    shares = uniforms("shares", draws, likelihood.channels, 1, P)
    places = []
    for k in range(draws):
        x = torch.zeros(1, likelihood.channels, 1, P, dtype=torch.uint8, device=model.device)
        for step in range(likelihood.passes):
            x = likelihood.draw(parameters, x, noises[k : k + 1].to(model.device), step)
        for channel in range(likelihood.channels):
            p = likelihood.table(parameters, x, channel).exp()  # (1, V, 1, P)
            value = x[:, channel, None].long()
            below = p.cumsum(1).gather(1, value) - p.gather(1, value)
            places.append((below + p.gather(1, value) * shares[k, channel].to(model.device)).flatten())
    ordered = torch.cat(places).sort().values.cpu().numpy()
    n = len(ordered)
    steps = np.arange(n + 1) / n
    return float(np.sqrt(n) * max(np.max(ordered - steps[:-1]), np.max(steps[1:] - ordered)))


@torch.no_grad()
def sampling_finding(model: ConditionalModel, seed: int, quiet: bool | None) -> Finding:
    """Images by every sampler, with the model's weights and with livelier ones (small weights make pixels that hardly
    depend on each other), some pixels given; without given pixels as well where that is quickly done."""
    distance = _distance_of_draws(model, seed)
    if not distance < DRAWS_TOLERANCE:
        return Finding(False, f"values are not drawn with their probabilities (Kolmogorov-Smirnov {distance:.1f}).")
    H, W = model.info.height, model.info.width
    count = int(min(max(2, LEAST_OPERATIONS / forward_operations(model)), 32))  # what one call costs anyway
    pass_cost = max(count * forward_operations(model), LEAST_OPERATIONS)
    affordable = int(SAMPLING_OPERATIONS / (3 * model.likelihood.passes * pass_cost))
    free = streams.permutation(H * W, seed, "free pixels")[: max(4, min(affordable, 3 * H * W // 4))]
    some = torch.ones(H * W, dtype=torch.bool)
    some[torch.from_numpy(free)] = False
    none, some = torch.zeros(H, W, dtype=torch.bool), some.view(H, W)
    lively = shaken(model, seed, 1, gain=4.0)
    cases = [(model, some), (model, none), (lively, none)] if affordable >= H * W else [(model, some), (lively, some)]
    drawn = 0
    with Progress("sampling", len(cases) * len(SAMPLERS) * H * W, "pixels", quiet) as progress:
        for sampled, given in cases:
            known = random_images(model, 1, seed, "given").cpu()
            pictures = {name: _sampled(sampled, name, count, known, given, seed, progress) for name in SAMPLERS}
            for name, x in pictures.items():
                fault = _fault_of_pictures(sampled, x, known, given, seed)
                if fault is not None:
                    return Finding(False, f"the {name} sampler {fault}.")
            if any(not torch.equal(x, pictures["naive"]) for x in pictures.values()):
                return Finding(False, f"the samplers {', '.join(pictures)} draw different images from the same noise.")
            drawn += count * int((~given).sum())
    return Finding(
        True, f"{drawn} pixels drawn are what their noise picks, with the right probability; given ones stay."
    )


def _sampled(
    model: ConditionalModel, sampler: str, count: int, known: Tensor, given: Tensor, seed: int, progress: Progress
) -> Tensor:
    """``count`` images of one condition, uint8 (count, C, H, W); without a mask where nothing is given."""
    free = not bool(given.any())
    return model.sample(
        random_condition(model, 1, seed, "sampling"),
        count,
        seed,
        sampler=sampler,
        known=None if free else known,
        mask=None if free else given,
        tile=count,
        progress=lambda done, total: progress.advance(),
    )


def _fault_of_pictures(model: ConditionalModel, x: Tensor, known: Tensor, given: Tensor, seed: int) -> str | None:
    """What is wrong with the images that ``_sampled`` drew, seen from the finished images."""
    if not torch.equal(x[:, :, given], known.expand_as(x)[:, :, given]):
        return "changes given pixels"
    likelihood, info = model.likelihood, model.info
    x = x.to(model.device)
    parameters = parameters_of(model, x, random_condition(model, 1, seed, "sampling").expand(len(x)))
    uniforms = noise(seed, range(len(x)), likelihood.planes, info.height, info.width).to(model.device)
    again = x
    for step in range(likelihood.passes):
        again = likelihood.draw(parameters, again, uniforms, step)
    wrong = ((again != x).any(1).cpu() & ~given).nonzero().tolist()
    if not wrong:
        return None
    _, row, column = wrong[0]
    return (
        f"draws another pixel ({row}, {column}) than its noise picks from the finished image's parameters "
        f"({len(wrong)} such pixels)"
    )
