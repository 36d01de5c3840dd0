"""The sizes of a PixelCNN++, as the shapes of its published weights tell them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from condgen.errors import ModelError, shown
from condgen.likelihoods import LogisticMixture
from condgen.store.foreign import ForeignWeights

_MOST = {"filters": 4096, "resnets": 100, "mixtures": 100, "classes": 4096}


@dataclass(frozen=True)
class Sizes:
    """What the shapes of published weights say of their model."""

    filters: int
    resnets: int
    mixtures: int
    channels: int
    classes: int
    """0: unconditional."""
    widening: int


def _side(shapes: Mapping[str, tuple[int, ...]], name: str, axis: int, rank: int, found: ForeignWeights) -> int:
    if name not in shapes:
        raise ModelError(
            f"{shown(found.path)} lacks {name}, without which the model's sizes are unknown; save all weights.",
            file=found.path,
        )
    if len(shapes[name]) != rank:
        raise ModelError(
            f"{shown(found.path)}: {name} is {shapes[name]}, but has {rank} dimensions in every such model; save the "
            "weights again.",
            file=found.path,
        )
    return shapes[name][axis]


def original_sizes(shapes: Mapping[str, tuple[int, ...]], found: ForeignWeights) -> Sizes:
    """Of the original's variables. Raises ModelError: one that tells a size is missing or of another rank."""

    def side(name: str, axis: int, rank: int) -> int:
        return _side(shapes, f"model/{name}", axis, rank, found)

    filters, channels = side("conv2d_0/V", 3, 4), side("conv2d_0/V", 2, 4) - 1
    resnets = max(1, round((_count(shapes, r"model/conv2d_(\d{1,6})/V") - 15) / 24))  # there are 24 R + 15
    outputs = side(f"dense_{9 * resnets + 4}/b", 0, 1)
    classes = side("conditional_weights_0/hw", 0, 2) if any("/conditional_weights_" in name for name in shapes) else 0
    wide = side("conv2d_3/V", 2, 4)
    return Sizes(filters, resnets, _mixtures(outputs, channels, found), channels, classes, _widening(wide, filters))


def port_sizes(shapes: Mapping[str, tuple[int, ...]], found: ForeignWeights) -> Sizes:
    """Of the port's state dict. Raises ModelError: as ``original_sizes``."""

    def side(name: str, axis: int, rank: int) -> int:
        return _side(shapes, name, axis, rank, found)

    filters, channels = side("u_init.conv.weight_v", 0, 4), side("u_init.conv.weight_v", 1, 4) - 1
    resnets = _count(shapes, r"up_layers\.0\.u_stream\.(\d{1,6})\..*")
    wide = side("up_layers.0.u_stream.0.conv_input.conv.weight_v", 1, 4)
    outputs = side("nin_out.lin_a.bias", 0, 1)
    return Sizes(filters, resnets, _mixtures(outputs, channels, found), channels, 0, _widening(wide, filters))


def _count(names: Mapping[str, object], pattern: str) -> int:
    """One more than the highest number that ``pattern`` finds in a name; 0 where it finds none."""
    return max((int(match[1]) + 1 for name in names if (match := re.fullmatch(pattern, name))), default=0)


def _widening(wide: int, filters: int) -> int:
    return 2 if wide == 2 * filters else 1


def _mixtures(outputs: int, channels: int, found: ForeignWeights) -> int:
    if channels not in (1, 3):
        raise ModelError(
            f"{shown(found.path)}: the first layer reads {channels} colour channels, and the programs whose weights "
            "are known here read 3 or 1; give weights of such a model.",
            file=found.path,
        )
    each = LogisticMixture(channels, 256, 1).outputs
    if outputs < each or outputs % each:
        raise ModelError(
            f"{shown(found.path)}: the last layer gives {outputs} numbers a pixel, and a mixture of logistics of "
            f"{channels} colour channels takes a multiple of {each}; give weights of such a model.",
            file=found.path,
        )
    return outputs // each


def check_sizes(sizes: Sizes, found: ForeignWeights) -> None:
    """Raises ModelError: a size that no such model has, before one is made."""
    for name, most in _MOST.items():
        value = getattr(sizes, name)
        least = {"classes": 0, "filters": sizes.channels}.get(name, 1)
        if not least <= value <= most:
            raise ModelError(
                f"{shown(found.path)}: by its shapes the model has {value:,} {name}, and {least} to {most:,} are "
                "possible; give weights of such a model.",
                file=found.path,
            )
