"""Proof rather than trust: the properties that make a model an exact density, shown on the very weights it has.

Everything runs on a copy in float64. A property is true, false, or None where it does not apply.

Legend: B images, C channels, V values of a sub-pixel, H x W pixels; J colours whose parameters are told apart (C where
the likelihood orders the colours, else 1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from condgen import streams
from condgen.cores.pixelcnnpp import PixelCNNpp
from condgen.evaluate.draws import sampling_finding
from condgen.evaluate.reach import condition_finding
from condgen.evaluate.sight import LEAST_ROUNDS, Sight, look, probed_pixels
from condgen.evaluate.trial import Finding, in_float64, parameters_of, random_condition, random_images
from condgen.likelihoods import LogisticMixture
from condgen.model import ConditionalModel
from condgen.progress import Progress

SUM_TOLERANCE = 1e-10
CLASSIC_TOLERANCE = 2e-5
"""How far from 1 the original's rule for tiny probabilities may take the sum of a pixel's probabilities."""


def verify(model: ConditionalModel, *, seed: int = 0, quiet: bool | None = None) -> dict[str, bool | None]:
    """Whether each property holds: ``findings`` without the sentences."""
    return {name: finding.holds for name, finding in findings(model, seed=seed, quiet=quiet).items()}


def findings(model: ConditionalModel, *, seed: int = 0, quiet: bool | None = None) -> dict[str, Finding]:
    """What was found about each property of ``model``, which is left as it is.

    - ``causality``: no parameter depends on a later pixel, or on a colour of its own pixel that it may not know.
      Neither in evaluation nor in training, under dropout.
    - ``coverage``: the parameters depend on every channel of exactly the pixels that ``core.sees`` promises; the
      sentence says of how many earlier ones they do not.
    - ``colour_order``: on its own pixel, colour j's parameters depend on the colours before j, on all of them and on
      nothing else; on none of them where the likelihood takes whole pixels.
    - ``normalisation``: the probabilities of a sub-pixel's values sum to 1 within 1e-10, and the model's
      log-probability is the sum of theirs.
    - ``condition``: it reaches every pixel, both stacks and every layer, with each of its numbers, and a map each
      layer at its own place.
    - ``sampling``: every pixel drawn is the one that its noise picks from the finished image's parameters, and is
      picked with the probability that the likelihood gives it; given pixels are kept; all samplers agree.

    Images of more than 16x16 pixels are probed at a sample of pixels, chosen by ``seed``.
    """
    model = in_float64(model)
    pixels = probed_pixels(model, seed)
    promised = _promised_pixels(model, pixels)
    with torch.backends.cudnn.flags(enabled=False):  # cuDNN may convolve by Fourier transform, which has no exact zeros
        with Progress("probing", LEAST_ROUNDS * len(pixels), "probes", quiet) as progress:
            sight = look(model, pixels, promised | _promised_colours(model, pixels), seed, probed=progress.advance)
        found = {
            "causality": _causality(model, sight),
            "coverage": _coverage(model, sight, promised),
            "colour_order": _colour_order(model, sight),
            "normalisation": _normalisation(model, seed),
            "condition": condition_finding(model, sight, seed),
        }
        if found["causality"].holds:
            found["sampling"] = sampling_finding(model, seed, quiet)
        else:  # whatever a sampler draws from such a model is not a sample of it, and some would never end
            found["sampling"] = Finding(False, "not tried: the model looks ahead.")
    return found


def _promised_pixels(model: ConditionalModel, pixels: list[tuple[int, int]]) -> Tensor:
    """``core.sees`` for every probe, colour and input channel: bool (P, J, C, H, W)."""
    H, W = model.info.height, model.info.width
    C = model.likelihood.channels
    J = C if model.likelihood.colour_ordered else 1
    seen = torch.stack([model.core.sees(row, column, H, W) for row, column in pixels])
    return seen[:, None, None].expand(-1, J, C, H, W)


def _promised_colours(model: ConditionalModel, pixels: list[tuple[int, int]]) -> Tensor:
    """What the parameters may know of their own pixel: bool (P, J, C, H, W), true at that pixel alone."""
    allowed = _allowed_colours(model)
    promised = torch.zeros(len(pixels), *allowed.shape, model.info.height, model.info.width, dtype=torch.bool)
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
        f"no parameters of {len(sight.pixels)} probed pixels depend on the pixel itself or a later one, in evaluation "
        f"and in training ({sight.images} random images).",
    )


def _coverage(model: ConditionalModel, sight: Sight, promised: Tensor) -> Finding:
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
    shaken_too = f" ({sight.shaken} of them with other weights of the same architecture)" if sight.shaken else ""
    return Finding(
        True,
        f"{len(sight.pixels)} probed pixels{shaken_too} see exactly what is promised{_share(model, sight, promised)}.",
    )


def _share(model: ConditionalModel, sight: Sight, promised: Tensor) -> str:
    """How many of the earlier pixels the promise leaves out, in words."""
    earlier = {(row, column): row * model.info.width + column for row, column in sight.pixels}
    missed = {pixel: earlier[pixel] - int(promised[p, 0, 0].sum()) for p, pixel in enumerate(sight.pixels)}
    short = sum(number > 0 for number in missed.values())
    if not short:
        return ", which is every earlier pixel"
    worst = max(missed, key=lambda pixel: missed[pixel])
    cause, remedy = "The field is smaller than the image", "more layers or larger kernels see farther"
    if isinstance(model.core, PixelCNNpp):
        cause, remedy = "The published geometry misses some early pixels", "model.full_sight closes this hole"
        if not model.core.short_cuts and len(model.core.down) > 1:
            cause = "Without model.short_cuts all goes through the coarsest scale, past even the nearest neighbours"
            remedy = "model.short_cuts brings those back, model.full_sight all of them"
    return (
        f". {cause}: {short} of the {len(missed)} miss some, {worst} the most, {missed[worst]} of {earlier[worst]}; "
        f"{remedy}"
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
    parameters = parameters_of(model, x, h)
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
