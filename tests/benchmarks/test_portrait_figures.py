"""The figures of portraits: what is counted, against slow witnesses, and what the program prints."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

import condgen
from condgen.data.portraits import draw


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "portrait_figures.py"
    spec = importlib.util.spec_from_file_location("portrait_figures", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rank_correlation_with_ties(figures: ModuleType) -> None:
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 8, 50).astype(float), generator.normal(size=50)
    assert figures.spearman(a, a + b) == pytest.approx(spearmanr(a, a + b).statistic)
    assert figures.spearman(b, np.exp(b)) == pytest.approx(1)


def test_what_is_found_is_one_s_own(figures: ModuleType) -> None:
    """An embedding that is the picture: of portraits that are their sources all are found, of others' none."""
    model = SimpleNamespace(
        encoder=SimpleNamespace(identity=lambda batch: batch["image"].flatten(1).float()),
        parameters=lambda: iter([torch.zeros(1)]), training=False, eval=lambda: None, train=lambda mode: None,
    )  # fmt: skip
    sources = torch.eye(6, dtype=torch.uint8).view(6, 1, 2, 3)
    views: Any = np.stack([sources.numpy()] * 3, axis=1)
    assert figures.found(model, sources, views) == {"share": 1.0, "ci95": 0.0}
    views[:, 0] = np.roll(views[:, 0], 1, axis=0)
    assert figures.found(model, sources, views)["share"] == pytest.approx(2 / 3)
    assert figures.found(model, sources, np.roll(views, 3, axis=0))["share"] == 0


def test_variety(figures: ModuleType) -> None:
    views = np.array([[[[[0]]], [[[10]]], [[[250]]]]], np.uint8)
    assert figures.variety(views) == pytest.approx((10 + 250 + 240) / 3)


def test_the_report(figures: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures, _ = draw(0, np.arange(3), np.zeros(3, np.int64), 48, 48, 0.0)
    for k, picture in enumerate(pictures):
        (tmp_path / f"person{k}").mkdir()
        Image.fromarray(np.moveaxis(picture, 0, -1)).save(tmp_path / f"person{k}" / "0.png")
    options = "--people 2 --portraits 2 --steps 3 --photographed 3 --aligned --photographs".split()
    figures.main([*options, str(tmp_path)])
    report = json.loads(capsys.readouterr().out)
    assert report["model"] == "portraits" and report["drawings"]["people"] == 2
    assert report["walk"]["ends_equal"] is True and report["walk"]["steps"] == 3
    assert report["photographs"]["people"] == 3 and -1 <= report["photographs"]["hair_brightness"] <= 1


def test_everything_is_drawn_at_the_recipe_s_guidance_or_the_option_s(
    figures: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model: Any = condgen.load("portraits")
    sample = model.recipe.sample.model_copy(update={"guidance": 0.5})
    model.recipe = model.recipe.model_copy(update={"sample": sample})
    asked: list[float] = []
    stream = model.stream

    def watched(*arguments: Any, guidance: float = 0.0, **options: Any) -> Any:
        asked.append(guidance)
        return stream(*arguments, guidance=guidance, **options)

    monkeypatch.setattr(model, "stream", watched)
    monkeypatch.setattr(figures, "load_conditional", lambda name: model)
    for words, guidance in (((), 0.5), (("--guidance", "0"), 0.0)):
        asked.clear()
        figures.main(["--people", "2", "--portraits", "2", "--steps", "3", *words])
        report = json.loads(capsys.readouterr().out)
        assert report["guidance"] == guidance and report["walk"]["ends_equal"] is True
        assert len(asked) == 5 and set(asked) == {guidance}  # portraits, two walks, two ends


def test_the_recipe_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the encoder that ships, its embeddings kept."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tiny = {"data.identities": 8, "data.views": 2, "data.image_size": 16, "model.filters": 6, "model.layers": 1}
    tiny |= {"train.max_steps": 2, "train.evaluate_images": 4, "sample.count": 0, "model.first_kernel_size": 3}
    model = condgen.load(condgen.train("portraits", tiny, quiet=True))
    own = condgen.load("face-embedding").encoder.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in model.encoder.state_dict().items())
