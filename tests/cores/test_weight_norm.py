"""Weight normalisation, layer by layer, and what its data-dependent initialisation leaves behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from building import condition_for, random_images, tiny_model
from torch import Tensor, nn
from torch.nn.utils import parametrize

from condgen.condition import Condition
from condgen.cores.layers import UpConv, VerticalConv
from condgen.cores.weight_norm import data_dependent_init, factors, weight_normalised
from condgen.likelihoods import scaled
from condgen.model import ConditionalModel


def layers_of(model: ConditionalModel) -> dict[str, Any]:
    return {name: m for name, m in model.core.named_modules() if parametrize.is_parametrized(m, "weight")}


def pyramid(**settings: Any) -> ConditionalModel:
    return tiny_model("logistic_mixture", channels=3, core="pixelcnn++", bit_depth=8, **settings)


def initialised(model: ConditionalModel, images: Tensor) -> ConditionalModel:
    x = scaled(images, model.likelihood.levels, model.dtype).to(model.dtype)
    model.core.initialise(x, model.core.terms(condition_for(model, len(images))))
    return model


def full_output(layer: Any, inputs: tuple[Tensor, ...]) -> Tensor:
    """What the original takes its moments of: of transposed convolutions all it writes, with rows and columns of bias
    alone beyond; of the others what they give, before any shift."""
    W, b = layer.weight, layer.bias
    if isinstance(layer, nn.ConvTranspose2d):
        rows, columns = W.shape[2:]
        y = F.conv_transpose2d(inputs[0], W, stride=2)
        H, Wd = inputs[0].shape[2:]
        y = F.pad(y, (0, 2 * Wd + columns - 1 - y.shape[3], 0, 2 * H + rows - 1 - y.shape[2]))
        return y + b[:, None, None]
    if W.shape[2:] == (1, 1):
        return F.conv2d(torch.cat(inputs, dim=1), W, b)
    kh, kw = W.shape[2:]
    left = kw // 2 if isinstance(layer, VerticalConv) else kw - 1
    return F.conv2d(F.pad(inputs[0], (left, kw - 1 - left, kh - 1, 0)), W, b, stride=layer.stride)


@pytest.mark.parametrize(
    "settings", [{}, {"scales": 1, "full_sight": True}, {"nonlinearity": "elu", "field": 5}], ids=str
)
def test_every_layer_starts_with_mean_0_and_its_own_deviation(settings: dict[str, Any]) -> None:
    model = pyramid(conditioning="both", height=16, width=8, **settings)
    images = random_images(model, 16)
    initialised(model, images)
    seen: dict[str, Tensor] = {}

    def listen(name: str) -> Any:
        def hook(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            assert name not in seen  # every layer has one place
            seen[name] = full_output(layer, inputs)

        return hook

    layers = layers_of(model)
    for name, layer in layers.items():
        layer.register_forward_hook(listen(name))
    with torch.no_grad():
        model.core(scaled(images, 256, torch.float64), model.core.terms(condition_for(model, 16)))
    assert set(seen) == set(layers)
    for name, y in seen.items():
        deviation = 0.1 if name.endswith("conv_out") else 1.0
        assert y.mean((0, 2, 3)).abs().max() < 1e-9, name
        expected = torch.full((y.shape[1],), deviation, dtype=torch.float64)
        torch.testing.assert_close(y.std((0, 2, 3), unbiased=False), expected, rtol=1e-6, atol=0, msg=name)


def test_initialisation_leaves_v_and_the_condition_alone() -> None:
    model = pyramid(conditioning="both")
    before = {name: value.clone() for name, value in model.core.state_dict().items()}
    initialised(model, random_images(model, 4))
    for name, value in model.core.state_dict().items():
        changes = name.endswith("original0") or (name.endswith("bias") and not name.startswith("conditioning"))
        assert torch.equal(value, before[name]) != changes, name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("value", [0, 77, 255])
def test_constant_images_initialise_to_finite_weights(value: int, dtype: torch.dtype) -> None:
    """Where nothing varies, nothing tells the scale: it stays, and rounding errors are nothing."""
    model = pyramid(conditioning="none", full_sight=True).to(dtype)
    images = torch.full((4, 3, 8, 8), value, dtype=torch.uint8)
    initialised(model, images)
    assert all(bool(weight.isfinite().all()) for weight in model.core.parameters())
    assert bool((factors(model.core.recall.what)[0] == 1).all())  # it sees the same everywhere
    assert bool(model.log_prob(images).isfinite().all())


def test_a_constant_channel_keeps_its_scale() -> None:
    conv = weight_normalised(VerticalConv(2, 3, 3).double())
    with torch.no_grad():
        factors(conv)[1][1] = 0
        factors(conv)[1][1, 1] = 1e-7  # channel 1 sees next to nothing of a second input that does not vary
    core = nn.Sequential(conv)
    x = torch.cat(
        [torch.randn(8, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.zeros(8, 1, 6, 6)], 1
    ).double()
    data_dependent_init(core, x)
    g, _ = factors(conv)
    assert g[1].item() == 1.0 and bool((g[[0, 2]] != 1.0).all())
    assert bool(conv(x).isfinite().all())


@pytest.mark.parametrize("output_dim", [0, 1])
def test_the_norm_is_that_of_an_output_channel(output_dim: int) -> None:
    """Of transposed convolutions, whose weight is (inputs, outputs, ...), as well."""
    conv = weight_normalised(UpConv(3, 5, 2, 3, offset=1) if output_dim else VerticalConv(3, 5, 3))
    g, v = factors(conv)
    assert tuple(g.shape) == ((1, 5, 1, 1) if output_dim else (5, 1, 1, 1))
    with torch.no_grad():
        g.copy_(torch.linspace(-2, 2, 5).view_as(g))
        v.normal_(0, 3)
    for channel in range(5):
        kernel = conv.weight.select(output_dim, channel)
        assert kernel.norm().item() == pytest.approx(abs(g.flatten()[channel].item()), rel=1e-5, abs=1e-6)
        direction = v.select(output_dim, channel)
        torch.testing.assert_close(kernel, g.flatten()[channel] * direction / direction.norm())


def test_folded_weights_and_gradients_are_channels_last() -> None:
    """Others would be reordered in every convolution, and in every update."""
    model = pyramid(filters=6).to(memory_format=torch.channels_last)
    (-model.log_prob(random_images(model, 2)).mean()).backward()
    for name, layer in layers_of(model).items():
        assert layer.weight.is_contiguous(memory_format=torch.channels_last), name
        gradient = factors(layer)[1].grad
        assert gradient is not None and gradient.is_contiguous(memory_format=torch.channels_last), name


def test_loading_an_effective_kernel_gives_it_back() -> None:
    """g and V of a kernel alone are its norms and itself."""
    conv = weight_normalised(UpConv(3, 5, 2, 3, offset=1))
    kernel = torch.randn(3, 5, 2, 3, generator=torch.Generator().manual_seed(0))
    conv.weight = kernel
    torch.testing.assert_close(conv.weight, kernel)


def test_a_stream_that_is_the_same_for_every_image_is_not_blown_up() -> None:
    """With one coarse row the vertical stream there is made of padding alone and varies by its columns."""
    model = tiny_model("logistic_mixture", core="pixelcnn++", channels=3, height=8, width=16, scales=4, bit_depth=8)
    x = scaled(random_images(model, 16), 256, torch.float64)
    model.core.initialise(x, model.core.terms(Condition()))
    layers = [layer for layer in model.core.modules() if parametrize.is_parametrized(layer, "weight")]
    assert max(float(factors(layer)[0].detach().abs().max()) for layer in layers) < 100
