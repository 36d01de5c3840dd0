"""Someone's own vectors: a table of numbers trains, words on the command line sample, and what cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picture_bytes import saved
from safetensors.numpy import save_file
from torch import Tensor

from condgen.cli.app import app
from condgen.cli.outcome import run
from condgen.condition import DataInfo
from condgen.encoders.plain import Vector
from condgen.errors import CondgenError, InputError, RecipeError
from condgen.store import load

D = 10
Call = Callable[..., Any]


def vector(column: str = "vector", size: int = 3) -> Vector:
    return Vector(Vector.Options(column=column), DataInfo(1, 4, 4, 2, columns={column: size, "other": 7}))


def parsed(text: object, **options: Any) -> Tensor:
    encoder = vector(**options)
    batch = encoder.parse("vector", str(text))
    assert set(batch) == {encoder.options.column}
    found = encoder(batch).vector
    assert found is not None and found.dtype == torch.float32
    return found


ROWS = np.array([[0.5, -1, 2], [3, 4e-3, 5]])


def save_csv(path: Path, rows: np.ndarray, names: str = "") -> None:
    np.savetxt(path, np.atleast_2d(rows), delimiter=",", header=names, comments="")


def test_a_file_has_one_vector_or_several(tmp_path: Path) -> None:
    save_csv(tmp_path / "named.csv", ROWS, "a,b,c")
    save_csv(tmp_path / "bare.csv", ROWS)
    np.save(tmp_path / "two.npy", ROWS)
    np.savez(tmp_path / "two.npz", anything=ROWS)
    save_file({"anything": ROWS}, tmp_path / "two.safetensors")
    for name in ("named.csv", "bare.csv", "two.npy", "two.npz", "two.safetensors"):
        assert torch.equal(parsed(tmp_path / name), torch.from_numpy(ROWS).float()), name
    np.save(tmp_path / "one.npy", ROWS[0])
    save_file({"one": ROWS[0]}, tmp_path / "one.safetensors")
    for name in ("one.npy", "one.safetensors"):
        assert torch.equal(parsed(tmp_path / name), torch.from_numpy(ROWS[:1]).float()), name
    np.save(tmp_path / "numbers.npy", np.arange(4))
    assert parsed(tmp_path / "numbers.npy", size=1).tolist() == [[0], [1], [2], [3]]


def test_of_several_arrays_it_takes_its_own_column(tmp_path: Path) -> None:
    np.savez(tmp_path / "both.npz", pose=ROWS, age=ROWS[:, 0])
    assert torch.equal(parsed(tmp_path / "both.npz", column="pose"), torch.from_numpy(ROWS).float())
    with pytest.raises(InputError, match="holds pose, age, but no vector; call its array so"):
        parsed(tmp_path / "both.npz")


def test_numbers_are_a_vector_themselves() -> None:
    assert parsed("0.5,-1,2").tolist() == parsed(" 0.5 , -1e0, 2").tolist() == [[0.5, -1, 2]]
    assert parsed("-3", size=1).tolist() == [[-3]]


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("1,2", RecipeError, "--vector: expected 3 numbers with commas between, found 2"),
        ("1,nan,2", RecipeError, "--vector: 1,nan,2 holds no finite numbers"),
        ("1,inf,2", RecipeError, "holds no finite numbers"),
        ("1,1e300,2", RecipeError, "holds no finite numbers"),
        ("1,two,3", InputError, r"--vector: 1,two,3 is no \.csv, \.npy, \.npz or \.safetensors file"),
        ("nothing.npy", InputError, r"nothing\.npy cannot be opened \(No such file or directory\)"),
        ("nothing.csv", InputError, r"nothing\.csv cannot be opened"),
        ("a\0b.npy", InputError, "cannot be opened"),
        ("", RecipeError, "expected a file, or "),
        ("notes", InputError, "is no .csv"),
    ],
)
def test_words_that_are_refused(text: str, error: type[CondgenError], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        vector().parse("vector", text)


def test_files_that_are_refused(tmp_path: Path) -> None:
    save_csv(tmp_path / "wide.csv", np.ones((2, 4)))
    (tmp_path / "text.csv").write_text("a,b,c\n1,2,three\n")
    (tmp_path / "nan.csv").write_text("a,b,c\n1,2,nan\n")
    (tmp_path / "short.csv").write_text("a,b,c\n1,2\n")
    np.save(tmp_path / "nan.npy", np.full(3, np.nan))
    np.save(tmp_path / "pickle.npy", np.array([{}], object))
    save_file({"vector": np.ones((2, 2, 3))}, tmp_path / "deep.safetensors")
    for name, sentence in {
        "wide.csv": "holds rows of 4 numbers, but the model's vectors have 3",
        "text.csv": "has 'three' under 'c' in line 2; give a number",
        "nan.csv": "has 'nan' under 'c' in line 2",
        "short.csv": "has 2 values in line 2, not 3 as in its first",
        "nan.npy": "holds NaN",
        "pickle.npy": "is damaged or holds no plain array of numbers",
        "deep.safetensors": r"holds \(2, 2, 3\) in vector",
    }.items():
        with pytest.raises(InputError, match=f"^--vector: .*{name} {sentence}") as error:
            vector().parse("vector", str(tmp_path / name))
        assert error.value.exit_code == 3


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(RecipeError, match=r"encoder\.column: the data has no column 'pose' \(it has: vector\)"):
        Vector(Vector.Options(column="pose"), DataInfo(1, 4, 4, 2, columns={"vector": 3}))


@pytest.fixture
def condgen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """A command in an empty folder: the JSON that it prints, its exit code in it."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Any:
        capsys.readouterr()
        code = run(app(), [*map(str, arguments), "--json", "--quiet"])
        return {"code": code} | json.loads(capsys.readouterr().out)

    return call


def make_photos(count: int = 40) -> np.ndarray:
    """Pictures of two kinds, dark above or dark below, and ten numbers for each: the first says which kind it is."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(count, D))
    rows[:, 0] = np.where(np.arange(count) % 2, 2.0, -2.0)
    for number, row in enumerate(rows):
        picture = generator.integers(0, 60, (4, 4, 3), dtype=np.uint8)
        picture[:2] += np.uint8(180) * np.uint8(row[0] > 0)
        picture[2:] += np.uint8(180) * np.uint8(row[0] < 0)
        path = Path("photos") / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(saved(picture, "PNG"))
    return rows


TRAINING = (
    *("data.source=folder", "data.root=photos", "data.image_size=4", "data.channels=1", "data.bit_depth=1"),
    *("encoder.type=vector", "data.columns=vectors.csv", "model.filters=8", "model.layers=2", "model.kernel_size=3"),
    *("train.batch_size=16", "train.max_steps=150", "train.learning_rate=0.02", "train.warmup_steps=1"),
    *("train.ema_decay=0.9", "train.max_minutes=null", "train.tensorboard=false", "sample.count=0"),
)


def test_a_table_of_ten_numbers_trains_and_samples(condgen: Call) -> None:
    """The whole way, with conditional dropout and guidance."""
    rows = make_photos()
    save_csv(Path("vectors.csv"), rows)
    Path("mine.yaml").write_text("description: A table.\n")
    trained = condgen("train", "mine.yaml", *TRAINING, "encoder.dropout=0.3", "--out", "runs/mine")
    assert trained["code"] == 0, trained
    model = load("mine")
    assert model.encoder.vector_size == D and model.condition_dropout == 0.3

    numbers = ",".join(["2", *["0"] * 9])
    np.save("down.npy", np.array([-2.0, *[0] * 9]))
    save_csv(Path("both.csv"), rows[:2], ",".join("abcdefghij"))

    def drawn(*words: object) -> Any:
        found = condgen("sample", "mine", *words, "--count", 8, "--out", "s.png", "--force")
        assert found["code"] == 0, found
        return found

    assert drawn("--vector", "both.csv")["labels"] == ["both.csv 0", "both.csv 1"]
    assert drawn("--vector", "-" + numbers)["labels"] == ["-" + numbers]  # no option of that name
    found = drawn("--vector", numbers, "--vector", "down.npy")
    assert found["labels"] == [numbers, "down.npy"] and found["guidance"] == 0
    for guidance in (0.0, 1.5):
        h = model.encode(vector=[numbers, "down.npy"])
        images, nats = model.sample_and_log_prob(h, 8, guidance=guidance)
        found = drawn("--vector", numbers, "--vector", "down.npy", "--guidance", guidance)
        assert np.allclose(np.ravel(found["log_prob"]), nats)
        upper = images.view(2, 8, 4, 4)[..., :2, :].double().mean((1, 2, 3))
        assert upper[0] > 0.7 > 0.3 > upper[1]  # it has learned what the first number says
    assert condgen("sample", "mine", "--out", "free.png")["labels"] == ["no condition"]

    many = ("sample", "mine", "--vector", numbers, "--count", 4, "--out", "many", "sample.tile=2")
    assert condgen(*many, "--guidance", 2)["code"] == 0
    failed = condgen(*many)
    assert failed["code"] == 2 and "guidance: 2.0, not 0.0" in failed["message"]

    picture = ("complete", "photos/00.png", "--model", "mine", "--rows", 2, "--vector", numbers, "--out", "c.png")
    found = condgen(*picture, "--guidance", 1)
    assert found["code"] == 0 and found["guidance"] == 1

    report = condgen("evaluate", "mine", "--split", "train")
    assert report["code"] == 0 and report["condition_bits"] > 3 * report["condition_bits_ci95"] > 0
    assert report["shuffle_gap_bits"] > report["condition_bits"]

    for words, code, sentence in (
        (("--vector", "1,2"), 2, "expected 10 numbers with commas between, found 2"),
        (("--vector", "lost.csv"), 3, "cannot be opened"),
        (("--vector", ""), 2, "--vector: expected a file, or 10 numbers with commas between, found nothing."),
        (("--vector", "  "), 2, "--vector: expected a file, or 10 numbers with commas between, found nothing."),
        (("--vector", numbers, "--guidance", "nan"), 2, "guidance is a number from -1 to 100"),
        (("--vector", numbers, "--guidance", "-2"), 2, "guidance is a number from -1 to 100"),
        (("--vector", numbers, "--guidence", "2"), 2, "did you mean --guidance?"),
    ):
        failed = condgen("sample", "mine", *words, "--out", "t.png")
        assert failed["code"] == code and sentence in failed["message"], failed
        assert not Path("t.png").exists()


@pytest.mark.parametrize(
    ("change", "code", "sentence"),
    [
        (lambda rows: rows[:-1], 3, "has 39 rows, but the set has 40 images"),
        (lambda rows: np.where(np.arange(D) == 3, np.nan, rows), 3, "has 'nan' under 'number 4' in line 1"),
        (lambda rows: np.full(rows.shape, 1e300), 3, "holds NaN, infinity or too large a number in row 0"),
    ],
)
def test_tables_that_do_not_fit_are_refused_before_training(
    condgen: Call, change: Callable[[np.ndarray], np.ndarray], code: int, sentence: str
) -> None:
    save_csv(Path("vectors.csv"), change(make_photos()))
    Path("mine.yaml").write_text("description: A table.\n")
    failed = condgen("train", "mine.yaml", *TRAINING, "--out", "runs/mine")
    assert failed["code"] == code and sentence in failed["message"], failed
    assert not Path("runs/mine").exists()


def test_a_model_without_dropout_refuses_guidance(condgen: Call) -> None:
    save_csv(Path("vectors.csv"), make_photos())
    Path("mine.yaml").write_text("description: A table.\n")
    assert condgen("train", "mine.yaml", *TRAINING, "train.max_steps=1", "--out", "runs/mine")["code"] == 0
    word = ("--vector", ",".join(["0"] * 10))
    failed = condgen("sample", "mine", *word, "--guidance", 1, "--out", "many")
    assert failed["code"] == 2 and "never trained without its condition" in failed["message"]
    assert failed["field"] == "encoder.dropout" and not Path("many").exists()
    assert "give --vector" in condgen("sample", "mine")["message"]
    assert condgen("evaluate", "mine", "--split", "train")["condition_bits"] is None
    failed = condgen("train", "mine.yaml", *TRAINING, "encoder.dropout=1.5", "--dry-run")
    assert failed["code"] == 2 and "encoder.dropout: expected less than 1.0" in failed["message"]
