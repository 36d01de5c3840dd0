"""``condgen train`` and ``condgen evaluate`` of an embedding: figures, the curve, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from condgen.cli.app import app
from condgen.cli.outcome import run

TINY = """
data: {source: npz, image_size: 16, channels: 1, split_by: identity, test: 0.4, validation: 0.2}
encoder: {type: autoencoder, size: 4, filters: 4}
train: {objective: triplet, batch_size: 8, views: 2, max_steps: 2, warmup_steps: 0, evaluate_images: 30}
"""


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = run(app(), [*arguments, "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedding")
    people = np.repeat(np.arange(15), 6)
    generator = np.random.default_rng(0)
    faces = generator.integers(0, 200, (15, 16, 16))[people] + generator.integers(0, 50, (90, 16, 16))
    np.savez(folder / "people.npz", x=faces.astype(np.uint8), y=people)
    (folder / "tiny.yaml").write_text(TINY)
    return folder


def test_train_and_evaluate(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    code, trained = called(capsys, "train", "tiny.yaml", "--out", "run", "data.root=people.npz", "--quiet")
    assert code == 0 and trained["steps"] == 2 and 0 <= trained["auc"] <= 1
    assert (home / "run" / "samples" / "step-00000002.png").is_file()

    code, found = called(capsys, "evaluate", "run", "--roc", "roc.png", "--quiet")
    assert code == 0 and found["people"] == 6 and found["examples"] == 36 and found["split"] == "test"
    assert found["same_pairs"] == 6 * 15 and found["different_pairs"] == 36 * 35 // 2 - 90
    assert found["baseline_auc"] == 1.0  # a face and a little noise
    for name in ("auc", "verification_accuracy", "tar_at_far_1e-3", "baseline_tar_at_far_1e-3"):
        assert 0 <= found[name] <= 1, name
    with Image.open(home / "roc.png") as picture:
        assert found["roc"] == "roc.png" and picture.width > 1000
    assert called(capsys, "evaluate", "run", "--quiet")[1] == {**found, "roc": None}
    assert called(capsys, "evaluate", "run", "--limit", "14", "--quiet")[1]["people"] == 2

    assert run(app(), ["evaluate", "run", "--quiet"]) == 0
    assert "area under the ROC curve" in capsys.readouterr().out

    for code, arguments, words in (
        (2, ["evaluate", "run", "--roc", "roc.png"], "exists; choose another name or add --force"),
        (2, ["evaluate", "run", "--roc", "roc.jpg"], "ends in .png"),
        (2, ["evaluate", "run", "data.channels=3"], "data.channels: the images have channels 3"),
        (2, ["evaluate", "run", "train.views=3"], "train.views"),
        (4, ["sample", "run"], "train.objective=triplet"),
        (2, ["train", "tiny.yaml", "--out", "new", "data.root=people.npz", "train.batch_size=64"], "lower it to 12"),
        (2, ["train", "tiny.yaml", "--out", "new", "data.root=people.npz", "encoder.type=none"], "encoder"),
    ):
        found_code, answer = called(capsys, *arguments, "--quiet")
        assert (found_code, answer["code"]) == (code, code), answer
        assert words in answer["message"], answer
    assert not (home / "new").exists()
