"""Proof rather than trust: the properties that make a model an exact density, shown on the very weights it has.

Everything runs on a copy in float64. A property is true, false, or None where it does not apply.

Legend: B images, C channels, V values of a sub-pixel, H x W pixels; J colours whose parameters are told apart (C where
the likelihood orders the colours, else 1).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from condgen import streams
from condgen.condition import Condition
from condgen.cores.conditioning import ConditionBias
from condgen.evaluate.sight import (
    LEAST_ROUNDS,
    Sight,
    forward_operations,
    look,
    probed_pixels,
    random_condition,
    random_images,
    shaken,
)
from condgen.likelihoods import LogisticMixture, scaled
from condgen.model import ConditionalModel
from condgen.progress import Progress
from condgen.samplers import SAMPLERS, noise

SUM_TOLERANCE = 1e-10
CLASSIC_TOLERANCE = 2e-5
"""How far from 1 the original's rule for tiny probabilities may take the sum of a pixel's probabilities."""
SAMPLING_OPERATIONS = 1e11
"""Multiplications and additions that one sampler may take, about ten seconds on two cores in float64."""
TRIALS = 6
"""Times that the condition's reach is tried, with ``shaken`` weights from the second on, before it counts as deaf."""


@dataclass(frozen=True)
class Finding:
    """Whether a property holds (None: it does not apply), and a sentence that says what was seen."""

    holds: bool | None
    detail: str


def verify(model: ConditionalModel, *, seed: int = 0, quiet: bool | None = None) -> dict[str, bool | None]:
    """Whether each property holds: ``findings`` without the sentences."""
    return {name: finding.holds for name, finding in findings(model, seed=seed, quiet=quiet).items()}


def findings(model: ConditionalModel, *, seed: int = 0, quiet: bool | None = None) -> dict[str, Finding]:
    """What was found about each property of ``model``, which is left as it is.

    - ``causality``: no parameter depends on a later pixel, or on a colour of its own pixel that it may not know.
    - ``coverage``: the parameters depend on every channel of exactly the pixels that ``core.sees`` promises.
    - ``colour_order``: on its own pixel, colour j's parameters depend on the colours before j, on all of them and on
      nothing else; on none of them where the likelihood takes whole pixels.
    - ``normalisation``: the probabilities of a sub-pixel's values sum to 1 within 1e-10, and the model's
      log-probability is the sum of theirs.
    - ``condition``: it reaches every pixel, both stacks and every layer, with each of its numbers.
    - ``sampling``: every pixel drawn is the one that its noise picks from the parameters of the finished image; given
      pixels are kept; all samplers agree.

    Images of more than 16x16 pixels are probed at a sample of pixels, chosen by ``seed``.
    """
    model = _in_float64(model)
    pixels = probed_pixels(model, seed)
    promised = _promised_pixels(model, pixels)
    with torch.backends.cudnn.flags(enabled=False):  # cuDNN may convolve by Fourier transform, which has no exact zeros
        with Progress("probing", LEAST_ROUNDS * len(pixels), "probes", quiet) as progress:
            sight = look(model, pixels, promised | _promised_colours(model, pixels), seed, probed=progress.advance)
        found = {
            "causality": _causality(model, sight),
            "coverage": _coverage(sight, promised),
            "colour_order": _colour_order(model, sight),
            "normalisation": _normalisation(model, seed),
            "condition": _condition(model, sight, seed),
        }
        with Progress("sampling", None, "pixels", quiet) as progress:
            found["sampling"] = _sampling(model, seed, progress.advance)
    return found


def _in_float64(model: ConditionalModel) -> ConditionalModel:
    """A copy to compute exactly with: float64, evaluation mode, no gradients of weights."""
    twin = copy.deepcopy(model)
    if model.device.type == "mps":  # has no float64
        twin = twin.cpu()
    return twin.double().eval().requires_grad_(False)


def _promised_pixels(model: ConditionalModel, pixels: list[tuple[int, int]]) -> Tensor:
    """``core.sees`` for every probe, colour and input channel: bool (P, J, C, H, W)."""
    H, W = model.info.height, model.info.width
    C = model.likelihood.channels
    J = C if model.likelihood.colour_ordered else 1
    seen = torch.stack([model.core.sees(row, column, H, W) for row, column in pixels])
    return seen[:, None, None].expand(-1, J, C, H, W)


def _promised_colours(model: ConditionalModel, pixels: list[tuple[int, int]]) -> Tensor:
    """What the parameters may know of their own pixel: bool (P, J, C, H, W), true at that pixel alone."""
    promised = torch.zeros_like(_promised_pixels(model, pixels))
    allowed = _allowed_colours(model)
    for p, (row, column) in enumerate(pixels):
        promised[p, :, :, row, column] = allowed
    return promised


def _allowed_colours(model: ConditionalModel) -> Tensor:
    """bool (J, C): the colours before j; none at all for whole pixels."""
    C = model.likelihood.channels
    if not model.likelihood.colour_ordered:
        return torch.zeros(1, C, dtype=torch.bool)
    return torch.ones(C, C, dtype=torch.bool).tril(-1)


def _own(sight: Sight) -> Tensor:
    """What each probe sees of its own pixel: (P, J, C)."""
    rows, columns = (torch.tensor(numbers) for numbers in zip(*sight.pixels, strict=True))
    return sight.of[torch.arange(len(sight.pixels)), :, :, rows, columns]


def _causality(model: ConditionalModel, sight: Sight) -> Finding:
    H, W = sight.of.shape[-2:]
    place = torch.arange(H * W).view(H, W)
    leaks = []
    for p, (row, column) in enumerate(sight.pixels):
        later = sight.of[p].any(0).any(0) & (place > row * W + column)
        leaks += [f"({row}, {column}) on ({r}, {c})" for r, c in later.nonzero().tolist()]
    own = (_own(sight) & ~_allowed_colours(model)).flatten(1).any(1)
    leaks += [
        f"({row}, {column}) on itself" for (row, column), bad in zip(sight.pixels, own.tolist(), strict=True) if bad
    ]
    if leaks:
        return Finding(False, f"{len(leaks)} forbidden dependences, e.g. pixel {leaks[0]}.")
    return Finding(
        True,
        f"no parameters of {len(sight.pixels)} probed pixels depend on the pixel itself or a later one "
        f"({sight.images} random images).",
    )


def _coverage(sight: Sight, promised: Tensor) -> Finding:
    other = torch.ones_like(promised)
    for p, (row, column) in enumerate(sight.pixels):
        other[p, :, :, row, column] = False  # the own pixel is colour_order's
    missing = (promised & ~sight.of).flatten(1, 2).any(1)  # (P, H, W): for some colour or channel
    extra = (sight.of & ~promised & other).flatten(1, 2).any(1)
    for wrong, words in ((missing, "does not see"), (extra, "sees, unpromised,")):
        if bool(wrong.any()):
            p, r, c = wrong.nonzero()[0].tolist()
            return Finding(
                False, f"pixel {sight.pixels[p]} {words} pixel ({r}, {c}); in all {int(wrong.sum())} such pairs."
            )
    most = int(promised[:, 0, 0].flatten(1).sum(1).max())
    shaken_too = f" ({sight.shaken} of them with other weights of the same architecture)" if sight.shaken else ""
    return Finding(
        True, f"{len(sight.pixels)} probed pixels{shaken_too} see exactly what is promised, up to {most} pixels."
    )


def _colour_order(model: ConditionalModel, sight: Sight) -> Finding:
    allowed, own = _allowed_colours(model), _own(sight)
    leak, lost = own.any(0) & ~allowed, ~own.all(0) & allowed
    if bool(leak.any()):
        j, i = leak.nonzero()[0].tolist()
        whose = f"colour {j}'s parameters" if model.likelihood.colour_ordered else "parameters"
        return Finding(False, f"{whose} see colour {i} of their own pixel.")
    if bool(lost.any()):
        j, i = lost.nonzero()[0].tolist()
        return Finding(False, f"colour {j}'s parameters do not see colour {i} of their own pixel.")
    if not model.likelihood.colour_ordered:
        return Finding(True, "whole pixels: no parameters see any colour of their own pixel.")
    return Finding(True, "each colour's parameters see the colours before it on their own pixel, and no other.")


@torch.no_grad()
def _normalisation(model: ConditionalModel, seed: int) -> Finding:
    """On the model's parameters for two images, and on wild ones; at most 256 pixels of each."""
    likelihood, info = model.likelihood, model.info
    x, h = random_images(model, 2, seed, "normalisation"), random_condition(model, 2, seed, "normalisation")
    parameters = model.core(scaled(x, likelihood.levels, torch.float64), model.core.terms(h))
    model_nats = model.log_prob_map(x, h)  # (2, H, W)
    wild = torch.special.ndtri(torch.from_numpy(streams.uniforms(parameters.numel(), seed, "wild"))) * 3
    wild = wild.view(parameters.shape).to(parameters.device)
    wild_nats = likelihood.log_prob(wild, x)
    chosen = torch.from_numpy(streams.permutation(info.height * info.width, seed, "normalisation")[:256]).to(x.device)

    def some(values: Tensor) -> Tensor:
        """(2, n, H, W) -> (2, n, 1, P): the chosen pixels as an image of one row."""
        return values.flatten(2)[:, :, None, chosen]

    off_one = off_sum = 0.0
    for given, nats in ((parameters, model_nats), (wild, wild_nats)):
        total = torch.zeros_like(some(nats[:, None]))
        for channel in range(likelihood.channels):
            table = likelihood.table(some(given), some(x), channel)  # (2, V, 1, P)
            off_one = _worst(off_one, table.exp().sum(1) - 1)
            total += table.gather(1, some(x)[:, channel, None].long())
        off_sum = _worst(off_sum, total - some(nats[:, None]))
    classic = isinstance(likelihood, LogisticMixture) and likelihood.rule == "classic"
    tolerance = CLASSIC_TOLERANCE if classic else SUM_TOLERANCE
    holds = off_one <= tolerance and off_sum <= SUM_TOLERANCE
    rule = " (the classic rule promises no more)" if classic and holds else ""
    return Finding(
        holds,
        f"probabilities sum to 1 within {off_one:.1e}{rule}; log p differs from the sum of its terms by at most "
        f"{off_sum:.1e} nats a pixel.",
    )


def _worst(so_far: float, differences: Tensor) -> float:
    """The larger of both; infinity for NaN, which no comparison would notice."""
    return max(so_far, float(differences.abs().nan_to_num(nan=float("inf")).max()))


def _condition(model: ConditionalModel, sight: Sight, seed: int) -> Finding:
    if not (model.encoder.vector_size or model.encoder.map_channels):
        return Finding(None, "the model is unconditional.")
    for name, seen in (("vector", sight.of_vector), ("map", sight.of_map)):
        if seen.shape[1] and not bool(seen.any(1).all()):
            pixel = sight.pixels[int((~seen.any(1)).nonzero()[0])]
            return Finding(False, f"the condition's {name} does not reach pixel {pixel}.")
        if seen.shape[1] and not bool(seen.any(0).all()):
            number = int((~seen.any(0)).nonzero()[0])
            return Finding(False, f"number {number} of the condition's {name} reaches no pixel.")
    unreached = _unreached_pixels(model, seed)
    if unreached:
        return Finding(False, f"{unreached} pixels keep their parameters when the condition changes.")
    # an image of one row has nothing above: its vertical stack says nothing to anyone
    for deaf_part in (_deaf_stack, _deaf_layer) if model.info.height > 1 else ():
        part = deaf_part(model, seed)
        if part is not None:
            return Finding(False, f"the condition does not reach {part}.")
    return Finding(True, "it reaches every pixel, both stacks and every layer, with each of its numbers.")


def _parameters(model: ConditionalModel, images: Tensor, h: Condition) -> Tensor:
    parameters: Tensor = model.core(scaled(images, model.likelihood.levels, torch.float64), model.core.terms(h))
    return parameters


@torch.no_grad()
def _unreached_pixels(model: ConditionalModel, seed: int) -> int:
    """Pixels whose parameters were the same under both conditions of every trial."""
    unreached = torch.ones(model.info.height, model.info.width, dtype=torch.bool, device=model.device)
    for number in range(TRIALS):
        image = random_images(model, 2, seed, "reach", number)
        one, other = (random_condition(model, 2, seed, "reach", number, k) for k in (0, 1))
        twin = shaken(model, seed, number)
        unreached &= (_parameters(twin, image, one) == _parameters(twin, image, other)).all(0).all(0)
        if not bool(unreached.any()):
            break
    return int(unreached.sum())


@torch.no_grad()
def _deaf_stack(model: ConditionalModel, seed: int) -> str | None:
    """The stack that gives the same under other conditions, each stack taken by itself."""
    deaf: set[str] | None = None
    for number in range(TRIALS):
        core = shaken(model, seed, number).core
        x = scaled(random_images(model, 2, seed, "stacks", number), model.likelihood.levels, torch.float64)
        one, other = (core.terms(random_condition(model, 2, seed, "stacks", number, k)) for k in (0, 1))
        above, above_other = core.vertical(x, one), core.vertical(x, other)
        same = {
            f"the vertical stack (layer {k})"
            for k, (a, b) in enumerate(zip(above, above_other, strict=True))
            if torch.equal(a, b)
        }
        if torch.equal(core.horizontal(x, above, one), core.horizontal(x, above, other)):
            same.add("the horizontal stack")
        deaf = same if deaf is None else deaf & same
        if not deaf:
            return None
    return min(deaf or {"any stack"})


def _deaf_layer(model: ConditionalModel, seed: int) -> str | None:
    """The name of a layer's condition weights that the parameters of no pixel depended on in any trial."""
    deaf: set[str] = set()
    for number in range(TRIALS):
        twin = shaken(model, seed, number)
        layers = {name: part for name, part in twin.core.named_modules() if isinstance(part, ConditionBias)}
        weights = {
            f"{name}.{kind}": weight for name, part in layers.items() for kind, weight in part.named_parameters()
        }
        for weight in weights.values():
            weight.requires_grad_()
        images, h = random_images(model, 2, seed, "layers", number), random_condition(model, 2, seed, "layers", number)
        try:
            gradients = torch.autograd.grad(
                _parameters(twin, images, h).sum(), list(weights.values()), allow_unused=True
            )
        finally:
            twin.requires_grad_(False)
        same = {name for name, g in zip(weights, gradients, strict=True) if g is None or not bool(g.any())}
        deaf = same if number == 0 else deaf & same
        if not deaf:
            return None
    return min(deaf)


@torch.no_grad()
def _sampling(model: ConditionalModel, seed: int, drawn: Callable[[int], None]) -> Finding:
    """Two images by every sampler, some pixels given; all pixels free as well where that is quickly done."""
    likelihood, info = model.likelihood, model.info
    H, W = info.height, info.width
    affordable = int(SAMPLING_OPERATIONS / (2 * likelihood.passes * forward_operations(model)))
    free = np.sort(streams.permutation(H * W, seed, "free pixels")[: max(4, min(affordable, 3 * H * W // 4))])
    given = torch.ones(H * W, dtype=torch.bool)
    given[torch.from_numpy(free)] = False
    given = given.view(H, W)
    known = random_images(model, 1, seed, "given").cpu()
    h = random_condition(model, 1, seed, "sampling")
    cases: list[tuple[Tensor | None, Tensor | None]] = [(known, given)]
    if affordable >= H * W:
        cases.append((None, None))
    uniforms = noise(seed, [0, 1], likelihood.planes, H, W).to(model.device)
    for known_or_none, mask in cases:
        pictures = {}
        for name in SAMPLERS:
            x = model.sample(h, 2, seed, sampler=name, known=known_or_none, mask=mask, tile=2).to(model.device)
            pictures[name] = x
            drawn(int((~given).sum()) if mask is not None else H * W)
            kept = torch.zeros(H, W, dtype=torch.bool) if mask is None else mask
            kept = kept.to(model.device)
            if mask is not None and not torch.equal(x[:, :, kept], known.to(x.device).expand_as(x)[:, :, kept]):
                return Finding(False, f"the {name} sampler changes given pixels.")
            parameters = _parameters(model, x, h.expand(2))
            again = x
            for step in range(likelihood.passes):
                again = likelihood.draw(parameters, again, uniforms, step)
            wrong = ((again != x).any(1) & ~kept).nonzero().tolist()
            if wrong:
                _, row, column = wrong[0]
                return Finding(
                    False,
                    f"the {name} sampler's pixel ({row}, {column}) is not what its noise picks from the finished "
                    f"image's parameters; in all {len(wrong)} such pixels.",
                )
        if any(not torch.equal(x, pictures["naive"]) for x in pictures.values()):
            return Finding(False, f"the samplers {', '.join(pictures)} draw different images from the same noise.")
    return Finding(
        True, f"{int((~given).sum())} pixels of two images are what their noise picks; given pixels are kept."
    )
