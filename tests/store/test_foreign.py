"""Published weights: every container, what is inferred from shapes, and every way in which a file is wrong."""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from condgen.condition import DataInfo
from condgen.errors import CondgenError, MachineError, ModelError, RecipeError
from condgen.model import ConditionalModel
from condgen.recipe import recipe_from_dict
from condgen.recipe.build import build_model
from condgen.store import load
from condgen.store.foreign import read_foreign
from condgen.store.layouts import original_entries, port_entries
from condgen.store.published import AVERAGE, import_weights, model_of

Weights = dict[str, np.ndarray]
X = torch.arange(3 * 3 * 8 * 8, dtype=torch.uint8).view(3, 3, 8, 8)


def random_model(classes: int = 0, channels: int = 3, size: int = 8, **fields: Any) -> ConditionalModel:
    settings = {"core": "pixelcnn++", "filters": 4, "resnets": 1, "mixtures": 2, **fields}
    recipe = recipe_from_dict(
        {
            "data": {"image_size": size, "channels": channels},
            "encoder": {"type": "labels"} if classes else {"type": "none"},
            "model": settings,
            "train": {"max_steps": 1},
        },
        "test",
    )
    info = DataInfo(channels, size, size, classes=tuple(f"class {k}" for k in range(classes)))
    model = build_model(recipe, info)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.3)
    return model.eval()


def as_original(model: ConditionalModel) -> Weights:
    return {
        name: entry.place.detach().reshape(entry.shape).numpy().copy()
        for name, entry in original_entries(model.core).items()
    }


@cache
def small() -> Mapping[str, np.ndarray]:
    """The weights of ``random_model()``, to be left as they are."""
    return MappingProxyType(as_original(random_model()))


def as_port(model: ConditionalModel) -> Weights:
    """The port's state dict, its transposed convolutions normalised per input channel, with a V of another length."""
    found = {
        name: entry.place.detach().reshape(entry.shape).numpy().copy()
        for name, entry in port_entries(model.core).items()
    }
    for name in [name for name in found if name.endswith("deconv.weight_v")]:
        v, g = found[name], found[name[:-1] + "g"]
        kernel = g.reshape(1, -1, 1, 1) * v / np.sqrt((v**2).sum((0, 2, 3), keepdims=True))
        found[name] = 3 * kernel
        found[name[:-1] + "g"] = np.sqrt((kernel**2).sum((1, 2, 3), keepdims=True))
    return found


def log_prob(model: ConditionalModel, labels: bool = False) -> torch.Tensor:
    x = X[:, : model.info.channels, : model.info.height, : model.info.width]
    with torch.no_grad():
        return model.log_prob(x, model.condition({"label": torch.tensor([0, 2, 1])}) if labels else None)


def npz(folder: Path, weights: Mapping[str, np.ndarray], name: str = "w.npz") -> Path:
    np.savez(folder / name, **weights)  # type: ignore[arg-type]
    return folder / name


def imported(path: Path, **options: Any) -> ConditionalModel:
    return model_of(read_foreign(path), **options)[0]


# containers


def plain_npz(folder: Path, model: ConditionalModel) -> Path:
    return npz(folder, as_original(model))


def npz_of_the_port(folder: Path, model: ConditionalModel) -> Path:
    return npz(folder, as_port(model))


def port_tensors(model: ConditionalModel) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in as_port(model).items()}


def pth(folder: Path, model: ConditionalModel) -> Path:
    torch.save(port_tensors(model), folder / "w.pth")
    return folder / "w.pth"


def old_pt_of_several_gpus(folder: Path, model: ConditionalModel) -> Path:
    """As torch wrote files before 1.6, of a model in DataParallel, beside an epoch."""
    state = {f"module.{name}": tensor for name, tensor in port_tensors(model).items()}
    content = {"epoch": 3, "state_dict": state}
    torch.save(content, folder / "w.pt", _use_new_zipfile_serialization=False)
    return folder / "w.pt"


def as_safetensors(folder: Path, model: ConditionalModel) -> Path:
    safetensors.numpy.save_file(as_port(model), folder / "w.safetensors")
    return folder / "w.safetensors"


@pytest.mark.parametrize(
    "container",
    [plain_npz, npz_of_the_port, pth, old_pt_of_several_gpus, as_safetensors],
    ids=lambda container: container.__name__,
)
def test_every_container(tmp_path: Path, container: Callable[[Path, ConditionalModel], Path]) -> None:
    model = random_model()
    found = imported(container(tmp_path, model), image_size=(8, 8))
    assert torch.allclose(log_prob(found), log_prob(model), rtol=1e-5)
    assert not found.training


TENSORFLOW = """
import numpy as np
class train:
    class load_checkpoint:
        def __init__(self, prefix):
            self.variables = np.load(prefix + ".index")
        def get_variable_to_shape_map(self):
            return {name: list(self.variables[name].shape) for name in self.variables.files}
        def get_tensor(self, name):
            return self.variables[name]
"""


def checkpoint(monkeypatch: pytest.MonkeyPatch, folder: Path, weights: Weights, tensorflow: str = TENSORFLOW) -> Path:
    """What this program sees of a TensorFlow checkpoint, and a tensorflow that reads it."""
    (folder / "modules").mkdir()
    (folder / "modules" / "tensorflow.py").write_text(tensorflow)
    monkeypatch.setenv("PYTHONPATH", str(folder / "modules"))
    with open(folder / "params.ckpt.index", "wb") as file:
        np.savez(file, **weights)  # type: ignore[arg-type]
    (folder / "params.ckpt.data-00000-of-00001").write_bytes(b"data")
    return folder / "params.ckpt"


@pytest.mark.parametrize("name", ["params.ckpt", "params.ckpt.index", "params.ckpt.data-00000-of-00001"])
def test_a_tensorflow_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Averages are taken, what the optimiser keeps is not."""
    model = random_model(classes=3)
    averages = as_original(model)
    content = {key: np.zeros_like(values) for key, values in averages.items()}
    content |= {f"{key}{AVERAGE}": values for key, values in averages.items()}
    content |= {"Variable": np.ones((), np.float32), "Variable_12": np.ones(4, np.int32), "global_step": np.array(7)}
    checkpoint(monkeypatch, tmp_path, content)
    found, _, facts = model_of(read_foreign(tmp_path / name), image_size=(8, 8))
    assert facts["averaged"]
    assert torch.allclose(log_prob(found, labels=True), log_prob(model, labels=True), rtol=1e-6)


def test_a_tensorflow_checkpoint_without_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint(monkeypatch, tmp_path, {}, "raise ImportError('No module named tensorflow')")
    with pytest.raises(MachineError, match=r"\(No module named tensorflow\); install it, or make an \.npz") as caught:
        read_foreign(path)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("tensorflow", "reason"),
    [
        ("class train:\n    def load_checkpoint(prefix): raise ValueError('Checksum\\ndiffers')", "differs"),
        ("import os; os.abort()", "it ended with -6"),
    ],
    ids=["damaged", "crash"],
)
def test_a_damaged_tensorflow_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tensorflow: str, reason: str
) -> None:
    path = checkpoint(monkeypatch, tmp_path, {}, tensorflow)
    with pytest.raises(ModelError, match=rf"no TensorFlow checkpoint that can be read \({reason}\); name"):
        read_foreign(path)


@pytest.mark.parametrize("kind", ["file", "device", "pipe", "folder", "index of a folder", "closed folder"])
def test_what_is_no_checkpoint_is_not_given_to_tensorflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """And nobody waits for a pipe."""
    monkeypatch.setattr("condgen.store.foreign.subprocess.run", None)
    path = tmp_path / "w.bin"
    if kind == "file":
        path.write_bytes(b"weights")
    elif kind == "device":
        path = Path(os.devnull)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
        (path / "readme.txt").touch()
        if kind == "index of a folder":
            (tmp_path / "w.bin.index").mkdir()
        if kind == "closed folder":
            path.chmod(0)
    with pytest.raises(
        ModelError, match=r"is no TensorFlow checkpoint, which has an \.index file; name an \.npz"
    ) as caught:
        read_foreign(path)
    if kind == "closed folder":
        path.chmod(0o700)
    assert caught.value.file == str(path)


@pytest.mark.parametrize("mark", ["checkpoint", "model-7.index"])
def test_a_folder_of_tensorflow_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    checkpoint(monkeypatch, tmp_path, {}, "raise ImportError('none here')")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / mark).touch()
    with pytest.raises(MachineError, match=r"\(none here\); install it"):
        read_foreign(tmp_path / "run")


# what shapes say


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"resnets": 2, "filters": 5, "mixtures": 3},
        {"resnets": 3, "filters": 3, "mixtures": 1, "nonlinearity": "elu"},
        {"classes": 3},
        {"classes": 70, "filters": 3},
        {"channels": 1},
    ],
    ids=str,
)
def test_sizes_follow_from_shapes(tmp_path: Path, fields: dict[str, Any]) -> None:
    model = random_model(**{"vector_width": 128, **fields})
    found, recipe, facts = model_of(read_foreign(npz(tmp_path, as_original(model))), image_size=(8, 8))
    names = {"filters": 4, "resnets": 1, "mixtures": 2, "nonlinearity": "concat_elu", **fields}
    assert {name: facts[name] for name in names} == names
    assert found.info.classes == tuple(map(str, range(fields.get("classes", 0))))
    assert recipe.encoder.type == ("labels" if "classes" in fields else "none")
    assert (recipe.likelihood, recipe.model.likelihood_rule) == ("logistic_mixture", "exact")
    labels = "classes" in fields
    assert torch.allclose(log_prob(found, labels), log_prob(model, labels), rtol=1e-6)
    assert facts["parameters"] == sum(weight.numel() for weight in model.parameters())


def test_elu_and_relu_look_alike(tmp_path: Path) -> None:
    model = random_model(nonlinearity="relu")
    path = npz(tmp_path, as_original(model))
    assert not torch.allclose(log_prob(imported(path, image_size=(8, 8))), log_prob(model), rtol=1e-3)
    found = imported(path, nonlinearity="relu", image_size=(8, 8))
    assert torch.allclose(log_prob(found), log_prob(model), rtol=1e-6)
    said = npz(tmp_path, as_original(model) | {"config": np.array('{"resnet_nonlinearity": "relu"}')})
    assert model_of(read_foreign(said))[2]["nonlinearity"] == "relu"


@pytest.mark.parametrize(
    ("beside", "size"),
    [
        ({}, (32, 32)),
        ({"images": np.zeros((2, 8, 12, 3), np.uint8)}, (8, 12)),
        ({"config": np.array('{"height": 16, "width": 8}')}, (16, 8)),
        ({"config": np.array('{"height": true, "width": "8"}')}, (32, 32)),
        ({"config": np.array("[" * 100_000)}, (32, 32)),
    ],
    ids=["nothing", "images", "config", "nonsense", "deep nonsense"],
)
def test_the_image_size(tmp_path: Path, beside: Weights, size: tuple[int, int]) -> None:
    path = npz(tmp_path, {**small(), **beside, "loss_nats": np.ones(()), "grad/x": np.ones(2)})
    model = imported(path)
    assert (model.info.height, model.info.width) == size
    assert imported(path, image_size=(4, 20)).info.width == 20


@pytest.mark.parametrize(
    ("filters", "classes", "expected"),
    [
        (40, 0, 3_373_320),
        (80, 0, 13_440_840),
        (160, 0, 53_659_080),
        (192, 0, 77_244_104),
        (40, 10, 3_424_520),
        (80, 10, 13_543_240),
        (160, 10, 53_863_880),
        (192, 10, 77_489_864),
    ],
)
def test_the_published_models_have_as_many_parameters(filters: int, classes: int, expected: int) -> None:
    with torch.device("meta"):
        recipe = recipe_from_dict(
            {
                "encoder": {"type": "labels"} if classes else {"type": "none"},
                "model": {"core": "pixelcnn++", "filters": filters, "resnets": 5, "mixtures": 10},
                "train": {"max_steps": 1},
            },
            "test",
        )
        model = build_model(recipe, DataInfo(3, 32, 32, classes=tuple(map(str, range(classes)))))
    assert sum(weight.numel() for weight in model.parameters()) == expected
    entries = original_entries(model.core)
    assert len(entries) == 99 * 5 + 72 + (12 * 5 + 4 if classes else 0)
    assert sum(int(np.prod(entry.shape)) for entry in entries.values()) == expected


# what is wrong with a file


def without(*names: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: values for name, values in weights.items() if name not in names}


def replaced(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Weights], Weights]:
    return lambda weights: {**weights, name: change(weights[name])}


def with_nan(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values.flat[1] = np.nan
    return values


def column(place: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    """Another value in everything that makes one output."""

    def change(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        values[..., place] = value
        return values

    return change


def images(height: int, width: int) -> Callable[[Weights], Weights]:
    return lambda weights: {**weights, "images": np.zeros((1, height, width, 3), np.uint8)}


def config(**fields: object) -> Callable[[Weights], Weights]:
    return lambda weights: {**weights, "config": np.array(json.dumps(fields))}


V = "model/conv2d_1/V"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without(V), f"lacks {V} (1 of 171 entries are missing); save all of the model's weights."),
        (without(V, "model/dense_3/b"), f"lacks {V} (2 of 171 entries are missing)"),
        (without("model/conv2d_0/V"), "lacks model/conv2d_0/V, without which the model's sizes are unknown"),
        (without("model/conv2d_38/V"), "lacks model/conv2d_38/V (1 of 171"),
        (
            lambda weights: {**weights, "model/extra": np.ones(3, np.float32)},
            "holds model/extra, which a PixelCNN++ of this size does not have (1 entry too many)",
        ),
        (
            lambda weights: {**weights, "step": np.ones(3, np.float32), "t": np.ones(3, np.float32)},
            "holds step, which a PixelCNN++ of this size does not have (2 entries too many)",
        ),
        (
            replaced(V, lambda values: values[..., :3]),
            f"{V} is (1, 3, 4, 3), but by the other sizes (1, 3, 4, 4) (1 of 171 entries do not fit)",
        ),
        (replaced("model/conv2d_9/V", lambda values: values[0]), "model/conv2d_9/V is (3, 8, 4), but by the other"),
        (replaced("model/conv2d_0/V", lambda values: values[0]), "model/conv2d_0/V is (3, 4, 4), but has 4 dimensions"),
        (replaced("model/conv2d_0/V", lambda values: values[:, :, :3]), "the first layer reads 2 colour channels"),
        (replaced("model/dense_13/b", lambda values: values[:19]), "the last layer gives 19 numbers a pixel"),
        (replaced(V, with_nan), f"the tensor {V} holds NaN or infinity; use another copy"),
        (
            replaced("model/dense_3/b", lambda values: values.astype(np.float64) + 1e300),
            "model/dense_3/b holds numbers that do not fit fp32; give",
        ),
        (replaced(V, np.zeros_like), f"{V} has the norm 0 in channel 0 (4 of 4 are such), and weights are divided by"),
        (replaced("model/dense_3/V", column(2, 0)), "model/dense_3/V has the norm 0 in channel 2 (1 of 4 are such)"),
        (replaced(V, column(1, 1e-30)), f"{V} has the norm 0 in channel 1 (1 of 4"),  # its squares are 0 in fp32
        (replaced(V, column(1, 1e30)), f"{V} has the norm inf in channel 1 (1 of 4"),
        (
            replaced("model/deconv2d_0/V", lambda v: v * (np.arange(4) != 3)[:, None].astype(np.float32)),
            "model/deconv2d_0/V has the norm 0 in channel 3 (1 of 4",
        ),
        (images(10, 12), "speaks of images of 10x12 pixels, and these models have two halvings"),
        (images(12, 2048), "speaks of images of 12x2048 pixels"),
        (config(height=6, width=8), "speaks of images of 6x8 pixels"),
        (config(resnet_nonlinearity="relu"), "says relu (in config), but its widths fit concat_elu; give --nonlinear"),
        (config(resnet_nonlinearity="ta\x1bnh"), "says ta\\x1bnh (in config), but its widths fit concat_elu"),
        (replaced(V, lambda values: values.astype(np.int32)), f"{V} holds int32, and weights are floating-point"),
        (replaced(V, lambda values: values.astype(np.longdouble)), f"{V} holds float128, and weights are floating-"),
        (replaced(V, lambda values: np.array(["a"], object)), f"{V} holds Python objects, which are never loaded"),
        (lambda weights: {}, "holds no weights of openai/pixel-cnn or pclucas14/pixel-cnn-pp; give"),
        (
            lambda weights: {"conv.weight": np.ones(3, np.float32)},
            "holds no weights of openai/pixel-cnn or pclucas14/pixel-cnn-pp (its first name is conv.weight); give",
        ),
        (
            lambda weights: {**weights, V + AVERAGE: weights[V]},
            "has averages of some variables and not of others, like model/conv2d_0/V; save all",
        ),
        (replaced("model/conv2d_0/V", lambda v: np.ones((2, 3, 4, 5000), np.float32)), "5,000 filters, and 3 to 4,096"),
        (
            lambda weights: {**weights, "model/conv2d_99999/V": weights[V]},
            "lacks model/dense_37498/b, without which the model's sizes are unknown",
        ),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_what_is_wrong_with_the_weights_is_said(
    tmp_path: Path, change: Callable[[Weights], Weights], message: str
) -> None:
    path = npz(tmp_path, change(dict(small())))
    with pytest.raises(ModelError) as caught:
        model_of(read_foreign(path))
    said = caught.value.message
    assert message in said and str(path) in said and said.endswith(".") and "\n" not in said
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("upsize_u_stream.0.deconv.weight_v", lambda v: v * 0),
        ("upsize_ul_stream.1.deconv.weight_v", lambda v: v * (torch.arange(4) != 2).view(4, 1, 1, 1)),
        ("up_layers.0.u_stream.0.conv_out.conv.weight_v", lambda v: v * (torch.arange(8) != 2).view(8, 1, 1, 1)),
    ],
)
def test_a_zero_norm_of_the_port(tmp_path: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Of transposed convolutions the port's own norm, which is per input."""
    state = port_tensors(random_model())
    torch.save({**state, name: change(state[name])}, tmp_path / "w.pt")
    channel = 0 if not change(state[name]).any() else 2
    with pytest.raises(ModelError, match=rf"{name} has the norm 0 in channel {channel} \(") as caught:
        imported(tmp_path / "w.pt")
    assert caught.value.field == name and caught.value.exit_code == 4


def test_an_output_of_the_port_that_is_zero_stays_zero(tmp_path: Path) -> None:
    """It has a norm per input channel, and none per output: condgen writes it as g = 0."""
    model = random_model()
    name = "upsize_u_stream.0.deconv.weight_v"
    state = port_tensors(model)
    v = state[name].clone()
    v[:, 2] = 0
    torch.save({**state, name: v}, tmp_path / "w.pt")
    found = imported(tmp_path / "w.pt", image_size=(8, 8))
    kernel = v * (state[name[:-1] + "g"] / torch.linalg.vector_norm(v, dim=(1, 2, 3), keepdim=True))
    assert torch.allclose(found.core.up[0].u_resize.weight, kernel, atol=1e-6)
    assert bool(log_prob(found).isfinite().all())


def test_what_is_asked_for_is_stronger_than_what_a_file_says(tmp_path: Path) -> None:
    path = npz(tmp_path, images(10, 10)(config(resnet_nonlinearity="relu")(dict(small()))))
    facts = model_of(read_foreign(path), nonlinearity="concat_elu", image_size=(8, 12))[2]
    assert (facts["nonlinearity"], facts["height"], facts["width"]) == ("concat_elu", 8, 12)


def test_sizes_that_fit_in_no_memory_are_refused_by_their_shapes(tmp_path: Path) -> None:
    """A small file that claims 4,096 filters: what it lacks is found without making a model of that size."""
    weights = dict(small())
    weights["model/conv2d_0/V"] = np.ones((2, 3, 4, 4096), np.float32)
    with pytest.raises(ModelError, match=r"is .* but by the other sizes"):
        model_of(read_foreign(npz(tmp_path, weights)))


@pytest.mark.parametrize("container", ["pt", "npz"])
def test_a_small_file_that_claims_a_large_model_is_refused_unread(tmp_path: Path, container: str) -> None:
    """Tensors that repeat one number; an array that nobody wants."""
    if container == "pt":
        state = {name: torch.ones(1).expand(tensor.shape) for name, tensor in port_tensors(random_model()).items()}
        torch.save(state, tmp_path / "w.pt")
        with pytest.raises(ModelError, match=r"has fewer numbers of its own than its shape \(.*\) claims; save"):
            read_foreign(tmp_path / "w.pt")
    else:
        found = read_foreign(npz(tmp_path, {**small(), "model/extra": np.zeros((1 << 20, 2), np.float32)}))
        (tmp_path / "w.npz").unlink()  # all that is said comes from headers
        with pytest.raises(ModelError, match="holds model/extra, which"):
            model_of(found)


def test_weights_that_share_memory_are_refused(tmp_path: Path) -> None:
    """One buffer for all of a model's tensors is a way to save; the same numbers for two of them are a mere claim."""
    state = port_tensors(random_model())
    names, flat = list(state), torch.cat([tensor.reshape(-1) for tensor in state.values()])
    ends = np.cumsum([state[name].numel() for name in names])
    places = zip(names, ends, strict=True)
    views = {name: flat[end - state[name].numel() : end].view(state[name].shape) for name, end in places}
    torch.save(views, tmp_path / "w.pt")
    assert set(read_foreign(tmp_path / "w.pt").shapes) == set(names)
    views["again"] = flat[:5]
    torch.save(views, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="again has fewer numbers of its own than its shape"):
        read_foreign(tmp_path / "w.pt")


def test_a_file_that_changes_between_its_headers_and_its_weights(tmp_path: Path) -> None:
    found = read_foreign(npz(tmp_path, small()))
    npz(tmp_path, without(V)(dict(small())))
    with pytest.raises(ModelError, match="changed; try again"):
        model_of(found)
    npz(tmp_path, {**small(), V: np.ones(3, np.float32)})
    with pytest.raises(ModelError, match="changed while it was read"):
        model_of(found)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_too_little_memory_is_not_the_model_s_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """``condgen.cli.outcome`` makes a sentence of it, and exit code 6."""

    def fail(*_: object, **__: object) -> None:
        raise error

    torch.save(port_tensors(random_model()), tmp_path / "w.pt")
    found = read_foreign(npz(tmp_path, small()))
    with monkeypatch.context() as patched:
        patched.setattr(torch, "load", fail)
        with pytest.raises(type(error)) as caught:
            read_foreign(tmp_path / "w.pt")
        assert caught.value is error
    monkeypatch.setattr("condgen.store.published.build_model", fail)
    with pytest.raises(type(error)) as caught:
        model_of(found)
    assert caught.value is error


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4000])


def text(path: Path) -> None:
    path.write_text("V g b")


def one_byte_changed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "container"),
    [
        *((damage, container) for damage in (truncated, text) for container in (plain_npz, pth, as_safetensors)),
        (one_byte_changed, plain_npz),  # the others have no checksum
    ],
)
def test_damaged_files(
    tmp_path: Path, damage: Callable[[Path], None], container: Callable[[Path, ConditionalModel], Path]
) -> None:
    path = container(tmp_path, random_model())
    damage(path)
    with pytest.raises(ModelError) as caught:
        model_of(read_foreign(path))
    assert str(path) in caught.value.message and caught.value.message.endswith(".")


class Evil:
    """Unpickled, it would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_code_in_a_state_dict_is_not_run(tmp_path: Path, new: bool) -> None:
    torch.save({"u_init.conv.bias": Evil(tmp_path / "mark")}, tmp_path / "w.pth", _use_new_zipfile_serialization=new)
    with pytest.raises(ModelError, match=r"needs \w+\.mkdir to be loaded, and nothing that a file asks for is run"):
        read_foreign(tmp_path / "w.pth")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds no state dict of names and tensors"),
        ({"u_init.conv.bias": 3}, "holds no state dict of names and tensors"),
        ({"u_init.conv.bias": torch.ones(3, dtype=torch.int64)}, "u_init.conv.bias holds no plain floating-point"),
        (
            lambda: {"u_init.conv.bias": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)},
            "u_init.conv.bias holds no plain floating-point",
        ),
        (lambda: {"u_init.conv.bias": torch.eye(3).to_sparse_csr()}, "u_init.conv.bias holds no plain floating-point"),
        ({"u_init.conv.bias": torch.eye(3).to_sparse()}, "u_init.conv.bias holds no plain floating-point"),
        ({"u_init.conv.bias": torch.ones(3).to(torch.float8_e4m3fn)}, "u_init.conv.bias holds no plain floating-point"),
        ({}, "holds no weights of"),
    ],
    ids=["list", "number", "integers", "quantised", "sparse rows", "sparse", "fp8", "empty"],
)
def test_odd_state_dicts(tmp_path: Path, content: object, message: str) -> None:
    with warnings.catch_warnings():  # torch's own, of saving
        warnings.simplefilter("ignore")
        torch.save(content() if callable(content) else content, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=message):  # and no warning
        model_of(read_foreign(tmp_path / "w.pth"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_precisions_of_a_state_dict(tmp_path: Path, dtype: torch.dtype, kind: str) -> None:
    """What torch can check and convert is taken, the formats of 8 bits are not."""
    state = {name: tensor.to(dtype) for name, tensor in port_tensors(random_model()).items()}
    path = tmp_path / f"w.{kind}"
    if kind == "pt":
        torch.save(state, path)
    else:
        safetensors.torch.save_file(state, path)
    if dtype == torch.float8_e5m2:
        with pytest.raises(
            ModelError, match=r"holds no plain floating-point numbers of 16 to 64 bits; leave it out, or"
        ):
            read_foreign(path)
    else:
        first = imported(path, image_size=(8, 8)).core.start_above.bias
        assert torch.equal(first, state["u_init.conv.bias"].float())


def test_a_state_dict_lacks_and_has_too_much(tmp_path: Path) -> None:
    state = port_tensors(random_model())
    torch.save(state | {"norm.running_mean": torch.ones(3)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"holds norm\.running_mean, which a PixelCNN\+\+ of this size does not have"):
        model_of(read_foreign(tmp_path / "w.pth"))
    del state["upsize_u_stream.1.deconv.weight_g"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"lacks upsize_u_stream\.1\.deconv\.weight_g \(1 of 171"):
        model_of(read_foreign(tmp_path / "w.pth"))


@pytest.mark.parametrize("name", ["none.npz", "none.pth", "none.safetensors", "none", "a\0b"])
def test_no_such_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"none|possible name|There is no") as caught:
        read_foreign(tmp_path / name)
    assert "\0" not in caught.value.message


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ModelError, match=r"readme\.txt is no \.npy array"):
        read_foreign(tmp_path / "w.npz")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nonlinearity": "elu"}, r"--nonlinearity elu: the widths in .* fit concat_elu; choose concat_elu"),
        ({"nonlinearity": "gelu"}, "--nonlinearity gelu: there is none of this name; choose concat_elu or elu or relu"),
        (
            {"image_size": (30, 32)},
            "--image-size: 30x32 pixels are impossible: these models have two halvings, which take multiples of 4",
        ),
        ({"image_size": (2048, 32)}, r"--image-size: 2048x32 pixels .* up to 1,024; choose other sides\."),
    ],
    ids=str,
)
def test_options_that_do_not_fit(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        model_of(read_foreign(npz(tmp_path, small())), **options)
    assert caught.value.exit_code == 2


# the model folder


def test_the_folder(tmp_path: Path) -> None:
    model = random_model(classes=3)
    path = npz(tmp_path, as_original(model) | {"images": np.zeros((1, 8, 8, 3), np.uint8)})
    found = import_weights(path, tmp_path / "model")
    assert found["model"] == str(tmp_path / "model") and found["program"] == "openai/pixel-cnn"
    again = load(tmp_path / "model")
    assert torch.allclose(log_prob(again, labels=True), log_prob(model, labels=True), rtol=1e-6)
    assert again.recipe.data.test == 1 and "`w.npz`" in (tmp_path / "model" / "README.md").read_text()
    other = npz(tmp_path, as_original(random_model(filters=5)), "other.npz")
    with pytest.raises(RecipeError, match=r"exists; choose another name or add --force\."):
        import_weights(tmp_path / "none.npz", tmp_path / "model")  # said before anything is read
    import_weights(other, tmp_path / "model", force=True)
    assert load(tmp_path / "model").recipe.model.filters == 5
    assert sorted(os.listdir(tmp_path)) == ["model", "other.npz", "w.npz"]
    (tmp_path / "model" / "mine.txt").write_text("mine")
    with pytest.raises(RecipeError, match="holds something else than a model"):
        import_weights(other, tmp_path / "model", force=True)
    (tmp_path / "model" / "mine.txt").unlink()
    with pytest.raises(CondgenError):
        import_weights(tmp_path / "none.npz", tmp_path / "model", force=True)
    assert load(tmp_path / "model").recipe.model.filters == 5


def test_a_replacement_that_fails_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = npz(tmp_path, small())
    import_weights(path, tmp_path / "model")
    rename, calls = os.rename, []

    def failing(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(MachineError):
        import_weights(path, tmp_path / "model", force=True)
    assert len(calls) == 3 and load(tmp_path / "model") and sorted(os.listdir(tmp_path)) == ["model", "w.npz"]
