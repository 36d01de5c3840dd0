"""Bits per dimension against sums written out image by image, and the bad inputs."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from building import condition_for, random_images, tiny_model
from torch import Tensor

from condgen import streams
from condgen.cli.evaluate import _table
from condgen.condition import Condition, DataInfo
from condgen.errors import CondgenError, InputError, NumericalError, RecipeError
from condgen.evaluate import bits_per_dim, likelihood_report, score
from condgen.evaluate.bits import derangement, evaluated_indices
from condgen.model import ConditionalModel


@dataclass
class Images:
    """A data set in memory, with a condition for each image."""

    info: DataInfo
    images: Tensor
    condition: Condition
    split: str = "test"

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: np.ndarray) -> Mapping[str, Tensor]:
        chosen = torch.from_numpy(indices)
        batch = {"image": self.images[chosen], "index": chosen}
        for name, part in (("vector", self.condition.vector), ("map", self.condition.map)):
            if part is not None:
                batch[name] = part[chosen]
        return batch


def images_for(model: ConditionalModel, n: int) -> Images:
    return Images(model.info, random_images(model, n, seed=1), condition_for(model, n, seed=2))


def witness(model: ConditionalModel, data: Images, given: list[int]) -> list[float]:
    """-log2 p of each image with the condition of image ``given[i]``, one image at a time."""
    with torch.no_grad():
        return [
            -float(model.log_prob(data.images[i : i + 1], data.condition[k])) / math.log(2) for i, k in enumerate(given)
        ]


def mean_and_half_width(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, 1.96 * math.sqrt(variance / len(values))


@pytest.mark.parametrize("kind", ["categorical", "bernoulli", "logistic_mixture"])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_bits_per_dim_is_the_mean_over_images_for_any_batch_size(kind: str, batch_size: int) -> None:
    model = tiny_model(kind, channels=3, height=3, width=4, conditioning="vector+map")
    data = images_for(model, 7)
    mean, half_width = mean_and_half_width([b / 36 for b in witness(model, data, list(range(7)))])
    found = bits_per_dim(model, data, batch_size=batch_size)
    assert found == pytest.approx((mean, half_width), rel=1e-12)


def test_a_uniform_model_has_exactly_the_bits_of_its_values() -> None:
    model = tiny_model("categorical", bit_depth=3)
    torch.nn.init.zeros_(model.core.head_out.weight)
    torch.nn.init.zeros_(model.core.head_out.bias)
    assert bits_per_dim(model, images_for(model, 5)) == pytest.approx((3, 0), abs=1e-12)


def test_the_report_agrees_with_its_parts_written_out() -> None:
    model = tiny_model("categorical", channels=3, height=3, width=4, conditioning="both")
    data, n, dimensions = images_for(model, 9), 9, 36
    report = likelihood_report(model, data, batch_size=4, seed=5, quiet=True)
    own, shuffled = witness(model, data, list(range(n))), witness(model, data, derangement(n, 5).tolist())
    gaps = [b - a for a, b in zip(own, shuffled, strict=True)]
    expected = {
        "bits_per_dim": sum(own) / n / dimensions,
        "bits_per_dim_ci95": mean_and_half_width(own)[1] / dimensions,
        "bits_per_dim_shuffled": sum(shuffled) / n / dimensions,
        "shuffle_gap_bits": sum(gaps) / n,  # an image, not a dimension
        "shuffle_gap_bits_ci95": mean_and_half_width(gaps)[1],  # paired
    }
    assert {key: report[key] for key in expected} == pytest.approx(expected, rel=1e-9)
    rest = {key: report[key] for key in ("dimensions", "examples", "split", "bit_depth")}
    assert rest == {"dimensions": 36, "examples": 9, "split": "test", "bit_depth": 2}
    unknown = ("bits_per_dim_no_condition", "condition_bits", "condition_bits_ci95")  # never trained without
    rest |= {key: report[key] for key in unknown}
    assert [rest[key] for key in unknown] == [None] * 3
    assert set(report) == set(expected) | set(rest) | {"baseline_png", "baseline_webp"}
    assert all(isinstance(report[key], float) and report[key] for key in ("baseline_png", "baseline_webp"))


@pytest.mark.parametrize("kind", ["categorical", "continuous_mixture"])
def test_what_the_condition_saves_is_paired_with_what_the_model_knows_without_it(kind: str) -> None:
    model = tiny_model(kind, height=3, width=4, conditioning="vector+map", condition_dropout=0.1)
    data, n = images_for(model, 9), 9
    report = likelihood_report(model, data, batch_size=4, quiet=True)
    keys = streams.example_keys(np.arange(n), 0, "bound")

    def bits(i: int, h: Condition) -> float:
        """With the image's own noise, where there is any."""
        found = model.log_prob_and_bound(data.images[i : i + 1], h, keys[i : i + 1])[1]
        return -float(found) / math.log(2)

    zeros = Condition(torch.zeros(1, 3), torch.zeros(1, 2, 3, 4))
    with torch.no_grad():
        own, without = [bits(i, data.condition[i]) for i in range(n)], [bits(i, zeros) for i in range(n)]
    saved = mean_and_half_width([b - a for a, b in zip(own, without, strict=True)])
    assert (report["condition_bits"], report["condition_bits_ci95"]) == pytest.approx(saved, rel=1e-9)
    assert report["bits_per_dim_no_condition"] == pytest.approx(sum(without) / n / 12, rel=1e-12)
    gap = report["shuffle_gap_bits"]
    assert isinstance(gap, float) and gap != report["condition_bits"]
    lines = [" ".join(line.split()) for line in _table(report).splitlines()]
    assert f"what the condition saves {saved[0]:.4f} ± {saved[1]:.4f} bits/image" in lines
    assert any(line.startswith("model, no condition") for line in lines)
    assert not any("no condition" in line for line in _table({**report, **dict.fromkeys(
        ("bits_per_dim_no_condition", "condition_bits", "condition_bits_ci95"))}).splitlines())  # fmt: skip
    alone = likelihood_report(model, images_for(model, 1), quiet=True)  # nothing to swap with, but something to lose
    assert alone["shuffle_gap_bits"] is None and isinstance(alone["condition_bits"], float)
    assert alone["condition_bits_ci95"] is None


@pytest.mark.parametrize("batch_size", [2, 64])
def test_the_report_of_a_bound_says_so_and_has_the_exact_figure_beside_it(batch_size: int) -> None:
    model = tiny_model("continuous_mixture", channels=3, height=3, width=4, conditioning="global", bit_depth=3)
    data, n, dimensions = images_for(model, 9), 9, 36
    report = likelihood_report(model, data, limit=5, batch_size=batch_size, seed=5, quiet=True)
    chosen = evaluated_indices(n, 5).tolist()
    partners = [chosen[k] for k in derangement(5, 5)]
    keys = streams.example_keys(np.array(chosen), 0, "bound")

    def bounds(given: list[int]) -> list[float]:
        """Image by image; under other conditions an image keeps its noise."""
        nats = [
            -float(model.log_prob_and_bound(data.images[i : i + 1], data.condition[j], keys[k : k + 1])[1])
            for k, (i, j) in enumerate(zip(chosen, given, strict=True))
        ]
        return [value / math.log(2) for value in nats]

    with torch.no_grad():
        own, shuffled, every = bounds(chosen), bounds(partners), witness(model, data, list(range(n)))
    exact = [every[i] for i in chosen]
    assert report["bound"] is True
    expected = {
        "bits_per_dim": sum(own) / 5 / dimensions,
        "bits_per_dim_ci95": mean_and_half_width(own)[1] / dimensions,
        "bits_per_dim_exact": sum(exact) / 5 / dimensions,
        "bits_per_dim_exact_ci95": mean_and_half_width(exact)[1] / dimensions,
        "bits_per_dim_shuffled": sum(shuffled) / 5 / dimensions,
        "shuffle_gap_bits": sum(b - a for a, b in zip(own, shuffled, strict=True)) / 5,
    }
    assert {key: report[key] for key in expected} == pytest.approx(expected, rel=1e-9)
    assert report["bits_per_dim"] != report["bits_per_dim_exact"]
    assert bits_per_dim(model, data, 5) == pytest.approx((expected["bits_per_dim"], expected["bits_per_dim_ci95"]))
    lines = [" ".join(line.split()) for line in _table(report).splitlines()]
    assert any(line.startswith(f"model, variational bound {report['bits_per_dim']:.4f} ±") for line in lines)
    assert any(line.startswith(f"model, discretised {report['bits_per_dim_exact']:.4f} ±") for line in lines)


def test_the_report_of_an_unconditional_model_has_nothing_to_shuffle() -> None:
    model = tiny_model("bernoulli", condition_dropout=0.5)
    report = likelihood_report(model, images_for(model, 3), quiet=True)
    shuffled = ("bits_per_dim_shuffled", "shuffle_gap_bits", "shuffle_gap_bits_ci95", "condition_bits")
    assert [report[key] for key in shuffled] == [None] * 4
    assert report["bits_per_dim"] == bits_per_dim(model, images_for(model, 3))[0]


def test_one_image_has_no_interval_and_nothing_to_swap_with() -> None:
    model = tiny_model(conditioning="global")
    report = likelihood_report(model, images_for(model, 1), quiet=True)
    assert report["examples"] == 1 and report["bits_per_dim"] is not None
    assert [report[key] for key in ("bits_per_dim_ci95", "shuffle_gap_bits", "shuffle_gap_bits_ci95")] == [None] * 3


def test_the_gap_is_above_zero_where_the_condition_tells_the_image() -> None:
    """One pixel, whose value the condition gives away; the others' conditions are wrong."""
    model = tiny_model("bernoulli", height=1, width=1, conditioning="global", filters=2, layers=1)
    with torch.no_grad():
        for parameter in model.core.parameters():
            parameter.zero_()
        layer = model.core.layers[0]
        layer.horizontal_bias.of_vector.weight[0, 0] = 30  # the tanh of map 0 is the sign of h_0
        layer.skip.weight[0, 0] = 1
        model.core.head_in.weight[0, 0] = 1
        model.core.head_out.weight[0, 0] = 80
        model.core.head_out.bias[0] = -20
    values = torch.arange(20) % 2
    vector = torch.zeros(20, 3, dtype=torch.float64)
    vector[:, 0] = 2.0 * values - 1
    data = Images(model.info, values.to(torch.uint8).view(20, 1, 1, 1), Condition(vector))
    report = likelihood_report(model, data, quiet=True)
    gap, half_width = report["shuffle_gap_bits"], report["shuffle_gap_bits_ci95"]
    assert isinstance(gap, float) and isinstance(half_width, float)
    assert report["bits_per_dim"] == pytest.approx(0, abs=1e-6)
    wrong = sum(values[i] != values[k] for i, k in enumerate(derangement(20, 0).tolist()))
    assert gap == pytest.approx(float(wrong) / 20 * 20 / math.log(2), rel=1e-6)
    assert gap > half_width


@pytest.mark.parametrize("count", [2, 3, 10, 501])
def test_nothing_keeps_its_place(count: int) -> None:
    partner = derangement(count, 3)
    assert sorted(partner.tolist()) == list(range(count))
    assert (partner != np.arange(count)).all()
    assert np.array_equal(partner, derangement(count, 3))
    assert count < 4 or not np.array_equal(partner, derangement(count, 4))


def test_a_limit_takes_the_same_images_from_all_over_the_set() -> None:
    some = evaluated_indices(1000, 100)
    assert len(set(some.tolist())) == 100 and (np.diff(some) > 0).all()
    assert np.array_equal(some, evaluated_indices(1000, 100))
    assert some[0] < 100 and some[-1] >= 900
    assert evaluated_indices(5, 9).tolist() == evaluated_indices(5).tolist() == [0, 1, 2, 3, 4]
    model = tiny_model()
    data = images_for(model, 20)
    chosen = evaluated_indices(20, 6).tolist()
    part = Images(model.info, data.images[chosen], data.condition)
    assert bits_per_dim(model, data, 6) == bits_per_dim(model, part)
    assert likelihood_report(model, data, limit=6, quiet=True) == likelihood_report(model, part, quiet=True)


def test_the_model_is_left_in_its_mode_and_evaluated_without_dropout() -> None:
    model = tiny_model(dropout=0.5)
    data = images_for(model, 4)
    expected = bits_per_dim(model, data)
    model.train()
    assert bits_per_dim(model, data) == expected
    assert model.training and model.core.training


def test_fp64_models_are_evaluated_in_fp64_and_fp32_models_nearly_so() -> None:
    model = tiny_model("categorical", channels=3, conditioning="global")
    data = images_for(model, 6)
    exact = bits_per_dim(model, data)[0]
    assert bits_per_dim(model.float(), data)[0] == pytest.approx(exact, rel=1e-5)


def test_nan_is_an_error_that_names_the_image() -> None:
    model = tiny_model(conditioning="global")
    data = images_for(model, 6)
    assert data.condition.vector is not None
    model.encoder._finite_seen = True  # the encoder's own check is another test's
    data.condition.vector[4] = math.nan
    with pytest.raises(NumericalError, match=r"image 4 of the test split is nan"):
        bits_per_dim(model, data, batch_size=2)
    with pytest.raises(NumericalError, match=r"image \d of the test split is nan"):
        likelihood_report(model, data, quiet=True)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"images": torch.zeros(0, 1, 8, 8, dtype=torch.uint8)}, InputError, "test split has no images"),
        ({"images": torch.zeros(2, 1, 8, 9, dtype=torch.uint8)}, InputError, "(1, 8, 8)"),
        ({"info": DataInfo(1, 8, 8, 5)}, RecipeError, "data.bit_depth is 5, but the model's images have 2 bits"),
        ({"limit": 0}, RecipeError, "at least 1, not 0"),
    ],
)
def test_what_cannot_be_evaluated_gets_a_sentence(
    change: dict[str, object], error: type[CondgenError], words: str
) -> None:
    model = tiny_model()
    data = replace(images_for(model, 2), **{k: v for k, v in change.items() if k != "limit"})  # type: ignore[arg-type]
    limit = 0 if "limit" in change else None
    for call in (
        lambda: bits_per_dim(model, data, limit),
        lambda: likelihood_report(model, data, limit=limit, quiet=True),
    ):
        with pytest.raises(error, match=re.escape(words)):
            call()


@pytest.mark.parametrize(
    ("known", "there", "fits"),
    [
        (("cat", "dog"), ("cat", "dog"), True),
        (("cat", "dog"), ("dog", "cat"), False),
        (("cat", "dog"), ("dog",), False),
        (("cat", "dog"), ("0", "1"), True),
        (("cat", "dog"), ("0", "1", "2"), False),
        (("0", "1", "2"), ("cat", "dog"), True),
        (("0", "1", "2"), ("1", "2"), False),
    ],
)
def test_labels_must_mean_what_they_meant(known: tuple[str, ...], there: tuple[str, ...], fits: bool) -> None:
    model = tiny_model()
    model.info = replace(model.info, classes=known)
    model.encoder.reads = ("label",)
    data = replace(images_for(model, 2), info=replace(model.info, classes=there))
    data.batch = lambda indices: {"image": data.images[indices], "label": torch.zeros(len(indices))}  # type: ignore[method-assign]
    if fits:
        bits_per_dim(model, data)
    else:
        with pytest.raises(InputError, match="other classes than the model was trained on"):
            bits_per_dim(model, data)


def _rank(rank: int, folder: str) -> None:
    """One of two processes; this file is their program."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    model = tiny_model("categorical", conditioning="global")
    print(*bits_per_dim(model, images_for(model, 7), batch_size=2, rank=rank, world_size=2))
    torch.distributed.destroy_process_group()


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path},
        )
        for rank in range(2)
    ]
    found = [process.communicate(timeout=120)[0].split() for process in processes]
    model = tiny_model("categorical", conditioning="global")
    assert found[0] == found[1]
    assert tuple(map(float, found[0])) == pytest.approx(bits_per_dim(model, images_for(model, 7)), rel=1e-13)


def test_a_score_says_where_the_bits_are() -> None:
    model = tiny_model("logistic_mixture", channels=3, height=4, width=5, conditioning="global", bit_depth=5)
    images, h = random_images(model, 3), condition_for(model, 3)
    scores = score(model, images, h)
    for i, found in enumerate(scores):
        with torch.no_grad():
            nats = -float(model.log_prob(images[i : i + 1], h[i]))
        assert found.nats == pytest.approx(nats, rel=1e-12)
        assert found.bits_per_dim == pytest.approx(nats / math.log(2) / 60, rel=1e-12)
        assert found.bits.shape == (4, 5) and found.bits.dtype == torch.float64
        assert float(found.bits.sum()) == pytest.approx(nats / math.log(2), rel=1e-12)
    # the bits of a pixel are those of that pixel: a later change leaves them alone
    changed = images.clone()
    changed[:, :, 2, 3] = 31 - changed[:, :, 2, 3]
    for before, after in zip(scores, score(model, changed, h), strict=True):
        assert torch.equal(before.bits.flatten()[: 2 * 5 + 3], after.bits.flatten()[: 2 * 5 + 3])
        assert before.bits[2, 3] != after.bits[2, 3]


def test_a_score_does_not_depend_on_its_company() -> None:
    model = tiny_model("categorical", channels=3, conditioning="both", dtype=torch.float32)
    images, h = random_images(model, 5), condition_for(model, 1)
    together = score(model, images, h)
    alone = [score(model, images[i : i + 1], h)[0] for i in range(5)]
    assert [s.nats for s in together] == [s.nats for s in alone]


def test_a_score_of_nan_names_the_file() -> None:
    model = tiny_model()
    with torch.no_grad():
        model.core.head_out.bias[0] = math.nan
    with pytest.raises(NumericalError, match=r"log-probability of b\\x1b\.png is nan"):
        score(model, random_images(model, 1), names=["b\x1b.png"])
    with pytest.raises(RecipeError, match="conditional"):
        score(tiny_model(conditioning="global"), random_images(model, 1))


if __name__ == "__main__":
    _rank(int(sys.argv[1]), sys.argv[2])
