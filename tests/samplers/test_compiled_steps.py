"""The steps of a sampler in C: the parameters of the same network, and pictures that do not depend on batch mates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from building import condition_for, random_images, tiny_model

from condgen import native
from condgen.errors import MachineError
from condgen.model import ConditionalModel
from condgen.samplers import cached, noise

BUILDS: list[dict[str, Any]] = [
    {},
    {"resnets": 2, "filters": 8},
    {"filters": 40},
    {"filters": 11, "field": 5},
    {"short_cuts": False},
    {"full_sight": True},
    {"nonlinearity": "elu"},  # has no compiled steps, and is drawn all the same
]


def model_of(build: dict[str, Any], conditioning: str = "none") -> ConditionalModel:
    return tiny_model("logistic_mixture", channels=3, conditioning=conditioning, core="pixelcnn++", **build).float()


@pytest.mark.parametrize("conditioning", ["none", "both"])
@pytest.mark.parametrize("build", BUILDS)
def test_ln_p_of_known_images(build: dict[str, Any], conditioning: str) -> None:
    """Every pixel known: what comes out is ln p of all parameters, which the whole image's pass knows as well."""
    model = model_of(build, conditioning)
    x, h = random_images(model, 5), condition_for(model, 5)
    info = model.info
    mask = torch.ones(5, 1, info.height, info.width, dtype=torch.bool)
    uniforms = noise(0, range(5), model.likelihood.planes, info.height, info.width)
    with torch.no_grad():
        expected, terms = model.log_prob(x, h), model.core.terms(h, keep=True)
        for compiled in (False, True):
            kept, found = cached(
                model.core, model.likelihood, terms, uniforms, known=x, mask=mask, compiled=compiled
            )  # fmt: skip
            assert torch.equal(kept, x.to(torch.uint8))
            torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-3)


def test_the_steps_are_taken_where_there_is_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    sound = native.step

    def step(kernel: str, *fields: Any) -> Any:
        taken.append(kernel)
        return sound(kernel, *fields)

    monkeypatch.setattr(native, "step", step)
    for dtype, expected in ((torch.float32, {"resnet_pixel", "concat_elu_pixel"}), (torch.float64, set())):
        model = model_of({}).to(dtype)
        taken.clear()
        model.sample(count=2)
        assert set(taken) == expected


def test_batch_mates_change_nothing() -> None:
    model = model_of({"filters": 8})
    together = model.sample(count=11, tile=4)
    assert all(torch.equal(together[k : k + 1], model.sample(count=1, first=k, tile=4)) for k in range(11))


def test_without_a_compiler_images_are_drawn_by_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    model = model_of({})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    native.library.cache_clear()
    try:
        assert model.sample(count=1).shape[0] == 1
        uniforms = noise(0, range(1), model.likelihood.planes, model.info.height, model.info.width)
        with pytest.raises(MachineError, match="no-such-compiler"), torch.no_grad():
            cached(model.core, model.likelihood, model.core.terms(condition_for(model, 1)), uniforms, compiled=True)
    finally:
        native.library.cache_clear()
