"""In fp32 an image does not depend on its batch mates or on how many there are, nor a cache on the height."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from building import condition_for, random_images, tiny_model
from torch import Tensor

from condgen.cores.cache import Cache
from condgen.likelihoods import scaled
from condgen.model import ConditionalModel

CORES: list[tuple[str, str, dict[str, Any]]] = [
    ("gated", "categorical", {"filters": 12, "layers": 3}),
    ("pixelcnn++", "logistic_mixture", {"filters": 12, "resnets": 1}),
]


def single(core: str, kind: str, sizes: dict[str, Any], **shape: Any) -> ConditionalModel:
    """In single precision, with weights large enough that pixels depend on each other."""
    model = tiny_model(
        kind, core=core, channels=3, bit_depth=8, conditioning="both", dtype=torch.float32, **(sizes | shape)
    )
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.core.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return model


@pytest.mark.parametrize("sampler", ["cached", "fixed_point"])
@pytest.mark.parametrize(("core", "kind", "sizes"), CORES)
def test_neither_batch_size_nor_mates_change_a_picture(
    core: str, kind: str, sizes: dict[str, Any], sampler: str
) -> None:
    model = single(core, kind, sizes)
    h = condition_for(model, 4)

    def drawn(i: Any, count: int, **options: Any) -> tuple[Tensor, Tensor]:
        return model.sample_and_log_prob(h[i], count, seed=7, sampler=sampler, tile=8, **options)

    images, nats = drawn(slice(0, 4), 3)  # a full tile, and half a one
    for rows, count, first in ((slice(2, 3), 1, 0), (slice(2, 3), 1, 2), ([3, 1], 2, 1), (slice(1, 4), 3, 0)):
        some, own = drawn(rows, count, first=first)
        same = images.unflatten(0, (4, 3))[rows, first : first + count].flatten(0, 1)
        assert torch.equal(some, same)
        assert torch.equal(own, nats.unflatten(0, (4, 3))[rows, first : first + count].flatten())
    assert len({image.numpy().tobytes() for image in images}) == 12
    # a mate of another kind: the same picture beside completions of it
    known = random_images(model, 1, 2)
    mask = torch.stack([torch.zeros(8, 8, dtype=torch.bool), torch.ones(8, 8, dtype=torch.bool)])
    mask[1, 4:] = False
    mates = model.sample(h[[2, 0]], 1, seed=7, sampler=sampler, known=known.expand(2, -1, -1, -1), mask=mask)
    assert torch.equal(mates[0], images[6]) and torch.equal(mates[1, :, :4], known[0, :, :4])


def storages(state: Any) -> dict[int, int]:
    """The memory behind the tensors that layers remember, each piece once: its address, and how many bytes it has."""
    if isinstance(state, Tensor):
        storage = state.untyped_storage()
        return {storage.data_ptr(): storage.nbytes()}
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    if hasattr(state, "__dict__"):
        parts = vars(state).values()
    return {address: size for part in parts for address, size in storages(part).items()}


@torch.no_grad()
def memory(model: ConditionalModel, rows: int) -> int:
    """Bytes in the cache after ``rows`` rows of one image."""
    x = scaled(random_images(model, 1), model.likelihood.levels, model.dtype)
    terms, cache = model.core.terms(condition_for(model)), Cache(1, x.shape[3])
    for row in range(rows):
        cache.move(row)
        above = model.core.vertical(x, terms, cache=cache)
        for column in range(x.shape[3]):
            cache.move(row, column)
            model.core.horizontal(x, above, terms, cache=cache)
    return sum(storages(cache._memory.states).values())


@pytest.mark.parametrize(("core", "kind", "sizes"), CORES)
def test_the_cache_does_not_grow_with_the_height(core: str, kind: str, sizes: dict[str, Any]) -> None:
    def kept(height: int, width: int) -> int:
        return memory(single(core, kind, sizes, height=height, width=width), height)

    low = kept(8, 8)
    assert low > 4 * 8 * 12 and kept(24, 8) == low
    assert 1.5 * low < kept(8, 16) < 2.1 * low  # it does grow with the width
