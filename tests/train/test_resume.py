"""train(N) == train(k); resume(N - k), bit for bit, for every k: weights, average, optimiser, counters, metrics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import StopAfter, contents, tiny_recipe

import condgen
from condgen.errors import Interrupted, ModelError
from condgen.store.run import read_log
from condgen.train.run import run_training


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("resume")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def whole(home: Path) -> dict[str, Any]:
    result = run_training(tiny_recipe(home), out=home / "whole", quiet=True)
    assert result.steps == 12
    return contents(home / "whole")


@pytest.mark.parametrize("k", [*range(1, 12), (2, 5), (4, 12), 12])
def test_resumed_equals_uninterrupted(home: Path, whole: dict[str, Any], k: int | tuple[int, int]) -> None:
    run, done = home / f"run-{k}", 0
    for stop in (k,) if isinstance(k, int) else k:
        with pytest.raises(Interrupted) as caught:
            run_training(tiny_recipe(home), out=run, quiet=True, signals=StopAfter(stop - done))
        assert caught.value.exit_code == 130 and f"step {stop}," in caught.value.message
        done = stop
        torch.manual_seed(done)  # what others do to global generators is nothing to us
        np.random.seed(done)
    result = run_training(tiny_recipe(home), out=run, quiet=True)
    assert contents(run) == whole
    assert result.figure == whole["counters"]["validation"]["bits_per_dim"]


def test_log_has_every_step_once_with_all_digits(home: Path, whole: dict[str, Any]) -> None:
    lines = read_log(home / "whole" / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert [line["step"] for line in lines if "validation_bits_per_dim" in line] == [5, 10, 12]
    for line in lines:
        assert line["bits_per_dim"] == pytest.approx(line["loss"] / (64 * np.log(2)), rel=1e-12)
    assert len(str(lines[3]["loss"]).replace(".", "")) > 12


def test_log_beyond_the_checkpoint_is_cut(home: Path, whole: dict[str, Any]) -> None:
    run = home / "cut"
    with pytest.raises(Interrupted):
        run_training(tiny_recipe(home), out=run, quiet=True, signals=StopAfter(7))
    with (run / "metrics.jsonl").open("ab") as log:
        log.write(b'{"step": 8, "loss": 1.0}\n{"step": 9, "lo')  # steps of a process that died before it could save
    run_training(tiny_recipe(home), out=run, quiet=True)
    assert contents(run) == whole


def test_finished_run_is_left_alone_and_can_be_prolonged(home: Path, whole: dict[str, Any]) -> None:
    run = home / "prolonged"
    run_training(tiny_recipe(home, train__max_steps=9), out=run, quiet=True)
    before = contents(run)
    again = run_training(tiny_recipe(home, train__max_steps=9), out=run, quiet=True)
    assert contents(run) == before and again.steps == 9
    assert again.figure == before["counters"]["validation"]["bits_per_dim"]
    run_training(tiny_recipe(home), out=run, quiet=True)
    for name in ("model.safetensors", "ema.safetensors", "optimizer.safetensors"):
        assert contents(run)[name] == whole[name]


@pytest.mark.parametrize(
    ("field", "value", "old"),
    [
        ("model.filters", 5, "4"),
        ("model.dropout", 0.1, "0.3"),
        ("train.seed", 7, "0"),
        ("train.batch_size", 5, "6"),
        ("train.learning_rate", 0.1, "0.001"),
        ("train.decay_steps", 50, "None"),
        ("train.precision", "fp64", "fp32"),
        ("encoder.code", "embedding", "one_hot"),
        ("data.flip", False, "True"),
    ],
)
def test_fixed_field_changed(home: Path, whole: dict[str, Any], field: str, value: object, old: str) -> None:
    with pytest.raises(ModelError) as caught:
        run_training(tiny_recipe(home, **{field.replace(".", "__"): value}), out=home / "whole", quiet=True)
    assert caught.value.field == field
    assert field in caught.value.message and str(value) in caught.value.message and caught.value.exit_code == 4
    assert contents(home / "whole") == whole


def test_other_images_are_another_run(home: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path)
    np.savez(tmp_path / "data" / "train.npz", x=np.zeros((30, 8, 8), np.uint8), y=np.arange(30) % 3)
    with pytest.raises(ModelError, match="fingerprint") as caught:
        run_training(recipe, out=home / "whole", quiet=True)
    assert caught.value.exit_code == 4
    assert contents(home / "whole") == whole


def test_data_may_move(home: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    run = home / "moved"
    with pytest.raises(Interrupted):
        run_training(tiny_recipe(home), out=run, quiet=True, signals=StopAfter(4))
    run_training(tiny_recipe(tmp_path), out=run, quiet=True)  # the same images, drawn again elsewhere
    assert contents(run) == whole


def test_free_fields_change_nothing(home: Path, whole: dict[str, Any]) -> None:
    run = home / "free"
    with pytest.raises(Interrupted):
        run_training(tiny_recipe(home), out=run, quiet=True, signals=StopAfter(4))
    changed = tiny_recipe(home, train__checkpoint_every=2, train__max_minutes=50, train__keep_every=4)
    run_training(changed, out=run, quiet=True)
    found = contents(run)
    assert {k: v for k, v in found.items() if k != "counters"} == {k: v for k, v in whole.items() if k != "counters"}
    steps = sorted(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))
    assert steps == sorted({4, 8, 12, 10, found["counters"]["best"]["step"]})


def test_damaged_newest_checkpoint_is_passed_over(
    home: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = home / "damaged"
    for count in (3, 4):
        with pytest.raises(Interrupted):
            run_training(tiny_recipe(home), out=run, quiet=True, signals=StopAfter(count))
    weights = run / "checkpoints" / "step-00000007" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    run_training(tiny_recipe(home), out=run, quiet=True)
    assert "checkpoint 7 is passed over" in capsys.readouterr().err
    assert contents(run) == whole


def test_no_usable_checkpoint_never_starts_anew(home: Path) -> None:
    run = home / "unusable"
    with pytest.raises(Interrupted):
        run_training(tiny_recipe(home), out=run, quiet=True, signals=StopAfter(3))
    (run / "checkpoints" / "step-00000003" / "manifest.json").unlink()
    with pytest.raises(ModelError, match="no checkpoint that can be used"):
        run_training(tiny_recipe(home), out=run, quiet=True)
    with pytest.raises(ModelError, match="no checkpoint that can be used"):
        condgen.load(run)


def test_initialised_from_another_model(home: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    tuned = run_training(
        tiny_recipe(home, train__max_steps=1, train__learning_rate=1e-30),
        out=tmp_path / "tuned",
        init_from=home / "whole",
    )
    start, end = condgen.load(home / "whole").state_dict(), condgen.load(tuned.run, weights="raw").state_dict()
    for name, tensor in start.items():
        torch.testing.assert_close(end[name], tensor, rtol=0, atol=1e-12)
    with pytest.raises(ModelError, match=r"core.*is .* there and .* here"):
        run_training(tiny_recipe(home, model__filters=6), out=tmp_path / "wider", init_from=home / "whole")
    with pytest.raises(ModelError, match="origin"):
        run_training(
            tiny_recipe(home, train__max_steps=1, train__learning_rate=1e-30), out=tuned.run, init_from=home / "moved"
        )
