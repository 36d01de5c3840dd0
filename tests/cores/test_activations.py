"""What lies between the convolutions of PixelCNN++: values and gradients against torch's own, and dropout's streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from building import condition_for, random_images, tiny_model
from torch import Tensor

from condgen import streams
from condgen.condition import Condition
from condgen.cores.activations import Activations
from condgen.cores.layers import Dropout
from condgen.likelihoods import scaled

SHAPE = (2, 3, 4, 5)


class Masked(Dropout):
    """Dropout with the same mask at every use."""

    def __init__(self, rate: float = 0.5) -> None:
        super().__init__(streams.example_keys(np.arange(2), 7), rate)

    def kept(self, shape: tuple[int, ...]) -> Tensor:
        self.uses = 0
        return super().kept(shape)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64, last: bool = True) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    return x.requires_grad_()


def slow(nonlinearity: str, x: Tensor, added: Tensor | None, dropout: Dropout | None) -> Tensor:
    if added is not None:
        x = x[:, :, : added.shape[2], : added.shape[3]] + added
    y = {"concat_elu": lambda: F.elu(torch.cat([x, -x], 1)), "elu": lambda: F.elu(x), "relu": lambda: F.relu(x)}[
        nonlinearity
    ]()
    return y if dropout is None else torch.where(dropout.kept(tuple(y.shape)) != 0, y * dropout.factor, 0.0)


def slow_gate(x: Tensor, gates: Tensor) -> Tensor:
    a, b = gates[:, :, : x.shape[2], : x.shape[3]].chunk(2, dim=1)
    return x + a * torch.sigmoid(b)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("border", [0, 1])
@pytest.mark.parametrize("rate", [0.0, 0.5, 0.3])
@pytest.mark.parametrize("nonlinearity", ["concat_elu", "elu", "relu"])
def test_values_and_gradients(nonlinearity: str, rate: float, border: int, last: bool) -> None:
    """Alone, and with something added to the inner part of a larger tensor."""
    activation = Activations(nonlinearity)
    dropout = Masked(rate) if rate else None
    B, C, H, W = SHAPE
    x = random(B, C, H + border, W + border, last=last)
    added = random(*SHAPE, seed=1) if border else None
    inputs = [x] if added is None else [x, added]
    y, expected = activation(x, added, dropout), slow(nonlinearity, x, added, dropout)
    torch.testing.assert_close(y, expected, rtol=1e-14, atol=1e-14)
    start = random(*y.shape, seed=2)
    for g, other in zip(
        torch.autograd.grad(y, inputs, start), torch.autograd.grad(expected, inputs, start), strict=True
    ):
        torch.testing.assert_close(g, other, rtol=1e-13, atol=1e-13)
    if nonlinearity != "relu":  # which has a corner

        def function(x: Tensor, added: Tensor | None = None) -> Tensor:
            return activation(x, added, dropout)

        assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize("border", [0, 1])
def test_values_and_gradients_of_the_gate(border: int) -> None:
    B, C, H, W = SHAPE
    inputs = [random(*SHAPE), random(B, 2 * C, H + border, W + border, seed=1)]
    activation = Activations("concat_elu")
    y, expected = activation.gated_residual(*inputs), slow_gate(*inputs)
    torch.testing.assert_close(y, expected, rtol=1e-14, atol=1e-14)
    start = random(*SHAPE, seed=2)
    for g, other in zip(
        torch.autograd.grad(y, inputs, start), torch.autograd.grad(expected, inputs, start), strict=True
    ):
        torch.testing.assert_close(g, other, rtol=1e-13, atol=1e-13)
    assert torch.autograd.gradcheck(activation.gated_residual, inputs)


@pytest.mark.parametrize("nonlinearity", ["concat_elu", "elu", "relu"])
def test_extreme_values(nonlinearity: str) -> None:
    """No overflow far from zero, and no gradient where there is none."""
    x = (
        torch.tensor([-1e30, -800.0, -40.0, 0.0, 40.0, 800.0, 1e30], dtype=torch.float32)
        .view(1, 1, 1, 7)
        .requires_grad_()
    )
    y = Activations(nonlinearity)(x)
    expected = slow(nonlinearity, x, None, None)
    torch.testing.assert_close(y, expected)
    gradients = [torch.autograd.grad(each.sum(), x, retain_graph=True)[0] for each in (y, expected)]
    away = x.detach() != 0  # at a corner anything between is right
    torch.testing.assert_close(gradients[0][away], gradients[1][away])


def test_under_autocast_results_are_of_its_type() -> None:
    x = random(*SHAPE, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = Activations("concat_elu")(x, None, Masked())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), slow("concat_elu", x, None, Masked()), rtol=2**-8, atol=0)
    (g,) = torch.autograd.grad(y.sum(), x)
    assert g.dtype == torch.float32


@pytest.mark.parametrize(("rate", "exact"), [(0.5, 0.5), (0.3, 77 / 256), (0.25, 0.25)])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(rate: float, exact: float) -> None:
    dropout = Dropout(streams.example_keys(np.arange(64), 0), rate)
    ones = torch.ones(64, 8, 16, 16, dtype=torch.float64)
    dropped = dropout(ones)
    share = (dropped == 0).double().mean().item()
    assert share == pytest.approx(exact, abs=4 * (exact * (1 - exact) / ones.numel()) ** 0.5)
    assert dropped.max().item() == pytest.approx(1 / (1 - exact))
    for dim in range(4):  # single elements: no image, map, row or column as a whole
        shares = (dropped == 0).double().mean([d for d in range(4) if d != dim])
        assert (shares - exact).abs().max() < 0.05
    neighbours = (dropped[..., 1:] == 0).double() * (dropped[..., :-1] == 0).double()
    assert neighbours.mean().item() == pytest.approx(exact**2, abs=0.005)


@pytest.mark.parametrize("rate", [0.5, 0.3])
def test_an_examples_masks_are_its_own(rate: float) -> None:
    """Whatever batch it comes in, at whatever place; and every use has another."""
    keys = streams.example_keys(np.array([5, 9, 2]), 0)
    whole, single, turned = Dropout(keys, rate), Dropout(keys[1:2], rate), Dropout(keys.flip(0), rate)
    masks = []
    for shape in ((6, 4, 4), (6, 4, 4), (3, 5, 7)):
        mask = whole.kept((3, *shape))
        assert torch.equal(mask[1:2], single.kept((1, *shape)))
        assert torch.equal(mask.flip(0), turned.kept((3, *shape)))
        assert not torch.equal(mask[0], mask[1])
        masks.append(mask)
    assert not torch.equal(masks[0], masks[1])


@pytest.mark.parametrize("rate", [0.5, 0.3])
def test_dropout_of_the_core_is_a_function_of_the_keys(rate: float) -> None:
    model = tiny_model("logistic_mixture", channels=3, conditioning="both", core="pixelcnn++", dropout=rate)
    x, h = scaled(random_images(model, 3), 4, torch.float64), condition_for(model, 3)
    keys = streams.example_keys(np.array([5, 9, 2]), 0)

    def parameters(which: Any) -> Tensor:
        assert h.vector is not None
        return model.core(x[which], model.core.terms(Condition(h.vector[which])), keys[which])

    whole = parameters([0, 1, 2])
    torch.testing.assert_close(whole, parameters([0, 1, 2]), rtol=0, atol=0)
    torch.testing.assert_close(whole[[2, 1]], parameters([2, 1]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whole[[1]], parameters([1]), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(whole, model.core(x, model.core.terms(h)))


@pytest.fixture
def fresh_compiler() -> None:
    """Without the sizes that other tests compiled: there is a limit, beyond which nothing new is."""
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's compiler asks for it
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_compiled_loops_are_the_same_functions(rate: float, dtype: torch.dtype) -> None:
    plain, compiled = Activations("concat_elu"), Activations("concat_elu")
    compiled.compile()
    dropout = Masked(rate) if rate else None
    B, C, H, W = SHAPE
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for border in (0, 1):
        x = random(B, C, H + border, W + border, dtype=dtype)
        added = random(*SHAPE, seed=1, dtype=dtype) if border else None
        gates = random(B, 2 * C, H + border, W + border, seed=2, dtype=dtype)
        inputs = [x] if added is None else [x, added]
        found = []
        for activation in (plain, compiled):
            y = activation(x, added, dropout)
            inner = x[:, :, :H, :W].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
            z = activation.gated_residual(inner, gates)
            start, over = random(*y.shape, seed=3, dtype=dtype), random(*z.shape, seed=4, dtype=dtype)
            found.append([y, z, *torch.autograd.grad(y, inputs, start), *torch.autograd.grad(z, [inner, gates], over)])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(other, one, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_more_sizes_than_are_compiled_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, compiled = Activations("concat_elu"), Activations("concat_elu")
    compiled.compile()
    monkeypatch.setattr("torch._dynamo.config.recompile_limit", 2)
    for height in range(2, 7):
        x = random(2, 3, height, 5)
        torch.testing.assert_close(compiled(x), plain(x))
        torch.testing.assert_close(*(torch.autograd.grad(each(x).sum(), x)[0] for each in (compiled, plain)))
