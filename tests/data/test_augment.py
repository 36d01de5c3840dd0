"""Augmentation: functions of picture and key alone, within their ranges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from condgen import streams
from condgen.data import augment, augmented


def keys(count: int, seed: int = 0) -> Tensor:
    return streams.example_keys(np.arange(count), seed)


def pictures(count: int, channels: int = 3, bits: int = 8) -> Tensor:
    """Smooth ones, as photographs are."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (24, 20), mode="bicubic", align_corners=True).clamp(0, 1)
    return (smooth * (2**bits - 1)).round().to(torch.uint8)


@pytest.mark.parametrize(("channels", "bits"), [(1, 8), (3, 8), (4, 8), (3, 2)])
def test_an_example_owes_nothing_to_its_batch_mates(channels: int, bits: int) -> None:
    images = pictures(9, channels, bits)
    whole = augmented(images, keys(9), 1.0, bits)
    alone = torch.cat([augmented(images[i : i + 1], keys(9)[i : i + 1], 1.0, bits) for i in range(9)])
    assert torch.equal(whole, alone)
    assert whole.dtype == torch.uint8 and int(whole.max()) < 2**bits
    assert not torch.equal(whole, augmented(images, keys(9, seed=1), 1.0, bits))


def test_strength_0_changes_nothing_and_more_changes_more() -> None:
    images = pictures(40)
    assert torch.equal(augmented(images, keys(40), 0.0), images)
    apart = [float((augmented(images, keys(40), s).float() - images.float()).abs().mean()) for s in (0.2, 1.0, 2.0)]
    assert 2 < apart[0] < apart[1] < apart[2]


def test_how_many_lose_their_colour() -> None:
    images = pictures(8).repeat(250, 1, 1, 1)
    found = augmented(images, keys(2000), 1.0).float()
    grey = ((found[:, 0] - found[:, 1]).abs() < 1.5).flatten(1).all(1)
    assert float(grey.float().mean()) == pytest.approx(augment.GREY, abs=0.03)


def test_a_turn_turns_about_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything but turns off, a ring about the middle stays where it is and a bar does not."""
    for name in ("SHIFT", "ZOOM", "GAIN", "BRIGHTNESS", "LAMP", "TINT", "GREY"):
        monkeypatch.setattr(augment, name, 0.0)
    monkeypatch.setattr(augment, "_blurred", lambda x, u: x)
    monkeypatch.setattr(augment, "TURN", 1.0)  # up to a right angle
    rows, columns = np.indices((41, 61)) - np.array([20, 30])[:, None, None]
    ring = torch.from_numpy((np.exp(-(((rows**2 + columns**2) ** 0.5 - 12) ** 2) / 8) * 255).astype(np.uint8))
    bar = torch.from_numpy((np.exp(-(rows**2) / 8) * 255).astype(np.uint8))
    images = torch.stack([ring, bar])[:, None].repeat(20, 1, 1, 1)
    moved = (augmented(images, keys(40), 1.0).float() - images.float()).abs().mean((1, 2, 3))
    assert float(moved[::2].max()) < 2 < 20 < float(moved[1::2].max())


def test_a_shift_moves_by_at_most_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TURN", "ZOOM", "GAIN", "BRIGHTNESS", "LAMP", "TINT", "GREY"):
        monkeypatch.setattr(augment, name, 0.0)
    images = torch.zeros(200, 1, 50, 50, dtype=torch.uint8)
    images[:, :, 24:26, 24:26] = 255
    found = augmented(images, keys(200), 1.0).float()[:, 0]
    weight = found / found.sum((1, 2), keepdim=True)
    rows = (weight.sum(2) * torch.arange(50)).sum(1) - 24.5
    columns = (weight.sum(1) * torch.arange(50)).sum(1) - 24.5
    for place in (rows, columns):
        assert 2.5 < float(place.abs().max()) <= 50 * augment.SHIFT + 0.05
        assert abs(float(place.mean())) < 0.4


def test_half_of_the_pictures_lose_sharpness_and_no_light(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TURN", "ZOOM", "SHIFT", "GAIN", "BRIGHTNESS", "LAMP", "TINT", "GREY"):
        monkeypatch.setattr(augment, name, 0.0)
    board = (torch.from_numpy(np.indices((24, 24)).sum(0)) // 4 % 2 * 200).to(torch.uint8)
    images = board.expand(400, 1, 24, 24)
    found = augmented(images, keys(400), 1.0).float()
    edges = (found[..., 1:] - found[..., :-1]).abs().amax((1, 2, 3))
    assert 0.4 < float((edges == 200).float().mean()) < 0.6
    assert float(edges.min()) < 90
    assert float((found.mean((1, 2, 3)) - images.float().mean()).abs().max()) < 3
