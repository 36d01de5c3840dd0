"""``condgen-captions``: a text file becomes a column, and a model of somebody's own pictures takes captions."""

from __future__ import annotations

from pathlib import Path

import condgen
import numpy as np
import pytest
from condgen.errors import InputError
from PIL import Image
from small import SMALL, Command

from condgen_captions import text
from condgen_captions.columns import embedded

CAPTIONS = [f"a {shade} picture, number {k}" for k, shade in enumerate(["dark", "grey", "bright"] * 8)]


def test_pictures_and_captions_of_one_s_own(tmp_path: Path, command: Command) -> None:
    (tmp_path / "pictures").mkdir()
    for k in range(len(CAPTIONS)):
        Image.new("RGB", (16, 16), (10 * k, 255 - 10 * k, 100)).save(tmp_path / "pictures" / f"{k:02}.png")
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS) + "\n")
    done = command("condgen_captions", "captions.txt", "--out", "captions.npz")
    assert (done.returncode, done.stdout) == (0, f"24 captions of {text.WIDTH} numbers: captions.npz\n"), done.stderr
    with np.load(tmp_path / "captions.npz", allow_pickle=False) as made:
        assert np.array_equal(made["caption"], text.vectors(CAPTIONS).numpy())
    own = {"data.source": "folder", "data.root": tmp_path / "pictures", "data.columns": tmp_path / "captions.npz"}
    run = condgen.train("captions-portraits", {**SMALL, **own}, out=tmp_path / "own", quiet=True)
    h = condgen.load(run).encode(caption=["a dark picture", "a bright picture"])
    assert len(h) == 2 and h.vector is not None and not np.allclose(*h.vector)
    again = command("condgen_captions", "captions.txt", "--out", "captions.npz")
    assert (again.returncode, again.stdout) == (3, "") and "captions.npz exists" in again.stderr
    assert command("condgen_captions", "captions.txt", "--out", "captions.txt").returncode == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"captions\.txt is empty; write one caption a line\."),
        (b"a hat\n\na beard\n", r"captions\.txt, line 2: The caption '' has no words"),
        ("a hat\nшляпа\n".encode(), r"line 2: The caption 'шляпа' has the letter 'ш'"),
        (b"a hat\n" + b"long " * 100, r"line 2: .* has 499 characters|line 2: .* has 500 characters"),
        (b"\xff\xfe\x00", r"is not a readable UTF-8 text file"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "captions.txt").write_bytes(content)
    with pytest.raises(InputError, match=words):
        embedded(tmp_path / "captions.txt")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a readable UTF-8 text file"):
        embedded(tmp_path / "none.txt")


def test_a_mark_at_the_beginning_and_other_line_ends(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_bytes(b"\xef\xbb\xbfa hat\r\na beard\r\n")
    assert np.array_equal(embedded(tmp_path / "captions.txt"), text.vectors(["a hat", "a beard"]).numpy())
