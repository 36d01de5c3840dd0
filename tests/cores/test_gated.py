"""The gated core against a slow witness that follows the paper pixel by pixel, and its promised field of view."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from building import condition_for, random_images, tiny_model
from torch import Tensor

from condgen.condition import Condition
from condgen.cores.conditioning import ConditionBias, DeconvolutionalMap
from condgen.cores.gated import GatedPixelCNN
from condgen.cores.layers import Dropout, colour_groups, colour_mask
from condgen.likelihoods import scaled
from condgen.model import ConditionalModel


def taken(a: Tensor, row: int, column: int) -> Tensor:
    """(B, maps, H, W) at one place, zeros outside."""
    if 0 <= row < a.shape[2] and 0 <= column < a.shape[3]:
        return a[:, :, row, column]
    return torch.zeros_like(a[:, :, 0, 0])


def slow_gate(a: Tensor) -> Tensor:
    p = a.shape[1] // 2
    return torch.tanh(a[:, :p]) * torch.sigmoid(a[:, p:])


def slow_term(bias: ConditionBias, vector: Tensor | None, map: Tensor | None, row: int, column: int) -> Any:
    """Equations 4 and 5 at one pixel: V h and V * s."""
    term: Any = 0
    if bias.of_vector is not None and vector is not None:
        term = term + vector @ bias.of_vector.weight.T
    if bias.of_map is not None and map is not None:
        term = term + map[:, :, row, column] @ bias.of_map.weight[:, :, 0, 0].T
    return term


def slow_masked(conv: Any, z: Tensor, row: int, column: int, groups_in: Any, groups_out: Any, strict: bool) -> Tensor:
    """A causal row convolution written out, colour by colour; ``strict`` is mask A."""
    reach = conv.weight.shape[3] - 1
    total = torch.zeros(len(z), conv.weight.shape[0], dtype=z.dtype)
    if conv.bias is not None:
        total = total + conv.bias
    for tap in range(reach + 1):
        value, weight = taken(z, row, column - reach + tap), conv.weight[:, :, 0, tap]
        for j in range(weight.shape[0]):
            for i in range(weight.shape[1]):
                current = tap == reach
                allowed = not current or (groups_in[i] < groups_out[j] if strict else groups_in[i] <= groups_out[j])
                if allowed:
                    total[:, j] = total[:, j] + weight[j, i] * value[:, i]
    return total


def slow_parameters(model: ConditionalModel, x: Tensor, h: Condition) -> Tensor:
    """Figure 2 and equations 2, 4 and 5, one pixel and one layer at a time."""
    core: GatedPixelCNN = model.core
    terms = core.terms(h)
    vector, map = terms.vector, terms.maps[0] if terms.maps else None
    B, C, H, W = x.shape
    colours = C if model.likelihood.colour_ordered else 1
    p = core.head_in.weight.shape[1]
    groups = [k % colours for k in range(p)]
    v, z, skips = x, x, torch.zeros(B, p, H, W, dtype=x.dtype)
    layer: Any
    for k, layer in enumerate(core.layers):
        weight = layer.vertical_conv.weight
        up, n = weight.shape[2] - 1, weight.shape[3]
        a = torch.zeros(B, 2 * p, H, W, dtype=x.dtype)
        link = torch.zeros(B, 2 * p, H, W, dtype=x.dtype)
        for r in range(H):
            for c in range(W):
                total = layer.vertical_conv.bias + slow_term(layer.vertical_bias, vector, map, r, c)
                for i in range(up + 1):
                    for j in range(n):
                        total = total + taken(v, r - up + i, c - n // 2 + j) @ weight[:, :, i, j].T
                a[:, :, r, c] = total
        for r in range(H):
            for c in range(W):
                link[:, :, r, c] = layer.link.bias + taken(a, r - 1, c) @ layer.link.weight[:, :, 0, 0].T
        groups_in = [i % colours for i in range(C)] if k == 0 else groups
        out = torch.zeros(B, p, H, W, dtype=x.dtype)
        for r in range(H):
            for c in range(W):
                pre = link[:, :, r, c] + slow_term(layer.horizontal_bias, vector, map, r, c)
                y = slow_gate(pre + slow_masked(layer.horizontal_conv, z, r, c, groups_in, groups + groups, k == 0))
                at = y[:, :, None, None]
                if layer.out is not None:
                    out[:, :, r, c] = slow_masked(layer.out, at, 0, 0, groups, groups, False)
                    if k > 0:
                        out[:, :, r, c] += z[:, :, r, c]
                if layer.skip is not None:
                    skips[:, :, r, c] += slow_masked(layer.skip, at, 0, 0, groups, groups, False)
        v = torch.stack([torch.stack([slow_gate(a[:, :, r, c]) for c in range(W)], -1) for r in range(H)], -2)
        z = out
    features = skips if core.skips else z
    head = core.head_in.weight.shape[0]
    head_groups = [k % colours for k in range(head)]
    outputs = core.head_out.weight.shape[0]
    out_groups = model.likelihood.colour_of_outputs().tolist() if colours > 1 else [0] * outputs
    result = torch.zeros(B, outputs, H, W, dtype=x.dtype)
    for r in range(H):
        for c in range(W):
            at = features[:, :, r, c].relu()[:, :, None, None]
            hidden = slow_masked(core.head_in, at, 0, 0, groups, head_groups, False).relu()[:, :, None, None]
            result[:, :, r, c] = slow_masked(core.head_out, hidden, 0, 0, head_groups, out_groups, False)
            if core.linear is not None:
                above: Any = core.linear.above
                left = core.linear.left
                linear = above.bias + slow_masked(left, x, r, c, [k % colours for k in range(C)], out_groups, True)
                up, n = above.weight.shape[2] - 1, above.weight.shape[3]
                for i in range(up + 1):
                    for j in range(n):
                        linear = linear + taken(x, r - 1 - up + i, c - n // 2 + j) @ above.weight[:, :, i, j].T
                result[:, :, r, c] += linear if r > 0 else linear - above.bias  # the shift brings zeros, not the bias
    return result


@pytest.mark.parametrize(
    ("kind", "channels", "conditioning", "options"),
    [
        ("categorical", 3, "both", {}),
        ("categorical", 1, "global", {"skips": False}),
        ("bernoulli", 4, "spatial", {"filters": 5}),
        ("logistic_mixture", 3, "vector+map", {"first_field": 5}),
        ("logistic_mixture", 1, "none", {"layers": 3, "field": 5}),
        ("logistic_mixture", 3, "global", {"linear_path": True, "first_field": 5}),
        ("categorical", 3, "none", {"linear_path": True}),
    ],
)
@torch.no_grad()
def test_core_equals_the_paper_written_out(
    kind: str, channels: int, conditioning: str, options: dict[str, Any]
) -> None:
    model = tiny_model(kind, channels=channels, height=4, width=5, conditioning=conditioning, **options)
    x = scaled(random_images(model, 2), model.likelihood.levels, torch.float64)
    h = condition_for(model, 2)
    if model.core.linear is not None:  # starts at zero; here it has to show
        for parameter in model.core.linear.parameters():
            parameter.add_(torch.linspace(-1, 1, parameter.numel(), dtype=torch.float64).view(parameter.shape))
    torch.testing.assert_close(model.core(x, model.core.terms(h)), slow_parameters(model, x, h), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("conditioning", ["none", "global", "spatial", "both", "map", "vector+map"])
@pytest.mark.parametrize("kind", ["categorical", "bernoulli", "logistic_mixture"])
@pytest.mark.parametrize(("skips", "linear_path"), [(True, False), (False, True)])
def test_every_parameter_receives_a_gradient(kind: str, conditioning: str, skips: bool, linear_path: bool) -> None:
    model = tiny_model(kind, channels=3, conditioning=conditioning, skips=skips, linear_path=linear_path, filters=6)
    h = condition_for(model, 4)
    batch = {"image": random_images(model, 4), "vector": h.vector, "map": h.map}
    model.nll({key: value for key, value in batch.items() if value is not None}).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


def test_parameters_of_the_published_size() -> None:
    """Table 2's model (20 layers, p = 384, 5x5), counted layer by layer from the shapes that the paper implies."""
    with torch.device("meta"):
        model = tiny_model("categorical", channels=3, bit_depth=8, filters=384, layers=20, field=5, first_field=5,
                           head=1024, skips=False, dtype=torch.float32)  # fmt: skip
    p = 384
    layer = 15 * p * 2 * p + (2 * p) ** 2 + 3 * p * 2 * p + p * p  # vertical 3x5, link, horizontal 1x3, out
    biases = 2 * p + 2 * p + p  # vertical, link (the horizontal convolution shares it), out
    first = 15 * 3 * 2 * p + (2 * p) ** 2 + 3 * 3 * 2 * p + p * p
    head = p * 1024 + 1024 + 1024 * 768 + 768
    total = 19 * layer + first + 20 * biases + head
    assert sum(parameter.numel() for parameter in model.parameters()) == total


def test_masks_by_hand() -> None:
    groups = colour_groups(4, 3)
    assert groups.tolist() == [0, 1, 2, 0]
    assert colour_mask(groups, groups, "B").tolist() == [[1, 0, 0, 1], [1, 1, 0, 1], [1, 1, 1, 1], [1, 0, 0, 1]]
    assert colour_mask(groups, groups, "A").tolist() == [[0, 0, 0, 0], [1, 0, 0, 1], [1, 1, 0, 1], [0, 0, 0, 0]]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 7), (32, 32), (24, 40), (1, 1), (3, 64)])
def test_the_drawn_map_covers_any_size_and_moves_with_the_vector(height: int, width: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draw = DeconvolutionalMap(3, 4, height, width)
    vector = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    drawn = draw(vector)
    assert drawn.shape == (2, 4, height, width)
    assert bool((drawn[0] != drawn[1]).flatten(1).any(0).all()) or height * width == 1


def test_dropout_belongs_to_the_example() -> None:
    x = torch.ones(3, 5, 4, 6)
    keys = torch.tensor([11, 22, 33])
    whole, parts = Dropout(keys, 0.25), [Dropout(keys[i : i + 1], 0.25) for i in range(3)]
    for _ in range(2):
        together = whole(x)
        assert torch.equal(together, torch.cat([part(x[i : i + 1]) for i, part in enumerate(parts)]))
    assert not torch.equal(together, Dropout(keys, 0.25)(x))  # a second call drops others
    many = Dropout(torch.arange(4000), 0.25)(torch.ones(4000, 1, 5, 5))
    assert many.unique().tolist() == pytest.approx([0, 4 / 3])
    assert float(many.mean()) == pytest.approx(1, abs=0.01)
    assert float((many == 0).double().mean()) == pytest.approx(0.25, abs=0.005)


def test_print_says_what_the_core_sees() -> None:
    assert "sees 3 rows above, 2 columns to either side, 2 pixels to the left" in repr(tiny_model().core)
