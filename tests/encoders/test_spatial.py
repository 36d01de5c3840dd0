"""Views of images as conditions: what each shows and what it hides, the label beside it, holes that stay the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from condgen.condition import DataInfo, Encoder
from condgen.encoders.masks import Masked, holes
from condgen.encoders.spatial import Blurred, Edges, Grey, LowResolution, Noisy, Surroundings
from condgen.errors import InputError, ModelError, RecipeError
from condgen.model import Encoded
from condgen.plugins import find_encoder
from condgen.streams import example_keys

H, W = 12, 8
INFO = DataInfo(3, H, W, classes=("cat", "dog"), attributes=("hat", "beard"))
NAMES = ("low_resolution", "grey", "masked", "blurred", "noisy", "edges")


def made(name: str, info: DataInfo = INFO, **options: Any) -> Any:
    encoder = find_encoder(name)
    options.setdefault("features", 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return encoder(encoder.Options(**options), info).eval()


def batch_of(count: int = 6, channels: int = 3, start: int = 0) -> dict[str, Tensor]:
    """Smooth pictures, so that something is left when they are blurred."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randint(0, 256, (start + count, channels, 3, 2), generator=generator).float()
    image = torch.nn.functional.interpolate(coarse, (H, W), mode="bilinear").round().to(torch.uint8)[start:]
    index = torch.arange(start, start + count)
    return {
        "image": image,
        "index": index,
        "label": index % 2,
        "attributes": torch.stack([index % 2, index // 2 % 2], 1).to(torch.int8),
    }


def map_of(encoder: Encoder, batch: dict[str, Tensor]) -> Tensor:
    found = encoder(batch).map
    assert found is not None
    return found


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", NAMES)
def test_a_view_is_a_picture_of_the_images_shape_and_the_map_holds_it(name: str, channels: int) -> None:
    if name == "grey" and channels == 1:
        with pytest.raises(RecipeError, match=r"these have none; set data\.channels to 3"):
            made(name, DataInfo(1, H, W))
        return
    encoder, batch = made(name, DataInfo(channels, H, W)), batch_of(channels=channels)
    view, map = encoder.view(batch), map_of(encoder, batch)
    assert view.shape == batch["image"].shape and view.dtype == torch.uint8
    assert map.shape == (6, encoder.map_channels, H, W) and float(map.abs().max()) <= 1
    assert encoder(batch).vector is None and not torch.equal(view, batch["image"])


def test_a_low_resolution_is_the_mean_of_blocks_and_nothing_else() -> None:
    encoder, batch = made("low_resolution", factor=4), batch_of()
    image = batch["image"].double()
    view = encoder.view(batch)
    for row in range(0, H, 4):
        for column in range(0, W, 4):
            block = image[:, :, row : row + 4, column : column + 4].mean((2, 3))
            seen = view[:, :, row : row + 4, column : column + 4]
            assert bool((seen == seen[:, :, :1, :1]).all())
            assert torch.equal(seen[:, :, 0, 0], (block + 0.5).floor().to(torch.uint8))
    assert torch.allclose(map_of(encoder, batch), view.float() * 2 / 255 - 1, atol=1e-6)
    turned = {**batch, "image": batch["image"].unflatten(2, (-1, 4)).flip(3).flatten(2, 3)}  # within each block
    assert torch.equal(map_of(encoder, turned), map_of(encoder, batch))
    again = {**batch, "image": view}
    assert torch.equal(encoder.view(again), view)


def test_a_factor_that_does_not_divide_is_refused() -> None:
    with pytest.raises(RecipeError, match="5 does not divide 12x8"):
        made("low_resolution", factor=5)
    with pytest.raises(RecipeError, match="8 does not divide 12x8"):
        made("low_resolution", factor=8)


def test_grey_is_the_luma_that_grey_pictures_are_made_of() -> None:
    encoder, batch = made("grey"), batch_of()
    colours = np.ascontiguousarray(batch["image"][0].permute(1, 2, 0).numpy())
    luma = np.asarray(Image.fromarray(colours).convert("L"))
    view = encoder.view(batch)
    assert all(np.array_equal(view[0, c], luma) for c in range(3))
    assert encoder.map_channels == 1 and torch.equal(encoder.view({"image": view}), view)
    swapped = {"image": torch.stack([view[:, 0], view[:, 0], view[:, 0]], 1)}
    assert torch.equal(map_of(encoder, swapped), map_of(encoder, batch))


def test_a_blur_is_the_gaussian_mean_of_the_neighbours() -> None:
    sigma = 1.3
    encoder, batch = made("blurred", sigma=sigma), batch_of(2)
    image = np.pad(batch["image"].double().numpy(), ((0, 0), (0, 0), (4, 4), (4, 4)), mode="edge")
    weights = np.exp(-0.5 * (np.arange(-4, 5) / sigma) ** 2)
    kernel = np.outer(weights, weights) / weights.sum() ** 2
    slow = np.array(
        [[(image[:, :, r : r + 9, c : c + 9] * kernel).sum((2, 3)) for c in range(W)] for r in range(H)]
    ).transpose(2, 3, 0, 1)
    assert np.abs(encoder.view(batch).numpy() - slow).max() <= 0.51
    for level in (0, 77, 255):
        flat = torch.full((1, 3, H, W), level, dtype=torch.uint8)
        assert torch.equal(encoder.view({"image": flat}), flat)


def test_noise_has_its_width_is_other_in_each_epoch_and_the_same_in_evaluation() -> None:
    encoder = made("noisy", sigma=20.0)
    batch = {"image": torch.full((200, 3, H, W), 128, dtype=torch.uint8), "index": torch.arange(200)}
    noise = encoder.view(batch).double() - 128
    assert abs(float(noise.std()) - 20) < 0.3 and abs(float(noise.mean())) < 0.3
    keys = example_keys(np.arange(200), 0, "epoch")
    assert torch.equal(encoder.view({**batch, "key": keys}), encoder.view(batch))  # not in training
    first, second = (
        encoder.train().view({**batch, "key": example_keys(np.arange(200), 0, "epoch", k)}) for k in (0, 1)
    )
    assert not torch.equal(first, second)


def test_edges_are_where_the_luma_is_steep() -> None:
    encoder = made("edges")
    image = torch.zeros(1, 3, H, W, dtype=torch.uint8)
    image[..., 4:] = 255
    expected = torch.full((1, 3, H, W), 255, dtype=torch.uint8)
    expected[..., 3:5] = 0
    assert torch.equal(encoder.view({"image": image}), expected)
    image[..., 4:] = 3  # hardly a step
    assert bool((encoder.view({"image": image}) == 255).all())


@pytest.mark.parametrize("name", ["blurred", "noisy", "edges"])
def test_a_picture_that_is_a_view_already_is_taken_as_it_is(name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"threshold": 0.05} if name == "edges" else {}
    encoder, batch = made(name, **options), batch_of(1)
    view = encoder.view(batch)
    Image.fromarray(np.ascontiguousarray(view[0].permute(1, 2, 0).numpy())).save(tmp_path / "v.png")
    given, of_image = (encoder.parse(word, str(tmp_path / "v.png")) for word in ("given", "image"))
    assert torch.equal(encoder.view(given), view) and not torch.equal(encoder.view(of_image), view)
    assert encoder(given).map.shape == (1, encoder.map_channels, H, W)
    model, path = Encoded(encoder, INFO), str(tmp_path / "v.png")
    for words in ({"given": path, "image": path}, {"image": path, "given": path}):
        with pytest.raises(RecipeError, match="say the same thing; give one of them"):
            model.encode(**words)


@pytest.mark.parametrize("name", NAMES)
def test_images_of_another_size_are_named_as_such(name: str) -> None:
    encoder = made(name, features=2)
    with pytest.raises(InputError, match=r"are \(3, 24, 16\) .* was made for \(3, 12, 8\); give such") as caught:
        encoder({"image": torch.zeros(2, 3, 2 * H, 2 * W, dtype=torch.uint8), "index": torch.arange(2)})
    assert caught.value.field == "data.image_size"


# holes


def test_what_lies_in_a_hole_does_not_reach_the_condition_and_all_else_does() -> None:
    encoder, batch = made("masked", features=4), batch_of(20)
    known = encoder.known(batch)
    assert known.shape == (20, H, W) and known.dtype == torch.bool
    before = map_of(encoder, batch)
    hidden = {**batch, "image": torch.where(known[:, None], batch["image"], 255 - batch["image"])}
    assert torch.equal(map_of(encoder, hidden), before)
    for k in range(20):
        row, column = (int(n) for n in known[k].nonzero()[0]) if bool(known[k].any()) else (None, None)
        if row is not None:
            other = {**batch, "image": batch["image"].clone()}
            other["image"][k, :, row, column] ^= 128
            assert not torch.equal(map_of(encoder, other)[k], before[k])
    assert torch.equal(before[:, 3], known.float())
    assert not bool(before[:, :3].masked_select(~known[:, None]).any())  # middle grey, as of no condition


def test_every_hole_has_a_pixel_and_they_differ_in_size_and_kind() -> None:
    drawn = holes(example_keys(np.arange(500), 0, "t"), 16, 16)
    share = drawn.double().mean((1, 2))
    assert float(share.min()) > 0 and 0.3 < float(share.mean()) < 0.5
    assert float(share.quantile(0.1)) < 0.2 and float(share.quantile(0.9)) > 0.6
    assert len({bytes(hole.numpy()) for hole in drawn}) > 490
    boxes = planes = 0
    for hole in drawn:
        rows, columns = hole.any(1).nonzero(), hole.any(0).nonzero()
        filled = bool(hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all())
        corners = sum(bool(hole[r, c]) for r in (0, -1) for c in (0, -1))
        boxes += filled and corners == 0
        planes += corners == 2
    assert boxes > 60 and planes > 60  # about a third each, less those at the border or turned inside out
    assert bool(holes(example_keys(np.arange(9), 0, "t"), 1, 1).all())


def test_holes_are_fixed_in_evaluation_and_drawn_from_the_examples_stream_in_training() -> None:
    encoder, batch = made("masked"), batch_of(6)
    known = encoder.known(batch)
    part = {key: value[[4, 1]] for key, value in batch.items()}
    assert torch.equal(encoder.known(part), known[[4, 1]])
    assert torch.equal(encoder.known({**batch, "key": example_keys(np.arange(6), 1, "x")}), known)
    encoder.train()
    epochs = [example_keys(np.arange(6), 0, "example", epoch) for epoch in (0, 1)]
    first, second = (encoder.known({**batch, "key": keys}) for keys in epochs)
    assert not torch.equal(first, second) and not torch.equal(first, known)
    assert torch.equal(encoder.known({**part, "key": epochs[0][[4, 1]]}), first[[4, 1]])


def test_a_mask_that_is_given_is_the_hole(tmp_path: Path) -> None:
    encoder = made("masked")
    known = torch.rand(H, W, generator=torch.Generator().manual_seed(0)) < 0.5
    Image.fromarray(np.where(known, 0, 255).astype(np.uint8)).save(tmp_path / "m.png")
    Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(tmp_path / "i.png")
    words = encoder.parse("image", str(tmp_path / "i.png")) | encoder.parse("mask", str(tmp_path / "m.png"))
    assert torch.equal(encoder.known(words)[0], known)
    with pytest.raises(RecipeError, match="say with --mask which pixels are known"):
        encoder({"image": words["image"]})
    Image.fromarray(np.zeros((W, H), np.uint8)).save(tmp_path / "turned.png")
    with pytest.raises(InputError, match="give a mask of their size"):
        encoder.parse("mask", str(tmp_path / "turned.png"))


# what all share


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_batch_mates_change_nothing(name: str, training: bool) -> None:
    encoder = made(name, features=5, label="attributes").double().train(training)
    batch = {**batch_of(7), "key": example_keys(np.arange(7), 0, "t")}
    whole = encoder(batch)
    for k in (0, 3, 6):
        alone = encoder({key: value[k : k + 1] for key, value in batch.items()})
        assert torch.equal(alone.vector, whole.vector[k : k + 1])
        assert torch.allclose(alone.map, whole.map[k : k + 1], atol=1e-12)
        other = encoder({**batch, "image": torch.where(batch["index"][:, None, None, None] == k, batch["image"], 0)})
        assert torch.allclose(other.map[k], whole.map[k], atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_label_stands_beside_the_map(name: str) -> None:
    encoder, batch = made(name, label="one_hot"), batch_of(4)
    found = encoder(batch)
    assert found.vector.tolist() == [[1, 0], [0, 1], [1, 0], [0, 1]] and found.map is not None
    assert set(encoder.words) >= {"image", "label"} and "label" in encoder.reads
    assert encoder.parse("label", "DOG")["label"].tolist() == [1]
    by_attributes = made(name, label="attributes")
    assert by_attributes(batch).vector.shape == (4, 4) and by_attributes.parse("label", "")["attributes"].sum() == -2
    assert made(name, label="embedding", label_size=7)(batch).vector.shape == (4, 7)
    plain = made(name)
    assert plain.vector_size == 0 and "label" not in plain.words
    with pytest.raises(RecipeError, match="has no word 'label'"):
        plain.parse("label", "dog")
    with pytest.raises(RecipeError, match=r"encoder\.label: one_hot needs named classes"):
        made(name, DataInfo(3, H, W), label="one_hot")
    with pytest.raises(ModelError, match="reads 'label', which this data does not have"):
        encoder({"image": batch["image"], "index": batch["index"]})


@pytest.mark.parametrize(("height", "width"), [(12, 8), (7, 5), (1, 9), (32, 32)])
def test_every_place_sees_all_of_the_view(height: int, width: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Surroundings(2, 16, height, width).double()
    view = torch.rand(1, 2, height, width, dtype=torch.float64, requires_grad=True)
    for row, column in ((0, 0), (height - 1, 0), (height // 2, width - 1)):
        (gradient,) = torch.autograd.grad(network(view)[0, :, row, column].sum(), view)
        assert bool((gradient != 0).any(1).all()), (row, column)


def test_pictures_from_files(tmp_path: Path) -> None:
    encoder = made("low_resolution", factor=4)
    generator = np.random.default_rng(0)
    low = generator.integers(0, 256, (H // 4, W // 4, 3), dtype=np.uint8)
    full = generator.integers(0, 256, (H, W, 3), dtype=np.uint8)
    Image.fromarray(low).save(tmp_path / "low.png")
    Image.fromarray(full).save(tmp_path / "full.png")
    Image.fromarray(full).resize((W * 3, H * 3), Image.Resampling.NEAREST).save(tmp_path / "large.png")
    seen = encoder.view(encoder.parse("image", str(tmp_path / "low.png")))
    assert np.array_equal(seen[0, :, ::4, ::4].permute(1, 2, 0), low)
    for name in ("full.png", "large.png"):
        assert np.array_equal(encoder.parse("image", str(tmp_path / name))["image"][0].permute(1, 2, 0), full)


@pytest.mark.parametrize("name", NAMES)
def test_files_that_cannot_be_used(name: str, tmp_path: Path) -> None:
    encoder = made(name)
    (tmp_path / "text.png").write_text("no picture")
    for file, sentence in (("text.png", "no usable picture"), ("absent.png", "cannot be opened")):
        with pytest.raises(InputError, match=sentence) as caught:
            encoder.parse("image", str(tmp_path / file))
        assert file in caught.value.message


def test_the_classes_are_what_the_entry_points_name() -> None:
    assert [find_encoder(name) for name in NAMES] == [LowResolution, Grey, Masked, Blurred, Noisy, Edges]
    assert [find_encoder(name).task for name in NAMES] == ["upscale", "colorize", "complete", "", "", ""]
