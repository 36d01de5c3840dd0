"""Bits per dimension: what a model needs for the images of a data set, and how much the condition saves.

bits/dim = -ln p(x | h) / (ln 2 * C * H * W), averaged over images, on the integers 0 .. 2^bits - 1: no dequantisation,
no augmentation, no dropout, at least fp32 (fp64 where the model is), sums in fp64. Of a likelihood whose training
raises a bound (continuous mixtures) the figure is that variational bound, with noise that depends on the image's place
in the data set alone; the exact one stands beside it. Pixels that the condition gives away (``Encoder.known``: those
around the hole of an inpainting model) are certain and cost nothing.

Legend: N images evaluated, C H W channels and pixels, x an image, h its condition.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from condgen import streams
from condgen.condition import DataInfo
from condgen.errors import InputError, NumericalError, RecipeError, shown
from condgen.evaluate.baselines import FORMATS, baselines
from condgen.model import ConditionalModel
from condgen.progress import Progress


class ImageSet(Protocol):
    """What evaluation asks of a data set (``condgen.data`` makes them)."""

    @property
    def info(self) -> DataInfo: ...

    @property
    def split(self) -> str: ...

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray, /) -> Mapping[str, Tensor]:
        """``image`` uint8 (B, C, H, W) and whatever the encoder reads, for int64 (B,) indices."""


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; the model's mode is restored."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def evaluated_indices(count: int, limit: int | None = None) -> np.ndarray:
    """Which of ``count`` images are evaluated, ascending, int64: all, or the same ``limit`` of them every time.

    They are drawn from the whole set: the first ones of a folder would be the first classes alone.
    """
    if limit is None or limit >= count:
        return np.arange(count)
    return np.sort(streams.permutation(count, 0, "evaluated")[:limit])


def derangement(count: int, seed: int) -> np.ndarray:
    """A permutation of ``range(count)``, int64, in which nothing keeps its place: one cycle through all. count >= 2."""
    cycle = streams.permutation(count, seed, "shuffled conditions")
    partner = np.empty_like(cycle)
    partner[cycle] = np.roll(cycle, -1)
    return partner


def mean_and_ci95(values: np.ndarray) -> tuple[float, float | None]:
    """The mean and the half-width of its 95 % interval, 1.96 standard errors; None for a single value."""
    if len(values) < 2:
        return float(values.mean()), None
    return float(values.mean()), float(1.96 * values.std(ddof=1) / math.sqrt(len(values)))


def bits_per_dim(
    model: ConditionalModel,
    dataset: ImageSet,
    limit: int | None = None,
    batch_size: int = 64,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> tuple[float, float | None]:
    """Mean over the images and half-width of its 95 % interval (None for one image), each image with its condition.

    It is the figure that training lowers: a bound where ``model.likelihood.bound``.
    Of ``world_size`` processes each takes every ``world_size``-th image and all return the figure of all images, the
    very number that a single process finds (in fp32 up to what another batch composition does to the last bits).

    Raises:
        InputError: the data set is empty or has other images than the model.
        NumericalError: the log-probability of an image is NaN or infinite; the sentence names it.
    """
    indices = _checked_indices(model, dataset, limit)
    nats = np.zeros((1, len(indices)))
    mine = slice(rank, None, world_size)
    with evaluating(model):
        for part in _batches(indices[mine], batch_size):
            nats[0, mine][part] = _nats(model, dataset, indices[mine][part]).bound[0]
    if world_size > 1:
        summed = torch.from_numpy(nats).to(model.device)  # zeros from the other ranks: adding them is exact
        torch.distributed.all_reduce(summed)
        nats = summed.cpu().numpy()
    return mean_and_ci95(nats[0] / (math.log(2) * dataset.info.dimensions))


def likelihood_report(
    model: ConditionalModel,
    dataset: ImageSet,
    *,
    limit: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    quiet: bool | None = None,
) -> dict[str, float | int | str | None]:
    """Everything that ``condgen evaluate`` says about a model and a split.

    ``shuffle_gap_bits`` is the mean over images (bits per image, not per dimension) of -log2 p(x | another image's h)
    + log2 p(x | h). It contains the cost of being wrong. ``condition_bits`` does not: it is the mean of -log2 p(x) +
    log2 p(x | h), what h saves over knowing nothing, and null of a model that was never trained without conditions
    (``encoder.dropout``). Both are paired, image by image. Other images' conditions are dealt by a permutation in which
    none keeps its own (images of one label may swap). All ``*_ci95`` are half-widths.

    Of a model whose conditions give pixels away, all bits are those of the unknown pixels, under the same holes with
    every condition; ``bits_per_dim`` spreads them over all sub-pixels of the image, ``bits_per_unknown_dim`` (of all
    images together) over the unknown ones, whose share is ``unknown_share``. Reports of other models have neither.

    Where ``model.likelihood.bound``, all of this is of the bound, ``bound`` is true, and ``bits_per_dim_exact`` is the
    figure of the distribution that is sampled and scored. Reports of other likelihoods have neither.

    Args:
        limit: evaluate this many images, the same ones every time, drawn from the whole split.
        seed: of the permutation.
        quiet: show no progress; None: as ``progress.set_quiet`` says.

    Raises:
        As ``bits_per_dim``.
    """
    indices = _checked_indices(model, dataset, limit)
    N, dimensions = len(indices), dataset.info.dimensions
    others: dict[str, np.ndarray | None] = {}  # the images whose conditions are given; None: no condition
    if model.conditional and N > 1:
        others["shuffled"] = indices[derangement(N, seed)]
    if model.conditional and model.condition_dropout:
        others["none"] = None
    nats, exact, unknown = np.zeros((1 + len(others), N)), np.zeros(N), np.ones(N)
    counts_all = True
    named = "bits/dim (bound)" if model.likelihood.bound else "bits/dim"
    images = []
    with evaluating(model), Progress("evaluating", N, "images", quiet) as progress:
        for part in _batches(indices, batch_size):
            orders = [None if order is None else order[part] for order in others.values()]
            found = _nats(model, dataset, indices[part], orders)
            nats[:, part], exact[part] = found.bound, found.exact
            if found.unknown is not None:
                unknown[part], counts_all = found.unknown, False
            images.append(found.images)
            running = float(nats[0, : part.stop].mean()) / (math.log(2) * dimensions)
            progress.advance(part.stop - part.start, **{named: running})
    with Progress("compressing the images", len(FORMATS), "formats", quiet) as progress:
        files = baselines(torch.cat(images), dataset.info.bit_depth, done=lambda kind: progress.advance())

    bits = dict(zip(["own", *others], nats / math.log(2), strict=True))

    def beside(case: str) -> tuple[float | None, float | None, float | None]:
        """bits/dim under other conditions, and by how many bits an image costs more so, with the interval."""
        if case not in bits:
            return None, None, None
        return float(bits[case].mean()) / dimensions, *mean_and_ci95(bits[case] - bits["own"])

    mean, interval = mean_and_ci95(bits["own"] / dimensions)
    shuffled, gap, gap_interval = beside("shuffled")
    unconditional, saved, saved_interval = beside("none")
    report: dict[str, float | int | str | None] = {
        "bits_per_dim": mean,
        "bits_per_dim_ci95": interval,
        "bits_per_dim_shuffled": shuffled,
        "bits_per_dim_no_condition": unconditional,
        "shuffle_gap_bits": gap,
        "shuffle_gap_bits_ci95": gap_interval,
        "condition_bits": saved,
        "condition_bits_ci95": saved_interval,
        "dimensions": dimensions,
        "examples": N,
        "split": dataset.split,
        "bit_depth": dataset.info.bit_depth,
        "baseline_png": files["png"],
        "baseline_webp": files["webp"],
    }
    if not counts_all:
        found_ratio, ratio_interval = _ratio_and_ci95(bits["own"], unknown * dimensions)
        report |= {
            "bits_per_unknown_dim": found_ratio,
            "bits_per_unknown_dim_ci95": ratio_interval,
            "unknown_share": float(unknown.mean()),
        }
    if model.likelihood.bound:
        exact_mean, exact_interval = mean_and_ci95(exact / (math.log(2) * dimensions))
        report |= {"bound": True, "bits_per_dim_exact": exact_mean, "bits_per_dim_exact_ci95": exact_interval}
    return report


def _batches(indices: np.ndarray, batch_size: int) -> Iterator[slice]:
    for start in range(0, len(indices), batch_size):
        yield slice(start, min(start + batch_size, len(indices)))


def _ratio_and_ci95(values: np.ndarray, sizes: np.ndarray) -> tuple[float, float | None]:
    """All of ``values`` over all of ``sizes``, and the half-width of its 95 % interval by linearisation (Cochran 1977,
    section 6.3)."""
    ratio = float(values.sum() / sizes.sum())
    return ratio, mean_and_ci95((values - ratio * sizes) / sizes.mean())[1]


@dataclass(frozen=True)
class _Nats:
    """What a batch costs."""

    images: Tensor
    bound: np.ndarray
    """-ln p, or its bound, of each image under each condition, (conditions, B)."""
    exact: np.ndarray
    """-ln p itself under the image's own condition, (B,)."""
    unknown: np.ndarray | None
    """The share of each image's pixels that the condition does not give away, (B,); None: no condition gives any."""


def _nats(
    model: ConditionalModel, dataset: ImageSet, indices: np.ndarray, others: Sequence[np.ndarray | None] = ()
) -> _Nats:
    """What the images ``indices`` cost under their own conditions, and under those of the images ``others[k]`` (None:
    under none)."""
    rows, exact = [], np.empty(0)
    images, known = torch.empty(0), None
    keys = streams.example_keys(indices, 0, "bound")  # the image's: other conditions, same noise
    for k, order in enumerate([indices, *others]):
        h = None
        if order is not None:
            batch = {key: value.to(model.device) for key, value in dataset.batch(order).items()}
            if k == 0:
                images, known = batch["image"], model.encoder.known(batch)
            if known is not None:
                batch["known"] = known  # other images' conditions, the same holes
            h = model.condition(batch)
        found = model.log_prob_and_bound(images, h, keys, known)
        log_prob, nats = (-value.double().cpu().numpy() for value in found)
        if k == 0:
            exact = log_prob
        for index, value in zip(indices, nats, strict=True):
            if not math.isfinite(value):
                raise NumericalError(
                    f"The log-probability of image {index} of the {dataset.split} split is {-value}; "
                    "the model cannot be evaluated, use an earlier checkpoint."
                )
        rows.append(nats)
    unknown = None if known is None else 1 - known.double().mean((1, 2)).cpu().numpy()
    return _Nats(images.cpu(), np.stack(rows), exact, unknown)


def _checked_indices(model: ConditionalModel, dataset: ImageSet, limit: int | None) -> np.ndarray:
    """``evaluated_indices`` of a data set that fits the model."""
    if limit is not None and limit < 1:
        raise RecipeError(f"limit is the number of images to evaluate, at least 1, not {limit}.", field="limit")
    if len(dataset) == 0:
        raise InputError(f"The {dataset.split} split has no images; choose another split or data set.")
    data, learnt = dataset.info, model.info
    if data.bit_depth != learnt.bit_depth:
        raise RecipeError(
            f"data.bit_depth is {data.bit_depth}, but the model's images have {learnt.bit_depth} bits; set it to that.",
            field="data.bit_depth",
        )
    for reads, there, known in (
        ("label", data.classes, learnt.classes),
        ("attributes", data.attributes, learnt.attributes),
    ):
        if reads in model.encoder.reads and not _same_meaning(there, known):
            what = "classes" if reads == "label" else reads
            odd = next((shown(name) for name in (*there, *known) if (name in there) != (name in known)), "their order")
            raise InputError(
                f"The data has other {what} than the model was trained on ({odd}); use a set with the same ones.",
                field="data.root",
            )
    return evaluated_indices(len(dataset), limit)


def _same_meaning(there: tuple[str, ...], known: tuple[str, ...]) -> bool:
    """Whether label k of the data is the model's label k, as far as names tell: a bare count (0, 1, ...) names none."""
    there_counts, known_counts = (names == tuple(map(str, range(len(names)))) for names in (there, known))
    nameless = there_counts or (known_counts and not all(name.isdecimal() for name in there))
    return there == known or (nameless and len(there) <= len(known))
