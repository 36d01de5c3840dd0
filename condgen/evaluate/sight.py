"""What the parameters of a pixel depend on, measured: the exact zeros of the Jacobian in float64.

Each probe is an image of its own, so a batch of probes costs one forward and one backward pass. The backward pass
starts from a random combination of one pixel's parameters: where their Jacobian is zero it gives exactly 0.0 (sums of
products with zero), elsewhere it is not zero but by a coincidence that has probability zero. Every other image is
seen as in training: under dropout, with masks that its key fixes, and by whatever else differs in training mode.

Legend: P probes, J colours whose parameters are told apart, C input channels, H x W pixels, D and S of a condition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from condgen import streams
from condgen.evaluate.trial import forward_operations, on_grid, random_condition, random_images, shaken
from condgen.model import ConditionalModel

Pixel = tuple[int, int]

ALL_PIXELS = 16 * 16
"""Up to this many pixels every one is probed."""
SAMPLED = 40
"""Above, this many: corners, middles of the edges, the centre, and others by chance."""
OPERATIONS = 4e11
"""Multiplications and additions that probing may take: well below a minute on two cores in float64."""
LEAST_ROUNDS, MOST_ROUNDS = 2, 12
"""Images per probe: more than the least only where something promised was not seen, then with ``shaken`` weights."""


@dataclass
class Sight:
    """What was seen at any time, over all images of a probe.

    Attributes:
        pixels: the P probed pixels (row, column).
        of: bool (P, J, C, H, W): the parameters of colour j (J = 1: all of them) depend on that input.
        of_vector: bool (P, D), of the condition's vector.
        of_map: bool (P, S), of the condition's map at the pixel's own place.
        images: how many images were looked at.
        shaken: how many probes needed ``shaken`` weights to see all that was promised.
    """

    pixels: list[Pixel]
    of: Tensor
    of_vector: Tensor
    of_map: Tensor
    images: int = 0
    shaken: int = 0


def probed_pixels(model: ConditionalModel, seed: int) -> list[Pixel]:
    """Every pixel of a small image; of a larger one as many as ``SAMPLED`` and ``OPERATIONS`` allow, nine at least."""
    H, W = model.info.height, model.info.width
    every = [(r, c) for r in range(H) for c in range(W)]
    if len(every) <= ALL_PIXELS:
        return every
    special = [(r, c) for r in (0, H // 2, H - 1) for c in (0, W // 2, W - 1)]
    special = list(dict.fromkeys(special))
    backward = model.likelihood.channels if model.likelihood.colour_ordered else 1
    count = int(OPERATIONS / (LEAST_ROUNDS * forward_operations(model) * (1 + backward)))
    order = [every[i] for i in streams.permutation(len(every), seed, "probes")]
    return list(dict.fromkeys(special + order))[: max(len(special), min(count, SAMPLED))]


def look(
    model: ConditionalModel, pixels: Sequence[Pixel], promised: Tensor, seed: int, probed: Callable[[int], None]
) -> Sight:
    """Probes ``pixels`` on random images until all that is ``promised``, and every number of the condition, was seen;
    ``MOST_ROUNDS`` times at most, with ``shaken`` weights from round ``LEAST_ROUNDS`` on.

    Args:
        model: in float64 and evaluation mode, to which its core is put back.
        promised: bool (P, J, C, H, W), as ``Sight.of``.
        probed: called with the number of probes of a round when it ends.
    """
    info = model.info
    sight = Sight(
        list(pixels),
        torch.zeros_like(promised),
        torch.zeros(len(pixels), model.encoder.vector_size, dtype=torch.bool),
        torch.zeros(len(pixels), model.encoder.map_channels, dtype=torch.bool),
    )
    together = max(1, min(64, 4096 // (info.height * info.width)))  # images in memory at once
    for number in range(MOST_ROUNDS):
        unseen = (promised & ~sight.of).flatten(1).any(1)
        unseen |= ~sight.of_vector.all(1) | ~sight.of_map.all(1)
        left = range(len(pixels)) if number < LEAST_ROUNDS else unseen.nonzero()[:, 0].tolist()
        if number == LEAST_ROUNDS:
            sight.shaken = len(left)
        if len(left) == 0:
            break
        probing = shaken(model, seed, max(0, number - LEAST_ROUNDS + 1))
        probing.core.train(number % 2 == 1)
        for start in range(0, len(left), together):
            _probe(probing, sight, left[start : start + together], seed, number, start)
        probing.core.eval()
        sight.images += len(left)
        probed(len(left))
    return sight


def _probe(model: ConditionalModel, sight: Sight, chosen: Sequence[int], seed: int, *purpose: int) -> None:
    """One image for each of the ``chosen`` probes; what they see is added to ``sight``."""
    images = random_images(model, len(chosen), seed, "sight", *purpose)
    x = on_grid(model, images).requires_grad_()
    condition = random_condition(model, len(chosen), seed, "sight", *purpose)
    for part in condition.parts:
        part.requires_grad_()
    every = torch.arange(len(chosen))
    rows = torch.tensor([sight.pixels[p][0] for p in chosen])
    columns = torch.tensor([sight.pixels[p][1] for p in chosen])
    keys = None
    if model.core.training:
        keys = streams.example_keys(np.asarray(chosen), seed, "sight", *purpose).to(x.device)
    parameters = model.core(x, model.core.terms(condition), keys)[every, :, rows, columns]  # (P, outputs)
    for j in range(sight.of.shape[1]):
        outputs = parameters
        if model.likelihood.colour_ordered:
            # the likelihood says which parameters are colour j's, by what it reads for its table
            own = images[every, :, rows, columns]
            outputs = model.likelihood.table(parameters[..., None, None], own[..., None, None], j).flatten(1)
        mixed = torch.from_numpy(streams.uniforms(outputs.numel(), seed, "combination", j, *purpose) + 0.5)
        start = (outputs * mixed.view(outputs.shape).to(outputs.device)).sum()
        gradients = torch.autograd.grad(start, [x, *condition.parts], retain_graph=True, allow_unused=True)
        nonzero = [None if g is None else (g != 0).cpu() for g in gradients]  # NaN counts as seen
        of_image, rest = nonzero[0], nonzero[1:]
        here = torch.tensor(list(chosen))
        if of_image is not None:
            sight.of[here, j] |= of_image
        if condition.vector is not None:
            if (of_vector := rest.pop(0)) is not None:
                sight.of_vector[here] |= of_vector
        if condition.map is not None and (of_map := rest.pop(0)) is not None:
            sight.of_map[here] |= of_map[every, :, rows, columns]
