"""The face encoder: who is in a picture and its colours, by either network, and where its weights come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from photos import astronaut, head
from torch import Tensor

from condgen import Condition, DataInfo, open_face
from condgen.data.portraits import draw
from condgen.encoders import facenet
from condgen.encoders.face import Face, FaceOptions, region_weights
from condgen.encoders.face_network import FaceNetwork, resized
from condgen.encoders.facenet import InceptionResnet
from condgen.errors import MachineError, ModelError, RecipeError
from condgen.recipe import recipe_from_dict
from condgen.recipe.build import build_model, build_trained
from condgen.store import save_model

INFO = DataInfo(3, 32, 32)


def encoder(info: DataInfo = INFO, **options: Any) -> Face:
    torch.manual_seed(0)
    return Face(FaceOptions(**options), info)


def images(count: int, channels: int = 3, height: int = 32, width: int = 32) -> Tensor:
    values = np.random.default_rng(0).integers(0, 256, (count, channels, height, width), dtype=np.uint8)
    return torch.from_numpy(values)


def test_the_small_network() -> None:
    network = FaceNetwork().double()
    assert 300_000 < sum(p.numel() for p in network.parameters()) < 700_000
    x = images(4, height=64, width=64).double() / 255
    vectors = network(x)
    assert vectors.shape == (4, 128) and torch.allclose(vectors.norm(dim=1), torch.ones(4).double())
    assert torch.allclose(network(x[2:3]), vectors[2:3], atol=1e-12)  # whatever its batch mates
    assert torch.allclose(network(255 * x), vectors, atol=1e-4)
    assert torch.allclose(network(0.3 * x + 0.4), vectors, atol=2e-2)  # light and contrast
    assert not torch.allclose(network(x.flip(3)), vectors, atol=0.02)
    assert network(torch.zeros(1, 3, 64, 64).double()).isfinite().all()
    network.train()
    assert torch.equal(network(x), vectors)  # no batch statistics, no dropout


def test_every_parameter_of_the_small_network_learns() -> None:
    network = FaceNetwork()
    network(images(2).float())[:, 0].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 32), (24, 40), (64, 48)])
def test_regions_are_where_faces_have_them(height: int, width: int) -> None:
    weights = region_weights(height, width)
    assert weights.shape == (3, height, width) and torch.allclose(weights.sum((1, 2)), torch.ones(3))
    assert not bool(((weights > 0).sum(0) > 1).any())
    side = min(height, width)
    for region, (x, y) in enumerate([(0.5, 0.62), (0.5, 0.2), (0.05, 0.1)]):
        row, column = int((y - 0.5) * side + height / 2), int((x - 0.5) * side + width / 2)
        assert weights[region, row, column] > 0


def test_the_vector_is_the_identity_and_the_colours() -> None:
    face = encoder().double()
    batch = {"image": images(5)}
    vector = face(batch).vector
    assert vector.shape == (5, face.vector_size) == (5, 128 + 9) and face.identity_size == 128
    assert torch.equal(vector[:, :128], face.identity(batch))
    weights = region_weights(32, 32)
    for row in range(5):
        for region in range(3):
            inside = weights[region] > 0
            for colour in range(3):
                mean = batch["image"][row, colour][inside].double().mean() / 255
                assert abs(vector[row, 128 + 3 * region + colour] - (2 * mean - 1)) < 1e-6
    assert torch.equal(encoder(colours=False).double()(batch).vector, vector[:, :128])


def test_grey_transparent_and_shallow_pictures() -> None:
    grey = images(2, 1)
    one = encoder(DataInfo(1, 32, 32))({"image": grey}).vector
    three = encoder()({"image": grey.expand(-1, 3, -1, -1).contiguous()}).vector
    assert one.shape == (2, 128 + 3) and torch.allclose(one[:, :128], three[:, :128], atol=1e-6)
    assert torch.allclose(one[:, 128:], three[:, 128::3], atol=1e-6)
    x = images(2)
    clear = torch.cat([x, torch.full_like(x[:, :1], 255)], 1)
    four = encoder(DataInfo(4, 32, 32))
    assert torch.allclose(four({"image": clear}).vector, encoder()({"image": x}).vector, atol=1e-6)
    hidden = torch.cat([x, torch.zeros_like(x[:, :1])], 1)
    assert torch.allclose(four({"image": hidden}).vector[:, 128:], torch.ones(2, 9))
    assert torch.allclose(
        encoder(DataInfo(3, 32, 32, 5))({"image": x >> 3}).vector[:, 128:], encoder()({"image": x}).vector[:, 128:],
        atol=0.03,
    )  # fmt: skip
    with pytest.raises(RecipeError, match=r"too small for the colours of a face; set encoder.colours to false"):
        encoder(DataInfo(3, 4, 4))
    assert encoder(DataInfo(3, 4, 4), colours=False).vector_size == 128


def test_colours_of_drawn_portraits_tell_skin_and_hair() -> None:
    """Light from dark, on portraits of which it is known: the regions lie right on what the package draws."""
    pictures, attributes = draw(0, np.arange(400), np.zeros(400, np.int64), 32, 32, 2.0)
    from condgen.data.portraits import ATTRIBUTES

    vector = encoder()({"image": torch.from_numpy(pictures)}).vector.detach().numpy()
    face, hair = vector[:, 128:131].mean(1), vector[:, 131:134].mean(1)
    has = {name: attributes[:, k] == 1 for k, name in enumerate(ATTRIBUTES)}
    dark, light = has["dark skin"] & ~has["beard"], ~has["dark skin"] & ~has["beard"]
    assert np.mean(face[light][:, None] > face[dark][None]) > 0.97
    bare = ~has["hat"] & ~has["bald"]
    black, blond = bare & has["dark hair"], bare & (has["blond hair"] | has["grey hair"])
    assert np.mean(hair[blond][:, None] > hair[black][None]) > 0.95


@torch.no_grad()
def test_light_changes_pictures_and_colours_alike() -> None:
    """What h says of a source under another light is what the encoder sees of that source under it."""
    face, x, keys = encoder(light=1.0).double(), images(40) // 2 + 60, torch.arange(40)  # no value is cut off
    h = face({"image": x})
    lit, other = face.varied(x, h, keys)
    assert lit.dtype == torch.uint8 and other.vector is not None and h.vector is not None
    seen = face({"image": lit}).vector
    assert float((other.vector[:, 128:] - seen[:, 128:]).abs().max()) < 2 / 255
    assert torch.equal(other.vector[:, :128], h.vector[:, :128])
    moved = (other.vector - h.vector)[:, 128:].abs().mean(1)
    assert float(moved.min()) > 0 and float(moved.mean()) > 0.05
    again, _ = face.varied(x[3:5], h[3:5], keys[3:5])
    assert torch.equal(again, lit[3:5])  # of picture and key alone


def test_noise_turns_half_of_the_embeddings() -> None:
    face, x, keys = encoder(noise=1.5), images(400, height=16, width=16), torch.arange(400)
    vector = torch.cat([torch.eye(128)[:1].expand(400, -1), torch.full((400, 9), 0.25)], 1)
    same, h = face.varied(x, Condition(vector), keys)
    assert same is x and h.vector is not None and torch.equal(h.vector[:, 128:], vector[:, 128:])
    assert torch.allclose(h.vector[:, :128].norm(dim=1), torch.ones(400), atol=1e-5)
    turned = (h.vector[:, :128] - vector[:, :128]).norm(dim=1) > 1e-3
    assert 160 < int(turned.sum()) < 240
    cosines = h.vector[turned][:, 0]  # about 1 / sqrt(1 + length^2), length up to 1.5: from 0.55
    assert 0.4 < float(cosines.min()) < 0.65 and float(cosines.max()) > 0.98


def test_neither_noise_nor_light_unless_asked_for() -> None:
    face, x = encoder(), images(3)
    h = face({"image": x})
    assert face.varied(x, h, torch.arange(3)) == (x, h)
    with pytest.raises(ValueError, match="light: the condition says nothing of it without colours"):
        FaceOptions(light=0.5, colours=False)


def test_training_varies_what_evaluation_does_not() -> None:
    recipe = recipe_from_dict(
        {
            "data": {"source": "portraits", "image_size": 16, "identities": 8, "views": 2, "pairs": "identity"},
            "encoder": {"type": "face", "light": 1.0, "noise": 1.0, "trainable": False},
            "model": {"filters": 4, "layers": 1, "likelihood": "logistic_mixture"},
            "train": {"max_steps": 1},
        },
        "test",
    )
    model = build_model(recipe, DataInfo(3, 16, 16))
    batch = {"image": images(4, height=16, width=16), "key": torch.arange(4)}
    with torch.no_grad():
        plain, noisy = model.eval().nll(batch), model.train().nll(batch)
        assert torch.equal(model.nll({"image": batch["image"]}), plain)  # without keys there is no chance
        assert torch.equal(model.nll(batch), noisy) and not torch.equal(plain, noisy)


def test_a_photograph_named_by_a_word_is_aligned(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    astronaut().save(path)
    face = encoder(DataInfo(3, 24, 24, 5))
    batch = face.parse("image", str(path))
    assert torch.equal(batch["image"][0], open_face(path, 3, 24, 24, bit_depth=5)[0])
    assert face(batch).vector.shape == (1, 137)
    with pytest.raises(RecipeError, match="has no word 'label'"):
        face.parse("label", "x")


def test_frozen_where_weights_are_given_unless_told_otherwise() -> None:
    assert not encoder().frozen and encoder(weights="runs/face").frozen
    assert not encoder(weights="runs/face", trainable=True).frozen and encoder(trainable=False).frozen


def save_embedding(folder: Path, **options: Any) -> Any:
    recipe = recipe_from_dict(
        {
            "data": {"image_size": 16},
            "encoder": {"type": "face", "colours": False, **options},
            "train": {"objective": "triplet", "max_steps": 1, "seed": 3},
        },
        "tests",
    )
    model = build_trained(recipe, DataInfo(3, 16, 16))
    save_model(model, recipe, folder, "A test.\n")
    return model


def test_weights_of_another_run(tmp_path: Path) -> None:
    trained = save_embedding(tmp_path / "model", size=16)
    face = encoder(size=16, weights=str(tmp_path / "model"))
    before = face.identity({"image": images(1)})
    face.load_pretrained()
    assert not torch.equal(face.identity({"image": images(1)}), before)
    for own, other in zip(face.network.parameters(), trained.encoder.network.parameters(), strict=True):
        assert torch.equal(own, other)
    with pytest.raises(ModelError, match=r"holds a face encoder of network small and 16 numbers, and .* 8 numbers is"):
        encoder(size=8, weights=str(tmp_path / "model")).load_pretrained()
    with pytest.raises(ModelError, match="There is no run or model"):
        encoder(weights=str(tmp_path / "none")).load_pretrained()


@pytest.fixture(scope="module")
def inception() -> InceptionResnet:
    torch.manual_seed(1)
    return InceptionResnet()


def test_inception_stays_in_evaluation_mode(inception: InceptionResnet) -> None:
    inception.train()
    assert not any(module.training for module in inception.modules())
    x = images(2).float() / 255
    vectors = inception(x)
    assert vectors.shape == (2, 512) and torch.allclose(vectors.norm(dim=1), torch.ones(2))
    assert torch.allclose(inception(x[:1]), vectors[:1], atol=1e-5)
    changed = x.clone()
    changed[:, :, :6] = 0  # above the box that it looks at
    assert torch.equal(inception(changed), vectors)
    assert all(value.is_floating_point() for value in inception.state_dict().values())


def test_published_weights_from_a_file(
    inception: InceptionResnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the published file is: with a classifier and counters."""
    state = {**inception.network.state_dict(), "logits.weight": torch.zeros(5, 512), "logits.bias": torch.zeros(5)}
    state["conv2d_1a.bn.num_batches_tracked"] = torch.tensor(7)
    home = tmp_path / "checkpoints"
    home.mkdir()
    path = home / facenet.PUBLISHED["vggface2"]
    torch.save(state, path)  # what condgen itself never writes
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    named = encoder(network="inception", weights="vggface2", colours=False)
    named.load_pretrained()
    x = {"image": images(1)}
    assert named.vector_size == 512 and torch.equal(named(x).vector, inception(x["image"].float() / 255))
    assert named.frozen
    del state["last_bn.weight"]
    torch.save(state, tmp_path / "part.pt")
    with pytest.raises(ModelError, match=r"part\.pt holds no weights of InceptionResnetV1: last_bn\.weight is missing"):
        inception.read(tmp_path / "part.pt")
    (tmp_path / "bad.pt").write_bytes(b"not weights")
    with pytest.raises(ModelError, match=r"is damaged, or no file of torch.save"):
        encoder(network="inception", weights=str(tmp_path / "bad.pt")).load_pretrained()


def test_offline_the_sentence_says_where_weights_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from facenet_pytorch.models.utils import download

    def fail(*args: object, **options: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(download, "download_url_to_file", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MachineError) as caught:
        facenet.published("casia-webface")
    assert caught.value.exit_code == 6
    assert caught.value.message == (
        "encoder.weights: casia-webface is not here and cannot be fetched (<urlopen error Name or service not known>); "
        f"put 20180408-102900-casia-webface.pt into {tmp_path / 'checkpoints'}, or give its path as encoder.weights."
    )


def test_names_of_published_weights_need_their_network() -> None:
    with pytest.raises(ValueError, match="vggface2 is of the other network; set network to inception"):
        FaceOptions(weights="vggface2")


def test_pictures_are_resized_with_smoothing() -> None:
    x = torch.zeros(1, 3, 128, 128)
    x[..., ::2] = 1
    assert torch.allclose(resized(x, 64)[..., 1:-1], torch.full((1, 3, 64, 62), 0.5))
    assert resized(x, 128) is x
    assert resized(torch.rand(1, 3, 20, 30), 64).shape == (1, 3, 64, 64)


def test_heads_of_one_person_are_nearer_in_colour_than_another_s(tmp_path: Path) -> None:
    """Two photographs of one head, framed apart, agree in their colours after alignment."""
    face = encoder()
    found = []
    for name, picture in (("a", astronaut()), ("b", head().resize((500, 500)).rotate(12))):
        picture.save(tmp_path / f"{name}.png")
        found.append(face(face.parse("image", str(tmp_path / f"{name}.png"))).vector[0, 128:])
    assert (found[0] - found[1]).abs().max() < 0.12
