"""Pixels that the condition gives away: the others alone count, in training, in evaluation, under any condition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from condgen.condition import DataInfo
from condgen.evaluate import likelihood_report, verify
from condgen.evaluate.bits import bits_per_dim, derangement
from condgen.model import ConditionalModel
from condgen.recipe import recipe_from_dict
from condgen.recipe.build import build_model
from condgen.streams import example_keys

H, W, N = 6, 5, 14
INFO = DataInfo(3, H, W, 3, attributes=("hat",))


def model_of(encoder: dict[str, Any], **sections: Any) -> ConditionalModel:
    recipe = recipe_from_dict(
        {
            "data": {"source": "npz", "image_size": [H, W], "bit_depth": 3},
            "encoder": {"features": 8} | encoder,
            "model": {"filters": 4, "layers": 2, "kernel_size": 3, "likelihood": "logistic_mixture", "mixtures": 2}
            | sections,
            "train": {"max_steps": 1, "precision": "fp64"},
        },
        "tests",
    )
    return build_model(recipe, INFO).double().eval()


class Images:
    """Noise, with an attribute each."""

    info, split = INFO, "test"

    def __len__(self) -> int:
        return N

    def batch(self, indices: np.ndarray) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(3)
        image = torch.randint(0, 8, (N, 3, H, W), generator=generator).to(torch.uint8)
        index = torch.from_numpy(indices)
        return {"image": image[index], "attributes": (index[:, None] % 2).to(torch.int8), "index": index}


@pytest.mark.parametrize("likelihood", ["logistic_mixture", "continuous_mixture", "categorical"])
def test_training_lowers_the_cost_of_the_hole_alone(likelihood: str) -> None:
    model = model_of({"type": "masked"}, likelihood=likelihood)
    batch = {**Images().batch(np.arange(N)), "key": example_keys(np.arange(N), 0, "t")}
    for training in (False, True):
        model.train(training)
        known = model.encoder.known(batch)
        assert known is not None
        parameters = model._parameters_of(batch["image"], model.condition(batch), None)
        each = model.likelihood.log_bound(parameters, batch["image"], batch["key"])
        slow = torch.stack([-sum(row[~hole]) for row, hole in zip(each, known, strict=True)])
        assert torch.allclose(model.nll(batch), slow)
    none = {**batch, "known": torch.zeros(N, H, W, dtype=torch.bool)}
    assert torch.allclose(model.nll(none), -each_of(model, none).sum((1, 2)))


def each_of(model: ConditionalModel, batch: dict[str, Tensor]) -> Tensor:
    parameters = model._parameters_of(batch["image"], model.condition(batch), None)
    return model.likelihood.log_bound(parameters, batch["image"], batch.get("key"))


def test_evaluate_counts_the_hole_and_keeps_it_under_other_conditions() -> None:
    model, images = model_of({"type": "masked", "dropout": 0.1}), Images()
    report = likelihood_report(model, images, batch_size=5, quiet=True)
    batch = images.batch(np.arange(N))
    known = model.encoder.known(batch)
    assert known is not None
    hole = (~known).double()
    partner = derangement(N, 0)
    swapped = {**images.batch(partner), "known": known}
    bits = {}
    with torch.no_grad():
        for name, h in (("own", model.condition(batch)), ("other", model.condition(swapped)), ("none", None)):
            bits[name] = -(model.log_prob_map(batch["image"], h) * hole).sum((1, 2)).numpy() / math.log(2)
    sizes = 3 * hole.sum((1, 2)).numpy()
    assert report["bits_per_dim"] == pytest.approx(bits["own"].mean() / INFO.dimensions)
    assert report["bits_per_unknown_dim"] == pytest.approx(bits["own"].sum() / sizes.sum())
    assert report["unknown_share"] == pytest.approx(sizes.mean() / INFO.dimensions)
    assert report["shuffle_gap_bits"] == pytest.approx((bits["other"] - bits["own"]).mean())
    assert report["condition_bits"] == pytest.approx((bits["none"] - bits["own"]).mean())
    draws = np.random.default_rng(0).integers(0, N, (4000, N))  # the bootstrap as a witness of the interval
    ratios = bits["own"][draws].sum(1) / sizes[draws].sum(1)
    assert report["bits_per_unknown_dim_ci95"] == pytest.approx(1.96 * ratios.std(), rel=0.25)
    again = likelihood_report(model, images, batch_size=3, quiet=True)
    assert again["bits_per_unknown_dim"] == pytest.approx(report["bits_per_unknown_dim"], rel=1e-12)
    assert bits_per_dim(model, images)[0] == pytest.approx(report["bits_per_dim"], rel=1e-12)


def test_of_other_models_nothing_is_said_of_holes() -> None:
    report = likelihood_report(model_of({"type": "grey"}), Images(), quiet=True)
    assert "bits_per_unknown_dim" not in report and "unknown_share" not in report


@pytest.mark.parametrize("core", ["gated", "pixelcnn++"])
def test_verify_passes_with_a_map_and_a_vector(core: str) -> None:
    sizes: dict[str, Any] = {"core": core} | (
        {"resnets": 1, "scales": 1, "full_sight": True} if core != "gated" else {}
    )
    model = model_of({"type": "masked", "label": "attributes"}, conditioning="both", map_channels=2, **sizes)
    found = verify(model, quiet=True)
    assert found and all(holds is True for holds in found.values()), found


@torch.no_grad()
def test_known_pixels_are_kept_whatever_the_sampler() -> None:
    model, batch = model_of({"type": "masked"}), Images().batch(np.arange(5))
    known = model.encoder.known(batch)
    assert known is not None
    drawn = {
        name: model.sample(model.condition(batch), 2, known=batch["image"], mask=known, sampler=name)
        for name in ("cached", "fixed_point", "naive")
    }
    for images in drawn.values():
        assert torch.equal(images, drawn["naive"])
        kept = known.repeat_interleave(2, 0)[:, None].expand_as(images)
        assert torch.equal(images[kept], batch["image"].repeat_interleave(2, 0)[kept])
        assert not torch.equal(images, batch["image"].repeat_interleave(2, 0))
