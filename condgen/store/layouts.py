"""Where the weights of PixelCNN++ as other programs name and shape them lie in condgen's core.

Two programs: the original in TensorFlow (openai/pixel-cnn) and its port to PyTorch (pclucas14/pixel-cnn-pp). Both make
the same layers; ``layers`` walks condgen's in the order in which the original makes and counts them.

Legend: F filters, A features that enter a resnet beside its own, w 2 where the nonlinearity doubles the channels (x and
-x), else 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from condgen.cores.pixelcnnpp import PixelCNNpp
from condgen.cores.two_streams import GatedResnet
from condgen.cores.weight_norm import factors


@dataclass(frozen=True)
class Layer:
    """A layer as the other programs know it."""

    kind: str
    """conv2d, deconv2d, dense or conditional_weights: the original counts each of these."""
    port: str
    """The port's name of the module; it has none for conditions."""
    module: Any
    widening: int = 1


def layers(core: PixelCNNpp) -> Iterator[Layer]:
    """All layers with weights, in the original's order of creation."""
    yield Layer("conv2d", "u_init.conv", core.start_above)
    yield Layer("conv2d", "ul_init.0.conv", core.start_row)
    yield Layer("conv2d", "ul_init.1.conv", core.start_left)
    # the port calls by "up" what comes first, as the original's comments do
    for half, port, kind, resize in (
        (core.down, "up_layers", "conv2d", "downsize_{}_stream.{}.conv"),
        (core.up, "down_layers", "deconv2d", "upsize_{}_stream.{}.deconv"),
    ):
        for k, block in enumerate(half):
            for i, (u, ul) in enumerate(zip(block.u, block.ul, strict=True)):
                yield from _of_resnet(u, f"{port}.{k}.u_stream.{i}")
                yield from _of_resnet(ul, f"{port}.{k}.ul_stream.{i}")
            if block.resizes:
                yield Layer(kind, resize.format("u", k), block.u_resize)
                yield Layer(kind, resize.format("ul", k), block.ul_resize)
    yield Layer("dense", "nin_out.lin_a", core.out)


def _of_resnet(resnet: GatedResnet, port: str) -> Iterator[Layer]:
    yield Layer("conv2d", f"{port}.conv_input.conv", resnet.conv_in)
    if resnet.nin is not None:
        yield Layer("dense", f"{port}.nin_skip.lin_a", resnet.nin, resnet.activation.widening)
    yield Layer("conv2d", f"{port}.conv_out.conv", resnet.conv_out)
    if resnet.condition.of_vector is not None:
        yield Layer("conditional_weights", "", resnet.condition.of_vector)


@dataclass(frozen=True)
class Entry:
    """A tensor of the file and its place in the core."""

    shape: tuple[int, ...]
    """In the file."""
    place: Tensor
    """A view of the core's parameter that runs through its numbers in the file's order."""
    normalised: int | None = None
    """Of a V: the axis whose slices the file's program divides by their norms."""


def original_entries(core: PixelCNNpp) -> dict[str, Entry]:
    """The original's variables, by name, in its order of creation."""
    count: dict[str, int] = {}
    entries: dict[str, Entry] = {}
    for layer in layers(core):
        name = f"model/{layer.kind}_{count.setdefault(layer.kind, 0)}"
        count[layer.kind] += 1
        if layer.kind == "conditional_weights":
            weight = layer.module.weight.t()  # (classes, 2F)
            entries[f"{name}/hw"] = Entry(tuple(weight.shape), weight)
            continue
        g, v = factors(layer.module)
        outputs = g.numel()
        if layer.kind == "dense":
            signs = _signs_first(layer, v)
            entries[f"{name}/V"] = Entry((v.shape[1], outputs), signs.permute(1, 2, 3, 0), 1)
        else:  # (out, in, rows, columns), transposed (in, out, rows, columns): the same permutation
            place = v.permute(2, 3, 1, 0)
            entries[f"{name}/V"] = Entry(tuple(place.shape), place, 2 if layer.kind == "deconv2d" else 3)
        entries[f"{name}/g"] = Entry((outputs,), g.view(-1))
        entries[f"{name}/b"] = Entry((outputs,), layer.module.bias)
    return entries


def port_entries(core: PixelCNNpp) -> dict[str, Entry]:
    """The port's state dict, by name; of transposed convolutions as ``per_output`` leaves them."""
    entries: dict[str, Entry] = {}
    for layer in layers(core):
        g, v = factors(layer.module)
        place: Tensor = v
        shape = tuple(v.shape)
        if layer.kind == "dense":
            place, shape = _signs_first(layer, v), shape[:2]
        ones = (1,) * (len(shape) - 1)
        entries[f"{layer.port}.bias"] = Entry((g.numel(),), layer.module.bias)
        entries[f"{layer.port}.weight_g"] = Entry((g.numel(), *ones), g.view(-1))
        entries[f"{layer.port}.weight_v"] = Entry(shape, place, 0)
    return entries


def _signs_first(layer: Layer, v: Tensor) -> Tensor:
    """A 1x1 convolution's V (out, A w F, 1, 1) as (out, w, A, F).

    The other programs put the features that enter side by side before the nonlinearity, which makes all the x come
    before all the -x; here each feature passes it by itself.
    """
    return v[:, :, 0, 0].unflatten(1, (len(layer.module.inputs), layer.widening, -1)).transpose(1, 2)


def per_output(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The port's state dict with g per output channel for transposed convolutions too.

    The port normalises their V over everything but the *input* channel (torch's default). Their effective kernel is
    kept: it becomes V, and its norm per output channel g. Where an output's kernel is zero, V is anything and g is 0.
    """
    found = dict(tensors)
    for name in tensors:
        if name.endswith(".deconv.weight_v"):
            other = name.removesuffix("v") + "g"
            g, v = tensors[other].double(), tensors[name].double()  # (in, 1, 1, 1), (in, out, rows, columns)
            kernel = v * (g / torch.linalg.vector_norm(v, dim=(1, 2, 3), keepdim=True))
            zero = norms(kernel, 1) == 0
            found[name] = torch.where(zero.view(1, -1, 1, 1), 1.0, kernel)
            norm = torch.linalg.vector_norm(kernel, dim=(0, 2, 3))
            found[other] = torch.where(zero, 0.0, norm).view(-1, 1, 1, 1)
    return found


def norms(v: Tensor, axis: int) -> Tensor:
    """The norms of V's slices along ``axis``, in fp32 as a model computes them: tiny numbers have the norm 0."""
    found: Tensor = torch.linalg.vector_norm(v.float(), dim=[d for d in range(v.dim()) if d != axis])
    return found
