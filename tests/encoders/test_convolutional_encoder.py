"""The convolutional encoder: any image, its own vector and nobody else's, learned through whatever decodes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from condgen.condition import DataInfo
from condgen.encoders.autoencoder import AutoencoderEncoder, AutoencoderOptions
from condgen.errors import InputError, RecipeError
from condgen.recipe import recipe_from_dict
from condgen.recipe.build import build_model


def encoder_of(info: DataInfo, **options: object) -> AutoencoderEncoder:
    torch.manual_seed(0)
    return AutoencoderEncoder(AutoencoderOptions.model_validate({"filters": 3, **options}), info).double()


def images_of(info: DataInfo, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, info.channels, info.height, info.width)
    return torch.randint(0, 2**info.bit_depth, shape, generator=generator).to(torch.uint8)


def vector_of(encoder: AutoencoderEncoder, images: Tensor) -> Tensor:
    vector = encoder({"image": images}).vector
    assert vector is not None
    return vector


@pytest.mark.parametrize("shape", [(1, 1, 1, 8), (3, 5, 4, 3), (3, 32, 32, 8), (4, 33, 17, 8), (1, 28, 28, 1)])
@pytest.mark.parametrize("size", [1, 10, 100])
def test_any_image_gives_a_vector_that_sees_all_of_it(shape: tuple[int, int, int, int], size: int) -> None:
    info = DataInfo(*shape)
    encoder = encoder_of(info, size=size, filters=8)
    images = images_of(info, 2)
    base = vector_of(encoder, images)
    assert base.shape == (2, size) and encoder.vector_size == size
    # every pixel and colour matters, the last row and column of odd sides too: along max-pooling many are hidden in a
    # single image, so each is changed in several
    many = images_of(info, 24, seed=1)
    corners = [(0, 0), (0, -1), (-1, 0), (-1, -1), (info.height // 2, info.width // 2)]
    before = vector_of(encoder, many)
    for row, column in corners:
        for colour in range(info.channels):
            changed = many.clone()
            changed[:, colour, row, column] = 2**info.bit_depth - 1 - changed[:, colour, row, column]
            assert not torch.equal(vector_of(encoder, changed), before), (row, column, colour)


def test_an_image_does_not_know_its_batch_mates() -> None:
    info = DataInfo(3, 13, 9)
    encoder = encoder_of(info).train()
    images = images_of(info, 6)
    together = vector_of(encoder, images)
    for k in range(6):
        torch.testing.assert_close(vector_of(encoder, images[k : k + 1])[0], together[k], rtol=1e-12, atol=1e-12)
    others = torch.cat([images[:1], images_of(info, 5, seed=2)])
    torch.testing.assert_close(vector_of(encoder, others)[0], together[0], rtol=1e-12, atol=1e-12)


def test_the_vector_says_where_something_is() -> None:
    info = DataInfo(1, 32, 32)
    left, right = torch.zeros(2, 1, 1, 32, 32, dtype=torch.uint8)
    left[..., 12:20, 4:8], right[..., 12:20, 20:24] = 255, 255
    encoder = encoder_of(info, filters=8)
    a, b = vector_of(encoder, left), vector_of(encoder, right)
    assert (a - b).norm() > 0.1 * a.norm()  # a mean over places would not tell them apart


def test_ranges_of_the_vector() -> None:
    info = DataInfo(3, 8, 8)
    images = images_of(info, 5)
    free = vector_of(encoder_of(info), images)
    torch.testing.assert_close(vector_of(encoder_of(info, range="bounded"), images), torch.tanh(free))
    unit = vector_of(encoder_of(info, range="unit"), images)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(unit * free.norm(dim=1, keepdim=True), free)
    with pytest.raises(ValueError, match="range"):
        AutoencoderOptions.model_validate({"range": "softmax"})


@pytest.mark.parametrize("conditioning", ["global", "spatial", "both"])
def test_it_learns_from_the_bits_of_the_decoder(conditioning: str) -> None:
    recipe = recipe_from_dict(
        {
            "encoder": {"type": "autoencoder", "size": 4, "filters": 3},
            "model": {"filters": 4, "layers": 2, "kernel_size": 3, "conditioning": conditioning, "map_channels": 3},
            "train": {"max_steps": 1, "precision": "fp64"},
        },
        "tests",
    )
    info = DataInfo(1, 9, 8, 2)
    model = build_model(recipe, info).double()
    for weight in model.core.parameters():  # what starts at zero passes no gradient on
        torch.nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(0))
    batch = {"image": images_of(info, 4), "key": torch.arange(4)}
    model.initialise(batch)
    model.nll(batch).sum().backward()
    for name, weight in model.encoder.named_parameters():
        assert weight.grad is not None and bool((weight.grad != 0).any()), name
    # the gradient is that of the bits: a step against it saves some
    before = model.nll(batch).sum().item()
    with torch.no_grad():
        for weight in model.encoder.parameters():
            assert weight.grad is not None
            weight.add_(weight.grad, alpha=-1e-4)
    assert model.nll(batch).sum().item() < before


def test_words(tmp_path: Path) -> None:
    info = DataInfo(3, 6, 5, 4)
    encoder = encoder_of(info)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = encoder.parse("image", str(tmp_path / "a.png"))["image"]
    assert found.shape == (1, 3, 6, 5) and torch.equal(found[0], torch.from_numpy(pixels).permute(2, 0, 1) >> 4)
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    for name in ("broken.png", "missing.png"):
        with pytest.raises(InputError, match=name):
            encoder.parse("image", str(tmp_path / name))
    with pytest.raises(RecipeError, match="known: --image"):
        encoder.parse("label", "cat")


def test_images_of_another_shape_are_named_as_such() -> None:
    encoder = encoder_of(DataInfo(3, 8, 8), size=4)
    for other in (DataInfo(3, 16, 16), DataInfo(1, 8, 8)):
        with pytest.raises(InputError, match=r"channels, height, width.* was made for \(3, 8, 8\); give such"):
            vector_of(encoder, images_of(other, 2))
