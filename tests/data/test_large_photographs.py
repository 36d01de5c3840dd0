"""Large photographs take little more than small ones; what is too large is known from its header, without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from photos import astronaut, head, saved
from picture_bytes import exif, png
from PIL import Image

from condgen.data.images import check_picture, decode, decode_reduced
from condgen.errors import InputError

LONGEST = 100

_MEASURED = """
import sys, time
from condgen.data import open_face

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024

open_face(sys.argv[1], 3, 32, 32)
before, start = peak(), time.process_time()
_, boxes = open_face(sys.argv[2], 3, 32, 32)
print(peak() - before, time.process_time() - start, *boxes[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is asked of /proc")
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 90}),
        ("PNG", {"compress_level": 1}),
        pytest.param("JPEG", {"quality": 90, "progressive": True}, marks=pytest.mark.slow),
    ],
)
def test_fifty_megapixels_take_little(tmp_path: Path, kind: str, options: dict[str, object]) -> None:
    """In CPU seconds, which another process on the machine does not lengthen as it does the clock's."""
    (tmp_path / "small").write_bytes(saved(head(), "JPEG"))
    make = "import sys; from PIL import Image; photo = Image.open(sys.argv[1]).resize((8192, 6144))"
    script = f"{make}; photo.save(sys.argv[2], {kind!r}, **{options!r})"
    (tmp_path / "source.png").write_bytes(saved(astronaut().crop((100, 20, 420, 260)), "PNG"))
    subprocess.run([sys.executable, "-c", script, tmp_path / "source.png", tmp_path / "large"], check=True)
    command: list[str | Path] = [sys.executable, "-c", _MEASURED, tmp_path / "small", tmp_path / "large"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    megabytes, seconds, *box = map(float, done.stdout.split())
    assert megabytes < 500 and seconds < 5
    scale = 8192 / 320
    assert np.allclose(box, [(181 - 100) * scale, (62 - 20) * scale, (268 - 100) * scale, (172 - 20) * scale], atol=250)


def modes() -> dict[str, Image.Image]:
    picture = astronaut().resize((450, 330))
    alpha = Image.fromarray((np.add.outer(np.arange(330), np.arange(450)) % 256).astype(np.uint8))
    rgba = picture.copy()
    rgba.putalpha(alpha)
    grey = picture.convert("L")
    return {
        "RGB": picture,
        "L": grey,
        "RGBA": rgba,
        "P": picture.quantize(64),
        "1": grey.convert("1"),
        "I;16": Image.fromarray(np.asarray(grey).astype(np.uint16) * 257),
        "LA": rgba.convert("LA"),
    }


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "I;16", "LA"])
def test_a_reduced_picture_is_the_mean_of_the_whole(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr("condgen.data.images._STRIP_PIXELS", 450 * 50)  # many strips, the last one short
    data = saved(modes()[mode], "PNG")
    whole, (reduced, full) = decode(data), decode_reduced(data, LONGEST)
    assert full == whole.size == (450, 330) and reduced.size == (113, 83) and reduced.mode == whole.mode
    expected = np.asarray(whole.reduce(4)).astype(int)
    assert np.abs(np.asarray(reduced).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_is_reduced_while_it_is_decoded(orientation: int) -> None:
    data = saved(astronaut().resize((448, 328)), "JPEG", quality=95, exif=exif(orientation))
    whole, (reduced, full) = decode(data), decode_reduced(data, LONGEST)
    assert full == whole.size == ((448, 328) if orientation == 1 else (328, 448))
    assert reduced.size == ((112, 82) if orientation == 1 else (82, 112))
    expected = np.asarray(whole.resize(reduced.size, Image.Resampling.BOX)).astype(int)
    assert np.abs(np.asarray(reduced).astype(int) - expected).mean() < 3
    assert decode_reduced(data, 300)[0].size == whole.size  # less than twice that: as it is


def bomb(kind: str) -> bytes:
    """Few bytes that claim to be 1.6 gigapixels."""
    if kind == "PNG":
        return png(40000, 40000, 8, 2, b"\0" * 1000)
    small = Image.new("RGB", (16, 16))
    data = saved(small, kind)
    if kind == "JPEG":  # height and width stand behind the start of frame
        place = data.index(b"\xff\xc0") + 5
        return data[:place] + b"\x9c\x40\x9c\x40" + data[place + 4 :]
    return data[:6] + b"\x40\x9c\x40\x9c" + data[10:]  # GIF: the screen


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_a_bomb_is_refused_from_its_header_without_torch(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(bomb(kind))
    with pytest.raises(InputError, match="it has 40000x40000 pixels, more than"):
        check_picture(path)
    script = (
        "import sys\nfrom condgen.cli import main\ntry:\n main()\nfinally:\n"
        " print('torch' in sys.modules, 'facenet_pytorch' in sys.modules)"
    )
    command: list[str | Path] = [sys.executable, "-c", script, "embed", path, "--model", "there-is-none"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 3 and "it has 40000x40000 pixels, more than" in done.stderr
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "it is empty"),
        (b"hello", "its format is not accepted"),
        (saved(Image.new("RGB", (4, 4)), "PNG")[:20], "it is damaged or cut off"),
        (b"\0\0\0\x18ftypavif", "AVIF is not accepted"),
    ],
)
def test_what_the_first_bytes_tell(tmp_path: Path, data: bytes, sentence: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with pytest.raises(InputError, match=sentence) as caught:
        check_picture(path)
    assert str(path) in caught.value.message
    with pytest.raises(InputError, match="cannot be opened"):
        check_picture(tmp_path / "missing.jpg")
    path.write_bytes(saved(Image.new("RGB", (4, 4)), "WEBP"))
    check_picture(path)
