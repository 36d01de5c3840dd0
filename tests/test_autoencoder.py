"""The autoencoder on squared error: its loss by a slow sum, its pictures, and that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import condgen
from condgen.autoencoder import Autoencoder, DeconvolutionalDecoder
from condgen.condition import Batch, Condition, DataInfo
from condgen.errors import InputError, ModelError, RecipeError
from condgen.recipe import recipe_from_dict
from condgen.recipe.build import build_autoencoder
from condgen.store import load_conditional, save_model


def recipe_of(**sections: Any) -> Any:
    values = {
        "encoder": {"type": "autoencoder", "size": 3, "filters": 4},
        "model": {"filters": 4},
        "train": {"max_steps": 1, "objective": "squared_error"},
    }
    return recipe_from_dict({**values, **sections}, "tests")


def autoencoder(info: DataInfo, **sections: Any) -> Autoencoder:
    return build_autoencoder(recipe_of(**sections), info).double()


def images_of(info: DataInfo, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (count, info.channels, info.height, info.width)
    return torch.randint(0, 2**info.bit_depth, shape, generator=generator).to(torch.uint8)


@pytest.mark.parametrize("shape", [(1, 1, 1, 8), (3, 5, 4, 3), (4, 33, 17, 8), (1, 28, 28, 1)])
def test_the_error_is_the_sum_over_sub_pixels(shape: tuple[int, int, int, int]) -> None:
    info = DataInfo(*shape)
    model = autoencoder(info)
    images = images_of(info, 3)
    drawn = model.drawn(model.encode(image=images)).detach().numpy()
    assert drawn.shape == tuple(images.shape)
    for k, found in enumerate(model.squared_error({"image": images}).tolist()):
        total = 0.0
        for place in np.ndindex(*images.shape[1:]):
            total += (drawn[(k, *place)] - int(images[(k, *place)]) / (2**info.bit_depth - 1)) ** 2
        assert found == pytest.approx(total, rel=1e-10)


def test_the_decoder_starts_from_the_mean_colour() -> None:
    info = DataInfo(3, 8, 8)
    model = autoencoder(info)
    images = images_of(info, 16)
    images[:, 0] //= 4
    model.initialise({"image": images})
    torch.testing.assert_close(
        model.decoder(torch.zeros(1, 3, dtype=torch.float64)).mean((0, 2, 3)),
        images.double().mean((0, 2, 3)) / 255,
        atol=0.15,
        rtol=0,
    )


def test_reconstructions_are_on_the_grid_and_each_by_itself() -> None:
    info = DataInfo(3, 7, 9, 3)
    model = autoencoder(info)
    with torch.no_grad():
        list(model.decoder.parameters())[-2].mul_(20)  # beyond 0 .. 1 on both sides
    images = images_of(info, 5)
    h = model.encode(image=images)
    together = model.reconstruct(h)
    assert together.dtype == torch.uint8 and together.shape == images.shape
    expected = (model.drawn(h).clamp(0, 1) * 7).round().to(torch.uint8)
    assert torch.equal(together, expected) and int(together.min()) == 0 and int(together.max()) == 7
    for k in range(5):
        assert torch.equal(model.reconstruct(h[k])[0], together[k])


def test_it_learns_more_than_the_mean_image() -> None:
    info = DataInfo(1, 8, 8)
    places = torch.arange(8)
    images = torch.zeros(64, 1, 8, 8, dtype=torch.uint8)  # a bright bar in one of 8 rows or 8 columns
    for k in range(64):
        row = (places == k % 8).float()
        bar = row[:, None].expand(8, 8) if k < 32 else row[None].expand(8, 8)
        images[k, 0] = (255 * bar).to(torch.uint8)
    model = autoencoder(info, model={"filters": 8}, encoder={"type": "autoencoder", "size": 4, "filters": 8})
    model.initialise({"image": images})
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        error = model.squared_error({"image": images}).mean()
        error.backward()
        optimizer.step()
    unit = images.double() / 255
    of_the_mean = (unit - unit.mean(0)).square().sum((1, 2, 3)).mean().item()
    assert error.item() < 0.3 * of_the_mean


class Mapped(condgen.Encoder):
    """A map and no vector."""

    reads = ("image",)
    map_channels = 1

    def encode(self, batch: Batch) -> Condition:
        return Condition(map=batch["image"].double())


def test_what_cannot_be_decoded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from condgen import plugins

    monkeypatch.setitem(plugins._registered, "mapped", Mapped)
    for kind in ("mapped", "none"):
        with pytest.raises(RecipeError, match=f"encoder.type={kind} yields none") as caught:
            autoencoder(DataInfo(1, 8, 8), encoder={"type": kind})
        assert caught.value.field == "train.objective"
    model = autoencoder(DataInfo(1, 8, 8))
    with pytest.raises(InputError, match="not \\(1, 7, 8\\)"):
        model.squared_error({"image": torch.zeros(1, 1, 7, 8, dtype=torch.uint8)})
    with pytest.raises(RecipeError, match="give it a condition"):
        model.reconstruct(Condition())


def test_weights_are_a_function_of_the_seed() -> None:
    def flat(model: torch.nn.Module) -> Tensor:
        return torch.cat([weight.flatten() for weight in model.parameters()])

    info = DataInfo(3, 8, 8)
    one, same = autoencoder(info), autoencoder(info)
    other = autoencoder(info, train={"max_steps": 1, "objective": "squared_error", "seed": 1})
    assert torch.equal(flat(one), flat(same)) and not torch.equal(flat(one), flat(other))


def test_saved_and_loaded_as_what_it_is(tmp_path: Path) -> None:
    info, recipe = DataInfo(3, 8, 8), recipe_of()
    model = build_autoencoder(recipe, info)
    save_model(model, recipe, tmp_path / "model", "A test.\n")
    loaded = condgen.load(tmp_path / "model")
    assert isinstance(loaded, Autoencoder) and not loaded.training and loaded.source == tmp_path / "model"
    images = images_of(info, 2)
    assert torch.equal(loaded.reconstruct(loaded.encode(image=images)), model.reconstruct(model.encode(image=images)))
    with pytest.raises(ModelError, match=r"has no likelihood.*train.objective=likelihood") as caught:
        load_conditional(tmp_path / "model")
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(("side", "rows"), [(1, 1), (4, 2), (5, 3), (8, 4), (9, 3), (32, 4), (33, 3)])
def test_the_decoder_covers_any_side(side: int, rows: int) -> None:
    decoder = DeconvolutionalDecoder(2, 1, side, 2 * side, 2)
    assert decoder(torch.zeros(1, 2)).shape == (1, 1, side, 2 * side)
