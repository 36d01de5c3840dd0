"""What lies between the convolutions of PixelCNN++: values and gradients against torch's own, and dropout's streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from building import condition_for, random_images, tiny_model
from torch import Tensor

from condgen import native, streams
from condgen.condition import Condition
from condgen.cores.activations import Activations, elu
from condgen.cores.kernels import FormulaKernels
from condgen.cores.layers import Dropout, Mask
from condgen.errors import MachineError
from condgen.likelihoods import scaled

SHAPE = (2, 3, 4, 5)


class Masked(Dropout):
    """Dropout with the same mask at every use."""

    def __init__(self, rate: float = 0.5) -> None:
        super().__init__(streams.example_keys(np.arange(2), 7), rate)

    def mask(self, shape: tuple[int, ...]) -> Mask:
        self.uses = 0
        return super().mask(shape)


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
    return y if dropout is None else torch.where((mask := dropout.mask(tuple(y.shape))).kept != 0, y * mask.factor, 0.0)


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
        mask = whole.mask((3, *shape)).kept
        assert torch.equal(mask[1:2], single.mask((1, *shape)).kept)
        assert torch.equal(mask.flip(0), turned.mask((3, *shape)).kept)
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


def test_elu_and_its_gradient() -> None:
    x = random(*SHAPE)
    torch.testing.assert_close(elu(x), F.elu(x), rtol=1e-14, atol=1e-14)
    assert torch.autograd.gradcheck(elu, [x])


def everything(
    activation: Activations, dropout: Dropout | None, border: int, x_type: torch.dtype, shape: tuple[int, ...] = SHAPE,
    last: bool = True,
) -> list[Tensor]:  # fmt: skip
    """Values and gradients of both functions, with something added and without."""
    B, C, H, W = shape
    x = random(B, C, H + border, W + border, dtype=x_type, last=last)
    added = random(*shape, seed=1, dtype=x_type, last=last)
    gates = random(B, 2 * C, H + border, W + border, seed=2, dtype=x_type, last=last)
    residual = random(*shape, seed=5, dtype=torch.promote_types(x_type, torch.float32), last=last)
    found: list[Tensor] = []
    for inputs in ([x], [x, added]):
        y = activation(inputs[0], inputs[1] if len(inputs) > 1 else None, dropout)
        start = random(*y.shape, seed=3, dtype=y.dtype, last=last)
        found += [y, *torch.autograd.grad(y, inputs, start)]
    z = activation.gated_residual(residual, gates)
    start = random(*z.shape, seed=4, dtype=z.dtype, last=last)
    return [*found, z, *torch.autograd.grad(z, [residual, gates], start)]


@pytest.fixture
def compiled() -> Activations:
    activation = Activations("concat_elu")
    activation.compile(torch.device("cpu"))
    return activation


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("border", [0, 1])
@pytest.mark.parametrize("rate", [0.0, 0.5, 0.3])
@pytest.mark.parametrize("shape", [SHAPE, (2, 40, 3, 7), (2, 1, 1, 1), (2, 33, 2, 64)])
def test_the_functions_in_c(
    compiled: Activations, shape: tuple[int, ...], rate: float, border: int, last: bool
) -> None:  # fmt: skip
    """fp32 to its last bits; fp64, which they do not know, by the plain ones."""
    dropout = Masked(rate) if rate else None
    for dtype, tolerance in ((torch.float32, 2e-6), (torch.float64, 0.0)):
        mine = everything(compiled, dropout, border, dtype, shape, last)
        theirs = everything(Activations("concat_elu"), dropout, border, dtype, shape, last)
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.3])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_functions_in_c_in_bf16(compiled: Activations, rate: float, autocast: bool) -> None:
    dropout, dtype = Masked(rate) if rate else None, torch.float32 if autocast else torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        mine = everything(compiled, dropout, 1, dtype)
        theirs = everything(Activations("concat_elu"), dropout, 1, dtype)
    for one, other in zip(mine, theirs, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one.float(), other.float(), rtol=2**-6, atol=2**-6)


def test_the_functions_in_c_far_out(compiled: Activations) -> None:
    """No overflow; NaN and infinity go on as they are."""
    x = torch.tensor([-torch.inf, -1e30, -90.0, -1e-8, -0.0, 0.0, 1e-30, 50.0, 1e30, torch.inf, torch.nan])
    x = x.view(1, 1, 1, -1)
    torch.testing.assert_close(compiled(x), F.elu(torch.cat([x, -x], 1)), rtol=1e-6, atol=1e-7, equal_nan=True)
    gates = torch.cat([torch.ones_like(x), x], 1)
    torch.testing.assert_close(
        compiled.gated_residual(torch.zeros_like(x), gates), torch.sigmoid(x), rtol=1e-6, atol=1e-30, equal_nan=True
    )


def test_the_functions_in_c_on_several_threads(compiled: Activations) -> None:
    """Rows are dealt to threads; nothing else changes."""
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(everything(compiled, Masked(), 1, torch.float32, (2, 8, 5, 6)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_mask_of_other_examples_is_refused(compiled: Activations) -> None:
    with pytest.raises(ValueError, match="2 keys for 3 images"):
        compiled(torch.zeros(3, 4, 2, 2), dropout=Masked())


@pytest.mark.parametrize("masks", ["bits", "bytes"])
def test_a_compiled_core_is_the_core(masks: str) -> None:
    """Parameters, and gradients of every weight, weight normalisation included."""
    model = tiny_model("logistic_mixture", channels=3, core="pixelcnn++", dropout=0.5 if masks == "bits" else 0.3)
    model.float()
    x, keys = scaled(random_images(model, 3), 4, torch.float32), streams.example_keys(np.arange(3), 0)
    found = []
    for compile in (False, True):
        if compile:
            model.core.compile()
        parameters = model.core(x, model.core.terms(Condition()), keys)
        model.zero_grad()
        parameters.square().sum().backward()
        found.append([parameters.detach(), *(weight.grad for weight in model.core.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_without_a_compiler_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.library.cache_clear()
    try:
        for compiler, reason in (("no-such-compiler", "No such file"), ("false", "does not compile")):
            monkeypatch.setenv("CC", compiler)
            with pytest.raises(MachineError, match=reason):
                Activations("concat_elu").compile(torch.device("cpu"))
            assert not list((tmp_path / "condgen").iterdir())
    finally:
        native.library.cache_clear()


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
    compiled.kernels = FormulaKernels()
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
    compiled.kernels = FormulaKernels()
    monkeypatch.setattr("torch._dynamo.config.recompile_limit", 2)
    for height in range(2, 7):
        x = random(2, 3, height, 5)
        torch.testing.assert_close(compiled(x), plain(x))
        torch.testing.assert_close(*(torch.autograd.grad(each(x).sum(), x)[0] for each in (compiled, plain)))
