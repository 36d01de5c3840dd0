"""The benchmark of training: what it compares is one function, and what it prints is what it says."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from condgen.condition import DataInfo
from condgen.likelihoods import LogisticMixture
from condgen.recipe import Recipe
from condgen.recipe.build import build_model

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def on_the_path() -> Iterator[None]:
    """As it is for ``python benchmarks/training.py``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield


def module(name: str) -> Any:
    return importlib.import_module(name)


# one function


def condgen_model(filters: int, resnets: int, **model: Any) -> Any:
    """In float64, channels-last, with the original's likelihood."""
    settings = {"core": "pixelcnn++", "filters": filters, "resnets": resnets, "mixtures": 2, **model}
    recipe = Recipe.model_validate(
        {"data": {"image_size": 8}, "model": {"likelihood_rule": "classic", **settings}, "train": {"max_steps": 1}}
    )
    return build_model(recipe, DataInfo(3, 8, 8, 8)).double()


def plain_name(name: str) -> str:
    """``down.0.u.0.conv_in.bias`` of condgen's core is ``down.0.u.0.conv_in.conv.bias`` of the plain network."""
    layer = name.split(".parametrizations")[0].removesuffix(".bias")
    inner = "" if layer == "out" or layer.endswith("nin") else ".conv"
    return layer + inner + name[len(layer) :]


def plain_order(filters: int, name: str, tensor: Tensor) -> Tensor:
    """The plain network's nin of two features reads [u, ul, -u, -ul], condgen's [u, -u, ul, -ul]."""
    if not name.endswith("nin.parametrizations.weight.original1") or tensor.shape[1] != 4 * filters:
        return tensor
    u, minus_u, ul, minus_ul = tensor.split(filters, dim=1)
    return torch.cat([u, ul, minus_u, minus_ul], dim=1)


def same_weights(filters: int = 4, resnets: int = 2) -> tuple[nn.Module, Any]:
    """The plain network and condgen's model with random weights, biases and g too, in double precision."""
    model = condgen_model(filters, resnets)
    plain = module("plain").PlainPixelCNNpp(filters, resnets, mixtures=2, dropout=0.0).double()
    generator = torch.Generator().manual_seed(1)
    state = {}
    with torch.no_grad():
        for name, weight in model.core.named_parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
            state[plain_name(name)] = plain_order(filters, name, weight).contiguous()
    plain.load_state_dict(state)  # by every name
    return plain, model


def test_plain_and_condgen_are_one_function() -> None:
    plain, model = same_weights()
    x = torch.randint(0, 256, (3, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    scaled = x.double() / 127.5 - 1
    core = model.eval().core
    outputs = plain(scaled)
    assert outputs.std() > 0.1
    torch.testing.assert_close(core(scaled, core.terms(model.condition({"image": x}))), outputs, rtol=0, atol=1e-10)
    nats = module("plain").plain_loss(outputs, scaled)
    torch.testing.assert_close(model.nll({"image": x}), nats, rtol=1e-10, atol=0)

    nats.mean().backward()
    model.nll({"image": x}).mean().backward()
    gradients = dict(plain.named_parameters())
    for name, weight in core.named_parameters():
        expected = gradients[plain_name(name)].grad
        found = plain_order(4, name, weight.grad)
        assert expected is not None and torch.allclose(found, expected, rtol=1e-8, atol=1e-8), name


@pytest.mark.parametrize("name", ["start_left.conv.bias", "up.1.ul.2.nin.bias", "down.0.ul_resize.conv.bias"])
def test_a_difference_in_one_weight_is_seen(name: str) -> None:
    plain, _ = same_weights()
    x = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        before = plain(x)
        dict(plain.named_parameters())[name][0] += 0.01
        assert (plain(x) - before).abs().max() > 1e-6


@pytest.mark.parametrize(("filters", "parameters", "gflop"), [(40, 3_373_320, 9.17), (80, 13_440_840, 36.6)])
def test_the_network_is_the_published_one(filters: int, parameters: int, gflop: float) -> None:
    with torch.device("meta"):
        network = module("plain").PlainPixelCNNpp(filters)
    assert sum(weight.numel() for weight in network.parameters()) == parameters
    work = module("training").gflop_per_image(module("contenders").Variant(filters, 8))
    assert work == pytest.approx(gflop, abs=0.01)


def test_the_classic_loss_is_condgens() -> None:
    """With parameters far beyond those of an untrained network: every case of the rule occurs."""
    generator = torch.Generator().manual_seed(0)
    parameters = 4 * torch.randn(2, 20, 8, 8, generator=generator, dtype=torch.float64)
    x = torch.randint(0, 256, (2, 3, 8, 8), generator=generator)
    x[0, :, 0] = 0
    x[0, :, 1] = 255
    expected = -LogisticMixture(3, 256, 2, rule="classic").log_prob(parameters, x).sum((1, 2))
    torch.testing.assert_close(module("plain").plain_loss(parameters, x.double() / 127.5 - 1), expected)


@pytest.mark.parametrize("whole_channels", [False, True])
def test_dropout_of_elements_or_of_channels(whole_channels: bool) -> None:
    resnet = module("plain").PlainPixelCNNpp(40, 1, 2, whole_channels=whole_channels).down[0].u[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dropped = resnet.dropout(torch.ones(4, 40, 8, 8)) == 0
    assert 0.4 < dropped.float().mean() < 0.6
    by_channel = dropped.flatten(2).float().mean(2)
    assert bool(((by_channel == 0) | (by_channel == 1)).all()) is whole_channels


# what is measured


def test_steps_are_timed_in_turn_and_warm_up_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    training, variant, now, calls = module("training"), module("contenders").Variant, [0.0], []
    monkeypatch.setattr(module("machine").time, "process_time", lambda: now[0])

    def step(name: str, seconds: float) -> Any:
        def work() -> None:
            calls.append(name)
            now[0] += seconds if len(calls) > 6 else 100.0  # two rounds of three calls

        return work

    class Silent:
        def advance(self, n: int) -> None:
            pass

    a, b = variant(40, 8), variant(40, 8, plain=True)
    steps, cpu = {a: step("a", 1.0), b: step("b", 2.0)}, torch.device("cpu")
    found = training.measure(steps, 2, cpu, lambda: calls.append("anchor"), Silent())
    assert calls == ["a", "b", "anchor"] * 4
    assert found == {a: [1.0, 1.0], b: [2.0, 2.0]}
    assert training.quotients(found[b], found[a]) == [2.0, 2.0, 2.0]


def test_a_ratio_is_the_median_of_the_rounds_quotients() -> None:
    # a slow round slows both: the quotient of the medians would be 3
    assert module("training").quotients([2.0, 60.0, 6.0], [1.0, 30.0, 2.0])[1] == 2.0


def test_the_memory_is_that_of_this_process() -> None:
    training = module("training")
    before = training.peak_memory_mb(torch.device("cpu"))
    held = torch.ones(50 * 2**20)  # 200 MB
    assert training.peak_memory_mb(torch.device("cpu")) - before > 100
    del held


# what is printed

FIELDS = {
    "filters", "batch", "compiled", "precision", "images_per_second", "fraction_of_peak", "ratio_to_plain",
    "peak_memory_mb", "compile_seconds",
}  # fmt: skip


def run(*arguments: str) -> str:
    command = [sys.executable, str(BENCHMARKS / "training.py"), "--smoke", "--device", "cpu", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "error"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_json_has_what_it_promises() -> None:
    report = json.loads(run("--only", "eager", "--json"))
    assert report["matmul_gflops"] > 0 and report["convolution_gflops"] > 0 and report["instruction_set"]
    assert isinstance(report["bf16_is_fast"], bool)
    (row,) = report["configurations"]
    assert set(row) >= FIELDS
    assert (row["filters"], row["batch"], row["compiled"], row["precision"]) == (4, 2, False, "fp32")
    assert row["compile_seconds"] is None and row["dropout"] == "elements"
    assert 50 < row["memory_of_torch_mb"] < row["peak_memory_mb"]
    expected = row["images_per_second"] * row["gflop_per_image"] / report["matmul_gflops"]
    assert row["fraction_of_peak"] == pytest.approx(expected, abs=1e-3)
    for name in ("ratio_to_plain", "ratio_to_plain_channels"):
        assert row[name] > 0 and len(row[f"{name}_quartiles"]) == 2
    assert row["dropout_share"] < 1
    assert [plain["dropout"] for plain in report["plain"]] == ["elements", "channels"]


def test_a_table_for_people() -> None:
    lines = run("--only", "eager", "--no-memory").splitlines()
    assert len(lines) == 5 and "fp32 matmul" in lines[0]
    assert lines[4].startswith("4 filters, batch 2, eager fp32")


def test_no_rounds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        module("training").main(["--rounds", "0"])
    assert "at least 1" in capsys.readouterr().err
