"""``data.aligned: false``: every picture's largest face, found once, and what has no face is listed and skipped."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from photos import astronaut, group, head, saved
from PIL import Image

from condgen.data import open_data, open_face, photographs
from condgen.errors import InputError, RecipeError
from condgen.recipe.schema import DataSection

NOTHING = saved(Image.new("RGB", (60, 60), (90, 120, 40)), "PNG")


def section(root: Path, **fields: Any) -> DataSection:
    given = {"source": "folder", "root": str(root), "image_size": 24, "aligned": False, "validation": 0, "test": 0}
    return DataSection(**(given | fields))


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Two people, one of whom is also in front of nobody."""
    pictures = {
        "ann/1.png": saved(astronaut(), "PNG"),
        "ann/2.jpg": saved(head(), "JPEG", quality=95),
        "ann/garden.png": NOTHING,
        "bob/1.png": saved(group(), "PNG"),
    }
    for name, data in pictures.items():
        path = tmp_path / "people" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "people"


def test_pictures_are_the_aligned_faces(
    people: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("condgen.progress._LINE_SECONDS", 0)
    data = open_data(section(people), "train")
    said = capsys.readouterr().err
    assert f"finding faces in {people}: 4/4 images" in said
    assert "1 of 4 images" in said and "first ann/garden.png: no face was found in it" in said
    assert data.skipped == [("ann/garden.png", "no face was found in it")] and len(data) == 3
    (index,) = cache.glob("images/*/index.json")
    assert json.loads(index.read_text())["skipped"] == [[2, "ann/garden.png", "no face was found in it"]]
    batch = data.batch(np.arange(3))
    assert batch["label"].tolist() == [0, 0, 1]
    for row, name in enumerate(["ann/1.png", "ann/2.jpg", "bob/1.png"]):
        assert np.array_equal(batch["image"][row], open_face(people / name, 3, 24, 24)[0]), name


def test_faces_are_found_once(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_data(section(people), "train")
    with monkeypatch.context() as patched:
        patched.setattr(photographs, "find_faces", lambda picture: pytest.fail("a face was sought again"))
        again = open_data(section(people), "train")
    assert again.fingerprint == first.fingerprint and np.array_equal(again.pixels[again.rows], first.pixels[first.rows])
    as_it_is = open_data(section(people, aligned=True), "train")
    assert as_it_is.fingerprint != first.fingerprint and len(as_it_is) == 4


def test_grey_and_transparent_sets(people: Path) -> None:
    colours = open_data(section(people), "train").batch(np.arange(3))["image"].numpy()
    grey = open_data(section(people, channels=1), "train").batch(np.arange(3))["image"].numpy()
    with_alpha = open_data(section(people, channels=4), "train").batch(np.arange(3))["image"].numpy()
    luma = np.tensordot(colours, [0.299, 0.587, 0.114], axes=([1], [0]))
    assert np.abs(grey[:, 0] - luma).max() <= 1
    assert np.array_equal(with_alpha[:, :3], colours) and (with_alpha[:, 3] == 255).all()


def test_no_face_is_not_unreadable(people: Path) -> None:
    """``data.max_skipped`` counts what is broken alone."""
    assert len(open_data(section(people, max_skipped=0), "train")) == 3
    (people / "bob" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(InputError, match=r"1 of 5 images cannot be used, more than .*; the first is bob/2\.png"):
        open_data(section(people), "train")


def test_a_folder_without_any_face(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(NOTHING)
    with pytest.raises(
        InputError, match=r"no face was found in any of its 2 images; set data.aligned to true"
    ) as caught:
        open_data(section(tmp_path), "train")
    assert caught.value.exit_code == 3


def test_drawn_portraits_are_aligned_already() -> None:
    with pytest.raises(RecipeError, match=r"data.aligned: portraits are drawn aligned"):
        open_data(DataSection(aligned=False, identities=2, views=2), "train")


def test_heif_is_read_once_its_package_is_there(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("pillow_heif", reason="HEIF is an extra")
    try:
        library.from_pillow(head()).save(people / "bob" / "2.heic", quality=90)
    except RuntimeError:
        pytest.skip("this build of libheif cannot write HEIC")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "pillow_heif", None)
        patched.setattr("condgen.data.folder.heif_installed", lambda: False)
        without = open_data(section(people, max_skipped=0.5), "train")
    assert without.skipped[1][0] == "bob/2.heic" and "pip install pillow-heif" in without.skipped[1][1]
    found = open_data(section(people, max_skipped=0.5), "train")
    assert len(found) == len(without) + 1 and len(found.skipped) == 1
