"""Whether the condition reaches everything it should: every pixel, both stacks, every layer, with all its numbers."""

from __future__ import annotations

import torch

from condgen.cores.conditioning import ConditionBias
from condgen.evaluate.sight import Sight
from condgen.evaluate.trial import Finding, on_grid, parameters_of, random_condition, random_images, shaken
from condgen.model import ConditionalModel

TRIALS = 6
"""Times that the condition's reach is tried, with ``shaken`` weights from the second on, before it counts as deaf."""


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
    for deaf_part in (_deaf_stack, _deaf_layer) if model.info.height > 1 else ():
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
            for k, (_, a, b) in enumerate(zip(core.layers, above, above_other, strict=False))  # not the linear path
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
                parameters_of(twin, images, h).sum(), list(weights.values()), allow_unused=True
            )
        finally:
            twin.requires_grad_(False)
        same = {name for name, g in zip(weights, gradients, strict=True) if g is None or not bool(g.any())}
        deaf = same if number == 0 else deaf & same
        if not deaf:
            return None
    return min(deaf)
