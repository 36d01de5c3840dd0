"""PixelCNN++ against a slow witness: the paper's tables written out tap by tap on the weights, without the layers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from building import condition_for, random_images, tiny_model
from torch import Tensor

from condgen import streams
from condgen.condition import Condition
from condgen.cores.conditioning import Conditioning
from condgen.cores.layers import Dropout, Mask
from condgen.cores.pixelcnnpp import PixelCNNpp
from condgen.likelihoods import scaled
from condgen.model import ConditionalModel

Weights = dict[str, Tensor]


class Witness:
    """The network of section 2 and Figure 2, from a core's state dict and its numbers alone.

    ``kept``: the masks of dropout, (B, channels, H, W) each, in the order of their use: all of u, then all of ul.
    """

    def __init__(
        self, weights: Weights, nonlinearity: str, field: int, short_cuts: bool, kept: Iterator[Tensor] | None
    ):
        self.weights, self.nonlinearity, self.m, self.short_cuts = weights, nonlinearity, field // 2, short_cuts
        self.kept = kept

    # single layers

    def f(self, x: Tensor) -> Tensor:
        if self.nonlinearity == "concat_elu":
            return F.elu(torch.cat([x, -x], dim=1))
        return F.elu(x) if self.nonlinearity == "elu" else F.relu(x)

    def kernel(self, name: str, output_dim: int = 0) -> tuple[Tensor, Tensor]:
        """W = g V / ||V||, output channel by output channel, as (outputs, inputs, rows, columns), and the bias."""
        g, V = (self.weights[f"{name}.parametrizations.weight.original{k}"] for k in (0, 1))
        V = V.transpose(0, 1) if output_dim else V
        rows = [g.flatten()[o] * V[o] / V[o].square().sum().sqrt() for o in range(len(V))]
        return torch.stack(rows), self.weights[f"{name}.bias"][:, None, None]

    def conv(self, name: str, x: Tensor, stream: str, stride: int = 1) -> Tensor:
        """Output (r, c) reads rows s r - kh + 1 .. s r, and columns s c - m .. s c + m (u) or s c - kw + 1 .. s c."""
        W, b = self.kernel(name)
        kh, kw = W.shape[2:]
        left = kw // 2 if stream == "u" else kw - 1
        H, Wd = x.shape[2:]
        canvas = F.pad(x, (left, kw - 1 - left, kh - 1, 0))  # left, right, top, bottom
        total = b
        for i, j in itertools.product(range(kh), range(kw)):
            total = total + torch.einsum(
                "oi,bihw->bohw", W[:, :, i, j], canvas[:, :, i : i + H : stride, j : j + Wd : stride]
            )
        return total

    def up(self, name: str, x: Tensor, stream: str) -> Tensor:
        """Fine (2 i + a, 2 j + b - left) += W[a, b] x[i, j], place by place; what falls outside is lost."""
        W, b = self.kernel(name, 1)
        left = self.m if stream == "u" else 0
        H, Wd = x.shape[2:]
        fine = torch.zeros(len(x), len(W), 2 * H, 2 * Wd, dtype=x.dtype)
        for i, j, a, c in itertools.product(range(H), range(Wd), range(W.shape[2]), range(W.shape[3])):
            row, column = 2 * i + a, 2 * j + c - left
            if row < 2 * H and 0 <= column < 2 * Wd:
                fine[:, :, row, column] += x[:, :, i, j] @ W[:, :, a, c].T
        return fine + b

    def pointwise(self, name: str, x: Tensor) -> Tensor:
        W, b = self.kernel(name)
        return torch.einsum("oi,bihw->bohw", W[:, :, 0, 0], x) + b

    def resnet(self, name: str, x: Tensor, stream: str, auxiliary: list[Tensor], h: Any) -> Tensor:
        c1 = self.conv(f"{name}.conv_in", self.f(x), stream)
        if auxiliary:
            c1 = c1 + self.pointwise(f"{name}.nin", torch.cat([self.f(a) for a in auxiliary], dim=1))
        hidden = self.f(c1)
        if self.kept is not None:
            hidden = hidden * next(self.kept).to(x.dtype) * 2
        c2 = self.conv(f"{name}.conv_out", hidden, stream)
        vector, maps = h
        if f"{name}.condition.of_vector.weight" in self.weights:
            c2 = c2 + (vector @ self.weights[f"{name}.condition.of_vector.weight"].T)[:, :, None, None]
        if f"{name}.condition.of_map.weight" in self.weights:
            map = next(map for map in maps if map.shape[2:] == x.shape[2:])
            c2 = c2 + torch.einsum("oi,bihw->bohw", self.weights[f"{name}.condition.of_map.weight"][:, :, 0, 0], map)
        filters = x.shape[1]
        return x + c2[:, :filters] / (1 + torch.exp(-c2[:, filters:]))

    def count(self, prefix: str) -> int:
        """Modules in the list of this name."""
        return len({name[len(prefix) + 1 :].split(".")[0] for name in self.weights if name.startswith(prefix + ".")})

    # the network

    def stream(self, stream: str, start: Tensor, us: Iterator[Tensor] | None, h: Any) -> tuple[Tensor, list[Tensor]]:
        """One stream down and up; ``us``: u after each of its resnets, for ul. Also its own, for the other to use."""
        x, left, found = start, [start], []

        def resnet(name: str, short_cut: bool) -> None:
            nonlocal x
            auxiliary = [] if us is None else [next(us)]
            if short_cut:
                auxiliary.append(left.pop())
            x = self.resnet(name, x, stream, auxiliary, h)
            found.append(x)

        scales = self.count("down")
        for k in range(scales):
            for r in range(self.count(f"down.{k}.{stream}")):
                resnet(f"down.{k}.{stream}.{r}", False)
                left.append(x)
            if k < scales - 1:
                x = self.conv(f"down.{k}.{stream}_resize", x, stream, stride=2)
                left.append(x)
        assert torch.equal(left.pop(), x)
        for k in range(scales):
            for r in range(self.count(f"up.{k}.{stream}")):
                resnet(f"up.{k}.{stream}.{r}", self.short_cuts)
            if k < scales - 1:
                x = self.up(f"up.{k}.{stream}_resize", x, stream)
        assert not left or not self.short_cuts
        return x, found

    def recalled(self, image: Tensor) -> Tensor:
        seen = self.f(self.pointwise("recall.what", image)).flatten(2)
        means = [seen[:, :, :t].mean(2) if t else seen[:, :, 0] * 0 for t in range(seen.shape[2])]
        return self.pointwise("recall.told", torch.stack(means, dim=2).view(*seen.shape[:2], *image.shape[2:]))

    def __call__(self, x: Tensor, vector: Tensor | None, maps: list[Tensor]) -> Tensor:
        image = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        above, row, left = torch.zeros(3, len(x), self.weights["start_row.bias"].numel(), *x.shape[2:], dtype=x.dtype)
        above[:, :, 1:] = self.conv("start_above", image, "u")[:, :, :-1]
        row[:, :, 1:] = self.conv("start_row", image, "u")[:, :, :-1]
        left[..., 1:] = self.conv("start_left", image, "ul")[..., :-1]
        start = row + left
        if "recall.what.bias" in self.weights:
            start = start + self.recalled(image)
        _, us = self.stream("u", above, None, (vector, maps))
        ul, _ = self.stream("ul", start, iter(us), (vector, maps))
        return self.pointwise("out", F.elu(ul))


def conditions_of(core: PixelCNNpp, h: Condition) -> tuple[Tensor | None, list[Tensor]]:
    """The vector as the layers get it and the maps at every scale, by the weights alone."""
    weights = core.state_dict()
    vector, maps = h.vector, []
    if h.map is not None:
        maps.append(h.map)
    if core.conditioning.draw_map is not None and h.vector is not None:
        maps.append(core.conditioning.draw_map(h.vector))
    if vector is not None and "conditioning.project.weight" in weights:
        vector = vector @ weights["conditioning.project.weight"].T
    if not maps:
        return vector, []
    scaled_maps = [torch.cat(maps, dim=1)]
    for k in range(len(core.down) - 1):
        W, b = (weights[f"conditioning.shrink.{k}.{name}"] for name in ("weight", "bias"))
        finer = F.elu(scaled_maps[-1]) if k else scaled_maps[-1]
        H, Wd = finer.shape[2:]
        canvas = F.pad(finer, (1, 1, 1, 1))
        taps = itertools.product(range(3), range(3))
        coarse = [
            torch.einsum("oi,bihw->bohw", W[:, :, i, j], canvas[:, :, i : i + H : 2, j : j + Wd : 2]) for i, j in taps
        ]
        scaled_maps.append(torch.stack(coarse).sum(0) + b[:, None, None])
    return vector, scaled_maps


def trained(model: ConditionalModel, seed: int = 0) -> ConditionalModel:
    """Weights as training might leave them: biases and g away from where they start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.core.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return model


def compared(model: ConditionalModel, x: Tensor, h: Condition, keys: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The core's parameters and the witness's, (B, outputs, H, W)."""
    core: PixelCNNpp = model.core
    masks: list[Tensor] = []
    sound = Dropout.mask

    def mask(self: Dropout, shape: tuple[int, ...]) -> Mask:
        drawn = sound(self, shape)
        masks.append(drawn.kept)
        return drawn

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(Dropout, "mask", mask)
        parameters = core(x, core.terms(h), keys)
        given = iter(masks) if masks else None
        witness = Witness(core.state_dict(), core.activation.nonlinearity, core.field, core.short_cuts, given)
        expected = witness(x, *conditions_of(core, h))
        assert given is None or next(given, None) is None  # every mask was used
    return parameters, expected


BUILDS: list[dict[str, Any]] = [
    {}, {"resnets": 2}, {"scales": 1}, {"scales": 2}, {"scales": 4}, {"short_cuts": False}, {"field": 5},
    {"field": 5, "scales": 2, "short_cuts": False}, {"nonlinearity": "elu"}, {"nonlinearity": "relu", "resnets": 2},
    {"full_sight": True}, {"full_sight": True, "nonlinearity": "elu", "field": 5},
]  # fmt: skip


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("build", BUILDS, ids=str)
def test_the_core_is_the_witness(build: dict[str, Any], dropout: float) -> None:
    settings = {"core": "pixelcnn++", "dropout": dropout, **build}
    model = tiny_model("logistic_mixture", channels=3, width=16, conditioning="both", **settings)
    x, h = scaled(random_images(trained(model), 2), 4, torch.float64), condition_for(model, 2)
    keys = streams.example_keys(torch.arange(2).numpy(), 0) if dropout else None
    parameters, expected = compared(model, x, h, keys)
    torch.testing.assert_close(parameters, expected, rtol=1e-11, atol=1e-11)
    if dropout:
        assert not torch.allclose(parameters, compared(model, x, h)[0])


@pytest.mark.parametrize("conditioning", ["none", "global", "spatial", "map", "vector+map"])
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 4, 12), (4, 12, 4)])
def test_the_core_is_the_witness_whatever_it_is_conditioned_on(
    channels: int, height: int, width: int, conditioning: str
) -> None:
    model = tiny_model(
        "logistic_mixture", channels=channels, height=height, width=width, conditioning=conditioning, core="pixelcnn++"
    )
    x = scaled(random_images(trained(model), 2), 4, torch.float64)
    torch.testing.assert_close(*compared(model, x, condition_for(model, 2)), rtol=1e-11, atol=1e-11)


def test_kept_terms_are_the_same_terms() -> None:
    """In sampling, what the condition adds is computed once."""
    model = trained(tiny_model("logistic_mixture", conditioning="vector+map", core="pixelcnn++"))
    x, h = scaled(random_images(model, 2), 4, torch.float64), condition_for(model, 2)
    kept = model.core.terms(h, keep=True)
    for _ in range(2):
        torch.testing.assert_close(model.core(x, kept), model.core(x, model.core.terms(h)))


def test_images_in_any_memory_format() -> None:
    model = trained(tiny_model("logistic_mixture", channels=3, core="pixelcnn++"))
    x, terms = scaled(random_images(model, 2), 4, torch.float64), model.core.terms(Condition())
    expected = model.core(x.contiguous(), terms)
    torch.testing.assert_close(model.core(x.contiguous(memory_format=torch.channels_last), terms), expected)


# conditions


def test_a_long_vector_is_projected_once() -> None:
    narrow = tiny_model("logistic_mixture", conditioning="both", core="pixelcnn++", vector_width=2)
    x, h = scaled(random_images(trained(narrow), 2), 4, torch.float64), condition_for(narrow, 2)
    torch.testing.assert_close(*compared(narrow, x, h), rtol=1e-11, atol=1e-11)
    calls: list[Any] = []
    narrow.core.conditioning.project.register_forward_hook(lambda *arguments: calls.append(1))
    narrow.core(x, narrow.core.terms(h))
    assert len(calls) == 1
    assert narrow.core.conditioning.project.weight.shape == (2, 3)
    assert {tuple(w.shape) for name, w in narrow.core.state_dict().items() if "of_vector" in name} == {(8, 2)}
    wide = tiny_model("logistic_mixture", conditioning="both", core="pixelcnn++", vector_width=3)
    assert wide.core.conditioning.project is None
    assert {tuple(w.shape) for name, w in wide.core.state_dict().items() if "of_vector" in name} == {(8, 3)}


def test_a_map_reaches_every_resnet_of_every_scale() -> None:
    model = tiny_model("logistic_mixture", conditioning="map", core="pixelcnn++")
    h = condition_for(model)
    assert [tuple(map.shape) for map in model.core.terms(h).maps] == [(1, 2, 8, 8), (1, 2, 4, 4), (1, 2, 2, 2)]
    weights = {name: w for name, w in model.core.named_parameters() if "of_map" in name or "shrink" in name}
    assert len(weights) == 2 * (3 + 5) + 4  # 3 resnets down and 1 + 2 + 2 up in each stream; two strided convolutions
    x = scaled(random_images(model, 1), 4, torch.float64)
    gradients = torch.autograd.grad(model.core(x, model.core.terms(h)).sum(), list(weights.values()))
    assert all(bool(g.any()) for g in gradients)


# size


def core_of(filters: int, resnets: int = 5, vector_size: int = 0, **settings: Any) -> PixelCNNpp:
    own: dict[str, Any] = {
        "scales": 3,
        "field": 3,
        "nonlinearity": "concat_elu",
        "dropout": 0.5,
        "short_cuts": True,
        "full_sight": False,
    }
    conditioning = Conditioning(vector_size, 0, "global", 1, 32, 32, scales=3, vector_width=64)
    return PixelCNNpp(3, 100, conditioning, filters=filters, resnets=resnets, **(own | settings))


@pytest.mark.parametrize("filters", [8, 12])
def test_parameters_are_as_many_as_the_published_ones(filters: int) -> None:
    def count(core: PixelCNNpp) -> int:
        return sum(p.numel() for p in core.parameters())

    F = filters
    assert count(core_of(F)) == 2092 * F**2 + 648 * F + 200
    assert count(core_of(F, vector_size=10)) == 2092 * F**2 + 648 * F + 200 + 128 * 10 * F
    assert count(core_of(F, vector_size=512)) == 2092 * F**2 + 648 * F + 200 + 128 * 64 * F + 512 * 64
    # the path that shows every earlier pixel costs little: two 1x1 convolutions
    assert count(core_of(F, full_sight=True)) == count(core_of(F)) + (4 * F + 2 * F) + (2 * F * F + 2 * F)


@pytest.mark.parametrize("resnets", [1, 2, 5])
def test_layers_are_as_many_as_the_published_ones(resnets: int) -> None:
    R = resnets
    core = core_of(4, R)
    assert [len(block.u) for block in core.down] == [R] * 3 and [len(block.ul) for block in core.up] == [
        R,
        R + 1,
        R + 1,
    ]
    kernels = [tuple(w.shape[2:]) for name, w in core.state_dict().items() if name.endswith("original1")]
    transposed = sum("up." in name and "resize.bias" in name for name in core.state_dict())
    assert transposed == 4
    assert sum(kernel == (1, 1) for kernel in kernels) == 9 * R + 5
    assert sum(kernel != (1, 1) for kernel in kernels) - transposed == 24 * R + 15
    assert len(list(core.parameters())) == 99 * R + 72
    assert len(list(core_of(4, R, vector_size=3).parameters())) == 99 * R + 72 + 12 * R + 4


@pytest.mark.parametrize("field", [1, 2, 4])
def test_fields_that_cannot_be(field: int) -> None:
    with pytest.raises(ValueError, match="field must be odd"):
        core_of(4, 1, field=field)
