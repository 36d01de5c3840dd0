"""``condgen sample`` into folders and .npz files: what is in them, and that a job goes on where it stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import save_tiny_models

from condgen.cli.app import app
from condgen.cli.outcome import run
from condgen.condition import Condition
from condgen.model import ConditionalModel
from condgen.store import load
from condgen.store.samples import SampleJob

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_tiny_models(Path("runs"))


@pytest.fixture
def condgen(capsys: pytest.CaptureFixture[str]) -> Call:
    """The JSON object that a command prints, its exit code in it."""

    def call(*arguments: object) -> Any:
        capsys.readouterr()
        code = run(app(), [*map(str, arguments), "--json", "--quiet"])
        return {"code": code} | json.loads(capsys.readouterr().out)

    return call


def contents(folder: Path | str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def drawn(name: str = "pets", count: int = 7) -> tuple[ConditionalModel, Condition, torch.Tensor]:
    model = load(name)
    h = model.encode(label=["cat", "a/dog"]) if name != "plain" else Condition()
    return model, h.repeat(count), model.sample(h, count, seed=5, tile=4)


WORDS = ("--label", "cat", "--label", "a/dog", "--count", 7, "--seed", 5)


def test_a_folder_holds_a_file_for_each_image(condgen: Call) -> None:
    found = condgen("sample", "pets", *WORDS, "--out", "many")
    assert (found["code"], found["file"], found["drawn"], found["count"]) == (0, "many", 14, 7)
    model, h, images = drawn()
    names = [f"{label}/{k:05d}.png" for label in ("cat", "a_dog") for k in range(7)]
    assert set(contents("many")) == {*names, "job.json", "samples.jsonl"}
    for name, image in zip(names, images, strict=True):
        pixels = np.moveaxis(np.asarray(Image.open(Path("many") / name)), -1, 0)
        assert np.array_equal(pixels >> 5, image.numpy())
    nats = model.log_prob(images, h).detach().double().numpy()
    assert np.allclose(np.ravel(found["log_prob"]), nats, rtol=1e-5)
    lines = [json.loads(line) for line in Path("many/samples.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == names
    assert [line["log_prob"] for line in lines] == list(np.ravel(found["log_prob"]))
    assert lines[8] | {"log_prob": 0, "bits_per_dim": 0} == {
        "file": "a_dog/00001.png", "label": "a/dog", "seed": 5, "k": 1, "log_prob": 0, "bits_per_dim": 0,
    }  # fmt: skip
    assert lines[8]["bits_per_dim"] == pytest.approx(-nats[8] / np.log(2) / 60, rel=1e-5)
    # asked again, nothing is drawn and the answer is the same
    before = contents("many")
    again = condgen("sample", "pets", *WORDS, "--out", "many/")
    assert again["drawn"] == 0 and again["log_prob"] == found["log_prob"] and contents("many") == before


def test_an_npz_is_a_data_set(condgen: Call) -> None:
    found = condgen("sample", "pets", *WORDS, "--out", "many.npz")
    _, _, images = drawn()
    with np.load("many.npz", allow_pickle=False) as many:
        assert many["x"].dtype == np.uint8 and np.array_equal(np.moveaxis(many["x"], -1, 1) >> 5, images.numpy())
        assert many["y"].tolist() == [0] * 7 + [1] * 7 and many["classes"].tolist() == ["cat", "a/dog"]
        assert many["log_prob"].tolist() == list(np.ravel(found["log_prob"]))
        assert many["k"].tolist() == [*range(7)] * 2 and set(many["seed"]) == {5}
    assert not Path("many.npz.partial").exists()
    assert condgen("sample", "pets", *WORDS, "--out", "many.npz")["code"] == 2
    scored = condgen("evaluate", "pets", "data.root=many.npz", "data.test=1", "data.validation=0", "--limit", 14)
    assert scored["code"] == 0, scored
    assert scored["examples"] == 14 and scored["bits_per_dim"] == pytest.approx(
        np.mean(found["bits_per_dim"]), rel=1e-5
    )
    plain = condgen("sample", "plain", "--count", 3, "--out", "plain.npz")
    with np.load("plain.npz", allow_pickle=False) as many:
        assert sorted(many.files) == ["k", "log_prob", "seed", "x"] and plain["labels"] == [""]


def interrupt(monkeypatch: pytest.MonkeyPatch, tile: int, where: str) -> None:
    """As if Ctrl-C came with tile number ``tile``: before its pictures, between two, or before its lines."""
    real, count = SampleJob.add, 0

    def add(self: SampleJob, images: np.ndarray, log_probs: Any) -> None:
        nonlocal count
        count += 1
        if count == tile:
            if where == "between":
                self._put(self.done, images[:2])
            elif where == "before the lines":
                self._put(self.done, images)
            raise KeyboardInterrupt
        real(self, images, log_probs)

    monkeypatch.setattr(SampleJob, "add", add)


@pytest.mark.parametrize("out", ["many", "many.npz"])
@pytest.mark.parametrize("where", ["before", "between", "before the lines"])
def test_an_interrupted_job_goes_on_and_ends_as_if_it_had_not_been(
    condgen: Call, monkeypatch: pytest.MonkeyPatch, out: str, where: str
) -> None:
    condgen("sample", "pets", *WORDS, "--out", f"whole{out}")
    for tile in (2, 1, 2):
        with monkeypatch.context() as patch:
            interrupt(patch, tile, where)
            found = condgen("sample", "pets", *WORDS, "--out", out)
        done = int(re.match(r"(\d+) of 14 images of many", found["message"])[1])  # type: ignore[index]
        assert (found["code"], found["kind"]) == (130, "interrupted")
        for name in Path(out).rglob("*.png"):
            Image.open(name).load()
    assert done == 8
    found = condgen("sample", "pets", *WORDS, "--out", out)
    assert found["drawn"] == 6
    if out == "many":
        assert contents("many") == contents("wholemany")
    else:
        assert Path(out).read_bytes() == Path("wholemany.npz").read_bytes()
        assert not Path("many.npz.partial").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("out", ["many", "many.npz"])
def test_a_job_that_is_terminated_goes_on(
    condgen: Call, monkeypatch: pytest.MonkeyPatch, out: str, number: signal.Signals
) -> None:
    condgen("sample", "pets", *WORDS, "--out", f"whole{out}")
    with monkeypatch.context() as patch:
        patch.setattr(SampleJob, "add", lambda self, images, log_probs: os.kill(os.getpid(), number))
        found = condgen("sample", "pets", *WORDS, "--out", out)
    assert (found["code"], found["kind"]) == (143, "interrupted") and found["message"].startswith("0 of 14 images")
    assert signal.getsignal(number) is signal.SIG_DFL
    condgen("sample", "pets", *WORDS, "--out", out)
    if out == "many":
        assert contents("many") == contents("wholemany")
    else:
        assert Path(out).read_bytes() == Path("wholemany.npz").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_sheet_is_written_leaves_no_half_of_it(
    condgen: Call, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    condgen("sample", "pets", "--out", "sheet.png")
    before = {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    real = os.fsync

    def interrupted(descriptor: int) -> None:
        real(descriptor)
        os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        for command in (("sample", "pets"), ("complete", "sheet.png", "--model", "pets", "--rows", 2)):
            found = condgen(*command, "--seed", 5, "--out", "sheet.png", "--force")
            assert (found["code"], found["kind"]) == (143 if number == signal.SIGTERM else 130, "interrupted")
    assert {path.name: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before


@pytest.mark.parametrize("damage", ["cut line", "no newline", "other value", "missing picture", "left aside"])
def test_what_a_dying_machine_leaves_is_mended(condgen: Call, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    condgen("sample", "pets", *WORDS, "--out", "whole")
    with monkeypatch.context() as patch:
        interrupt(patch, 3, "before")
        condgen("sample", "pets", *WORDS, "--out", "many")
    log = Path("many/samples.jsonl")
    lines = log.read_text().splitlines(keepends=True)
    assert len(lines) == 8
    if damage == "cut line":
        log.write_text("".join(lines)[:-30])
    elif damage == "no newline":
        log.write_text("".join(lines)[:-1])
    elif damage == "other value":
        log.write_text("".join(lines).replace('"k": 5', '"k": 15'))
    elif damage == "missing picture":
        Path("many/cat/00006.png").unlink()
    else:
        Path("many/cat/.condgen-17-0123abcd.tmp").write_text("half")
    assert condgen("sample", "pets", *WORDS, "--out", "many")["drawn"] == (6 if damage == "left aside" else 10)
    assert contents("many") == contents("whole")


@pytest.mark.parametrize("out", ["many", "many.npz"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--seed": 6}, "seed: 5, not 6"),
        ({"--temperature": 0.5}, "temperature: [1.0, 1.0], not [0.5, 0.5]"),
        ({"--temperature-logistic": 0.5}, "temperature: [1.0, 1.0], not [1.0, 0.5]"),
        ({"--sampler": "naive"}, 'sampler: "cached", not "naive"'),
        ({"--count": 8}, "count: 7, not 8"),
        ({"--label": "cat"}, 'labels: ["cat", "a/dog"], not ["a/dog", "cat"]'),
        ({"": "sample.tile=3"}, "tile: 4, not 3"),
        ({"RUN": "other"}, "model differs"),
    ],
    ids=str,
)
def test_another_job_is_refused_in_one_sentence(
    condgen: Call, monkeypatch: pytest.MonkeyPatch, out: str, change: dict[str, Any], message: str
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, 2, "before")
        condgen("sample", "pets", *WORDS, "--out", out)
    folder = "many" if out == "many" else "many.npz.partial"
    before = contents(folder)
    words: list[Any] = list(WORDS)
    name, value = next(iter(change.items()))
    if name == "--label":
        words[1], words[3] = words[3], words[1]
    elif name in words:
        words[words.index(name) + 1] = value
    elif name.startswith("--"):
        words += [name, value]
    elif name == "":
        words = [value, *words]
    model = value if name == "RUN" else "pets"
    found = condgen("sample", model, *words, "--out", out)
    assert found["code"] == 2 and f"{folder} holds other samples ({message});" in found["message"]
    assert contents(folder) == before
    assert condgen("sample", model, *words, "--out", out, "--force")["code"] == 0
    assert condgen("sample", model, *words, "--out", f"new{out}")["code"] == 0
    if out == "many":
        assert contents("many") == contents("newmany")
    else:
        assert Path(out).read_bytes() == Path("newmany.npz").read_bytes()


def test_a_folder_of_other_things_is_left_alone(condgen: Call) -> None:
    Path("mine").mkdir()
    Path("mine/letter.txt").write_text("Dear")
    for force in ([], ["--force"]):
        found = condgen("sample", "pets", *WORDS, "--out", "mine", *force)
        assert found["code"] == 2 and "holds other files than samples" in found["message"]
    assert contents("mine") == {"letter.txt": b"Dear"}
    Path("letter").write_text("Dear")
    assert condgen("sample", "pets", *WORDS, "--out", "letter")["code"] == 2
    found = condgen("sample", "pets", *WORDS, "--out", "nowhere/many")
    assert found["code"] == 2 and "there is no folder nowhere" in found["message"]


def test_finished_and_forced_it_is_drawn_anew(condgen: Call) -> None:
    condgen("sample", "pets", *WORDS, "--out", "many")
    whole = contents("many")
    Path("many/cat/00001.png").write_bytes(b"painted over")
    Path("many/notes.txt").write_text("mine")
    assert condgen("sample", "pets", *WORDS, "--out", "many", "--force")["drawn"] == 14
    assert contents("many") == whole | {"notes.txt": b"mine"}


def test_many_images_go_to_a_folder_by_themselves(condgen: Call) -> None:
    few = condgen("sample", "plain", "--count", 256)
    assert few["file"] == "plain-samples.png"
    many = condgen("sample", "plain", "--count", 257, "sample.tile=64")
    assert many["file"] == "plain-samples" and len(list(Path("plain-samples").glob("*.png"))) == 257
    assert condgen("sample", "plain", "--count", 257, "sample.tile=64")["drawn"] == 0
    assert condgen("sample", "plain", "--count", 257, "sample.tile=64", "--seed", 1)["file"] == "plain-samples-2"
    found = condgen("sample", "plain", "--count", 1025, "--out", "x.png")
    assert found["code"] == 2 and "A sheet of 1,025 images" in found["message"] and not Path("x.png").exists()


def test_two_temperatures(condgen: Call) -> None:
    def nats(*options: object) -> Any:
        return condgen("sample", "plain", "--count", 4, *options)["log_prob"]

    assert nats("--temperature", 0.5) == nats("--temperature-mixture", 0.5, "--temperature-logistic", 0.5)
    assert nats("--temperature", 0.5, "--temperature-mixture", 1) == nats("--temperature-logistic", 0.5)
    assert len({str(nats(*o)) for o in ([], ["--temperature-mixture", 0.01], ["--temperature-logistic", 0.01])}) == 3
    assert condgen("sample", "plain", "--temperature", 0)["message"] == "The temperature is a number above 0, not 0.0."


def test_samplers_by_name(condgen: Call) -> None:
    found = [
        condgen("sample", "pets", *WORDS, "--sampler", name) for name in ("auto", "cached", "fixed_point", "naive")
    ]
    pictures = {Path(each["file"]).read_bytes() for each in found}
    assert len(pictures) == 1
    for each in found[1:]:
        assert np.allclose(each["log_prob"], found[0]["log_prob"], rtol=1e-5)


def test_a_real_signal_leaves_whole_files_and_the_job_goes_on(condgen: Call) -> None:
    command = ["sample", "plain", "--count", "120", "--out", "many", "--sampler", "naive"]
    done = subprocess.Popen(
        [sys.executable, "-m", "condgen", *command, "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what a shell starts behind it ignores it
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not Path("many/samples.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    done.send_signal(signal.SIGSTOP)  # or it may have finished before the next line
    busy = condgen(*command)
    assert busy["code"] == 6 and "is being written by process" in busy["message"]
    done.send_signal(signal.SIGINT)
    done.send_signal(signal.SIGCONT)
    out = json.loads(done.communicate(timeout=60)[0])
    assert done.returncode == 130 and re.match(r"\d+ of 120 images of many are drawn", out["message"])
    lines = Path("many/samples.jsonl").read_text().splitlines()
    assert 0 < len(lines) < 120 and not list(Path("many").glob(".*"))
    for line in lines:
        Image.open(Path("many") / json.loads(line)["file"]).load()
    assert condgen(*command)["drawn"] == 120 - len(lines)
    condgen(*command[:5], "whole", *command[6:])
    assert contents("many") == contents("whole")
