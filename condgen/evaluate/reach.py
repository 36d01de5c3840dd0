"""Whether the condition reaches everything it should: every pixel, both stacks, every layer, with all its numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from condgen import streams
from condgen.cores.conditioning import ConditionBias
from condgen.cores.two_streams import Feature
from condgen.evaluate.sight import Sight
from condgen.evaluate.trial import Finding, on_grid, parameters_of, random_condition, random_images, shaken
from condgen.model import ConditionalModel

TRIALS = 6
"""Times that the condition's reach is tried, with ``shaken`` weights from the second on, before it counts as deaf."""
PLACES = 64
"""Places at which it is asked whether a layer gets the map of its own."""


def condition_finding(model: ConditionalModel, sight: Sight, seed: int) -> Finding:
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
    parts = (_unconditioned_layer, _deaf_stack, _deaf_layer, _misplaced_layer)
    for deaf_part in parts if model.info.height > 1 else ():
        part = deaf_part(model, seed)
        if part is not None:
            return Finding(False, f"the condition does not reach {part}.")
    return Finding(True, "it reaches every pixel, both stacks and every layer, with each of its numbers.")


@torch.no_grad()
def _unreached_pixels(model: ConditionalModel, seed: int) -> int:
    """Pixels whose parameters were the same under both conditions of every trial."""
    unreached = torch.ones(model.info.height, model.info.width, dtype=torch.bool, device=model.device)
    for number in range(TRIALS):
        image = random_images(model, 2, seed, "reach", number)
        one, other = (random_condition(model, 2, seed, "reach", number, k) for k in (0, 1))
        twin = shaken(model, seed, number)
        unreached &= (parameters_of(twin, image, one) == parameters_of(twin, image, other)).all(0).all(0)
        if not bool(unreached.any()):
            break
    return int(unreached.sum())


@torch.no_grad()
def _deaf_stack(model: ConditionalModel, seed: int) -> str | None:
    """The stack that gives the same under other conditions, each stack taken by itself."""
    deaf: set[str] | None = None
    for number in range(TRIALS):
        core = shaken(model, seed, number).core
        x = on_grid(model, random_images(model, 2, seed, "stacks", number))
        one, other = (core.terms(random_condition(model, 2, seed, "stacks", number, k)) for k in (0, 1))
        above, above_other = core.vertical(x, one), core.vertical(x, other)
        same = {
            f"the vertical stack (layer {k})"
            for k, (a, b) in enumerate(zip(_conditioned(core, above), _conditioned(core, above_other), strict=True))
            if torch.equal(a, b)
        }
        if torch.equal(core.horizontal(x, above, one), core.horizontal(x, above, other)):
            same.add("the horizontal stack")
        deaf = same if deaf is None else deaf & same
        if not deaf:
            return None
    return min(deaf or {"any stack"})


def _unconditioned_layer(model: ConditionalModel, seed: int) -> str | None:
    """The name of a layer that has less room for a condition than others of its kind."""
    weights = {
        (name, layer): sum(
            w.numel() for part in layer.children() if isinstance(part, ConditionBias) for w in part.parameters()
        )
        for name, layer in model.core.named_modules()
    }
    most: dict[type, int] = {}
    for (_, layer), number in weights.items():
        most[type(layer)] = max(number, most.get(type(layer), 0))
    return next((name for (name, layer), number in weights.items() if number < most[type(layer)]), None)


def _conditioned(core: Any, vertical: list[Any]) -> list[Tensor]:
    """Of what ``core.vertical`` returned, each layer's share, without what is made of the image alone."""
    features = [word.x for word in vertical if isinstance(word, Feature)]
    return features or vertical[: len(core.layers)]


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
                parameters_of(twin, images, h).sum(), list(weights.values()), allow_unused=True
            )
        finally:
            twin.requires_grad_(False)
        same = {name for name, g in zip(weights, gradients, strict=True) if g is None or not bool(g.any())}
        deaf = same if number == 0 else deaf & same
        if not deaf:
            return None
    return min(deaf)


def _misplaced_layer(model: ConditionalModel, seed: int) -> str | None:
    """The name of a layer that gets the map of another place: what it adds at a place, on its own scale, does not
    depend on the map there. A map is no part of the image, so neither causality nor coverage would tell.
    """
    core, (H, W) = model.core, (model.info.height, model.info.width)
    places = torch.from_numpy(streams.permutation(H * W, seed, "places")[:PLACES])  # each in a map of its own
    rows, columns = places // W, places % W
    every = torch.arange(len(places))
    condition = random_condition(model, len(places), seed, "places")
    for part in condition.parts:
        part.requires_grad_()
    terms = core.terms(condition)
    for name, layer in core.named_modules():
        if not isinstance(layer, ConditionBias) or layer.of_map is None:
            continue
        map = terms.maps[layer.scale]  # (P, S, H / step, W / step)
        step = H // map.shape[2]
        nothing = map.new_zeros(len(places), layer.of_map.out_channels, *map.shape[2:])
        added = terms.added(nothing, layer)[every, :, rows // step, columns // step]
        (gradient,) = torch.autograd.grad(added.sum(), terms.maps[0], retain_graph=True)
        own = gradient[every, :, rows // step * step, columns // step * step]  # (P, S)
        if not bool((own != 0).any(1).all()):
            return f"{name} at its own place"
    return None
