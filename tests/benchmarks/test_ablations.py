"""The command over the ablations: pairs that differ in one thing, figures that follow from the runs, a picture."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def ablations(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module as it is for ``python benchmarks/ablations.py``."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "ablations", raising=False)
    import ablations  # type: ignore[import-not-found]

    return ablations


def photographs(folder: Path, count: int) -> None:
    generator = np.random.Generator(np.random.Philox(key=0))
    for split in ("train", "test"):
        (folder / split / "a").mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 256, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / split / "a" / f"{i}.png")


def settings(ablations: Any, data: Path, out: Path) -> argparse.Namespace:
    return argparse.Namespace(
        data=str(data), out=out, steps=2, size=8, filters=4, resnets=1, few=6, test_images=4, seed=0
    )


def changed(one: Any, other: Any, path: str = "") -> set[str]:
    if isinstance(one, dict):
        return {name for key in one for name in changed(one[key], other[key], f"{path}.{key}")}
    return set() if one == other else {path[1:]}


def test_a_pair_differs_in_what_its_claim_is_about(ablations: Any, tmp_path: Path) -> None:
    photographs(tmp_path, 20)
    arguments = settings(ablations, tmp_path, tmp_path / "runs")
    recipes = {trial.name: ablations.recipe_of(trial, arguments).model_dump() for trial in ablations.TRIALS}
    for name, main, what in (
        ("softmax", "mixture", "model.likelihood"),
        ("continuous", "mixture", "model.likelihood"),
        ("no short-cuts", "mixture", "model.short_cuts"),
        ("no dropout", "dropout", "model.dropout"),
    ):
        assert changed(recipes[main], recipes[name]) == {what, "description"}
    assert recipes["mixture"]["model"]["dropout"] == 0 and recipes["dropout"]["model"]["dropout"] == 0.5
    few = ablations.condgen.open_data(ablations.recipe_of(ablations.NO_DROPOUT, arguments).data, "train")
    assert len(few) == 6


def test_a_finished_run_is_not_trained_again(
    ablations: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs(tmp_path / "data", 20)
    options = ["--out", "runs", "--steps", "2", "--size", "8", "--filters", "4", "--resnets", "1", "--few", "6"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ablations.py", "data", *options, "--test-images", "4", "--json"])
    ablations.main()
    first = capsys.readouterr().out
    written = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("model.safetensors")}
    assert len({path.parts[1] for path in written}) == 6
    ablations.main()
    assert capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("model.safetensors")} == written
    found = ablations.json.loads(first)
    assert found["runs"]["continuous"]["bound"] is not None and found["runs"]["softmax"]["bound"] is None
    assert len(found["findings"]) == 4 and Path("runs/ablations.png").is_file()
    assert "without dropout it overfits" in ablations.table(found)


def test_findings_are_of_pairs_of_images(ablations: Any) -> None:
    def run(each: list[float], validation: dict[int, float], bound: list[float] | None = None) -> Any:
        mean = float(np.mean(each))
        return ablations.Outcome(
            recipe="x", parameters=1, steps=30, seconds_per_step=1.0, test=mean, test_ci95=1.0, train=mean - 0.5,
            bound=None if bound is None else float(np.mean(bound)), validation=validation, training={30: 1.0},
            each=np.array(each), each_bound=None if bound is None else np.array(bound),
        )  # fmt: skip

    main = run([3.0, 5.0], {10: 5.0, 20: 4.5, 30: 4.0})
    found = ablations.findings(
        {
            "mixture": main,
            "softmax": run([3.5, 5.51], {30: 4.6}),  # the figures overlap, their difference does not
            "continuous": run([2.9, 4.9], {30: 5.1}, [3.2, 5.21]),
            "no short-cuts": run([3.0, 5.1], {30: 3.9}),
            "dropout": main,
            "no dropout": run([2.0, 4.0], {10: 3.5, 30: 3.9}),
        }
    )
    softmax, continuous, short_cuts, dropout = found.values()
    assert softmax["worse"] and softmax["difference"] == pytest.approx(0.505) and softmax["reached_after"] == 20
    assert continuous["worse"] and continuous["difference"] == pytest.approx(0.205)  # of the bound
    assert continuous["exact_difference"] == pytest.approx(-0.1) and continuous["reached_after"] == 10
    assert not short_cuts["worse"] and short_cuts["reached_after"] is None
    assert not dropout["worse"] and dropout["best_validation"] == 3.5
    assert dropout["gap_to_training_images"] == pytest.approx(0.5)
