"""``condgen.train(...)`` as a person calls it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_run import StopAfter, contents, tiny_recipe

import condgen
from condgen import plugins
from condgen.condition import Batch, Condition
from condgen.errors import CondgenError, InputError, Interrupted, MachineError, ModelError, RecipeError
from condgen.recipe import recipe_text
from condgen.train.process import explained
from condgen.train.run import run_training


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        tiny_recipe(folder)
        yield folder


def test_the_function_and_the_package_are_one_name(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(recipe_text(tiny_recipe(home)))
    importlib.import_module("condgen.train.run")
    run = condgen.train("tiny.yaml", {"train.max_steps": 2}, quiet=True)
    assert run == Path("runs/tiny") and condgen.load("tiny").recipe.train.max_steps == 2
    assert condgen.train(Path("tiny.yaml"), ["train.max_steps=3"], out="elsewhere", quiet=True) == Path("elsewhere")
    with pytest.raises(RecipeError, match="give out="):
        condgen.train(tiny_recipe(home))
    assert condgen.train(tiny_recipe(home), {"train": {"max_steps": 1}}, out="third", quiet=True) == Path("third")


def test_an_encoder_of_this_process(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that even draws from torch's global generator resumes bit for bit."""
    monkeypatch.setattr(plugins, "_registered", {})

    @condgen.register_encoder("brightness")
    class Brightness(condgen.Encoder):
        """The mean of an image, with noise in training."""

        reads = ("image",)
        vector_size = 1

        def encode(self, batch: Batch) -> Condition:
            mean = batch["image"].float().mean((1, 2, 3))[:, None]
            return Condition(vector=mean + torch.randn_like(mean) if self.training else mean)

    recipe = tiny_recipe(home, **{"encoder.type": "brightness"})
    whole = condgen.train(recipe, out=tmp_path / "whole", quiet=True)
    with pytest.raises(Interrupted):
        run_training(recipe, out=tmp_path / "run", quiet=True, signals=StopAfter(5))
    torch.manual_seed(99)
    before = torch.get_rng_state()
    run = condgen.train(recipe, out=tmp_path / "run", quiet=True)
    assert torch.equal(torch.get_rng_state(), before)  # lent, and given back
    assert contents(run) == contents(whole)
    condgen.load(run)
    plugins._registered.clear()
    with pytest.raises(ModelError, match="brightness"):
        condgen.load(run)


@pytest.mark.parametrize("moment", ["__init__", "encode"])
def test_an_encoder_that_fails(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    monkeypatch.setattr(plugins, "_registered", {})

    @condgen.register_encoder("broken")
    class Broken(condgen.Encoder):
        vector_size = 1

        def encode(self, batch: Batch) -> Condition:
            raise ZeroDivisionError("of no use")

    def fail(*args: object) -> None:
        raise ZeroDivisionError("of no use")

    monkeypatch.setattr(Broken, moment, fail)
    with pytest.raises(ModelError, match=r"ZeroDivisionError: of no use\); mend it or choose another") as caught:
        condgen.train(tiny_recipe(home, **{"encoder.type": "broken"}), out=tmp_path / "run", quiet=True)
    assert caught.value.exit_code == 4 and not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), r"train\.micro_batch"),
        (torch.OutOfMemoryError("CUDA out of memory"), r"train\.micro_batch"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"), r"train\.micro_batch"),
        (RuntimeError("x does not have a deterministic implementation, ... use_deterministic_algorithms"), "set it to"),
        (RuntimeError("anything else"), "anything else"),
    ],
)
def test_what_torch_says_is_explained(error: Exception, words: str) -> None:
    with pytest.raises(Exception, match=words) as caught, explained():
        raise error
    assert isinstance(caught.value, CondgenError) or caught.value is error


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        ({"data.root": "/nowhere"}, InputError, "/nowhere"),
        ({"encoder.type": "telepathy"}, RecipeError, "telepathy"),
        ({"encoder.code": "attributes"}, RecipeError, "attributes"),
    ],
)
def test_whatever_is_wrong_is_said_before_a_folder_is_made(
    home: Path, tmp_path: Path, overrides: dict[str, object], error: type[CondgenError], words: str
) -> None:
    with pytest.raises(error, match=words):
        condgen.train(tiny_recipe(home), overrides, out=tmp_path / "run", quiet=True)
    assert not os.listdir(tmp_path)


def test_devices(home: Path, tmp_path: Path) -> None:
    for name, words in (("gpu", "There is no device 'gpu'"), ("meta", "on cpu or cuda"), ("cuda:99", "is missing")):
        with pytest.raises(MachineError, match=words) as caught:
            condgen.train(tiny_recipe(home), out=tmp_path / "run", device=name)
        assert caught.value.exit_code == 6


def test_a_run_folder_that_cannot_be(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with pytest.raises(RecipeError):
            condgen.train(tiny_recipe(home), out=out, quiet=True)


def test_settings_of_the_process_are_given_back(home: Path, tmp_path: Path) -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    condgen.train(tiny_recipe(home, train__max_steps=1), out=tmp_path / "run", quiet=True)
    assert not torch.are_deterministic_algorithms_enabled()


def test_tensorboard_where_it_is_installed(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    recipe = tiny_recipe(home, train__max_steps=2, train__tensorboard=True)
    condgen.train(recipe, out=tmp_path / "run", quiet=True)
    assert [name for name in os.listdir(tmp_path / "run" / "tensorboard") if name.startswith("events")]


@pytest.mark.parametrize("precision", ["bf16", "fp64"])
def test_precisions_resume(home: Path, tmp_path: Path, precision: str) -> None:
    recipe = tiny_recipe(home, train__precision=precision, train__max_steps=6)
    whole = condgen.train(recipe, out=tmp_path / "whole", quiet=True)
    with pytest.raises(Interrupted):
        run_training(recipe, out=tmp_path / "run", quiet=True, signals=StopAfter(3))
    assert contents(condgen.train(recipe, out=tmp_path / "run", quiet=True)) == contents(whole)


@pytest.mark.parametrize(("precision", "fast", "warned"), [("bf16", False, 1), ("bf16", True, 0), ("fp32", False, 0)])
def test_slow_bf16_is_warned_of(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    precision: str,
    fast: bool,
    warned: int,
) -> None:
    import condgen.train.run as module

    monkeypatch.setattr(module, "bf16_is_fast", lambda device: fast)
    recipe = tiny_recipe(home, train__precision=precision, train__max_steps=1)
    assert condgen.train(recipe, out=tmp_path / "run", quiet=True)  # and goes on
    assert capsys.readouterr().err.count("warning: train.precision: cpu has no fast bf16; ") == warned


@pytest.mark.slow
def test_compiled_training_is_about_the_same(home: Path, tmp_path: Path) -> None:
    from condgen.store.run import read_log

    logs = []
    for name, compiled in (("plain", False), ("compiled", True)):
        recipe = tiny_recipe(home, train__compile=compiled, train__max_steps=5)
        run = condgen.train(recipe, out=tmp_path / name, quiet=True)
        logs.append([line["loss"] for line in read_log(run / "metrics.jsonl")])
        condgen.load(run)
    assert logs[1] == pytest.approx(logs[0], rel=1e-4)
