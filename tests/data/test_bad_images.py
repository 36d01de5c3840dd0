"""What people's folders hold: each kind of picture file, good, odd or hostile, ends as it should."""

from __future__ import annotations

import gzip
import os
import resource
import socket
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from picture_bytes import (
    SIGNATURE,
    chunk,
    exif,
    gif_frames,
    gradient,
    png,
    progressive_scans,
    saved,
    swapped_profile,
    tiff_pages,
)
from PIL import Image

from condgen.data import open_data, open_image
from condgen.errors import InputError
from condgen.recipe.schema import DataSection

GOOD = saved(gradient(), "PNG")
JPEG = saved(gradient(64, 64), "JPEG")
RGBA = np.dstack([gradient(), np.full((12, 10), 255, np.uint8)])


def flat(value: int | tuple[int, ...], mode: str, kind: str, **options: object) -> bytes:
    return saved(Image.new(mode, (10, 12), value), kind, **options)


def array(values: np.ndarray, kind: str) -> bytes:
    return saved(Image.fromarray(values), kind)


def broken_crc(kind: bytes) -> bytes:
    data = bytearray(png(4, 4, 8, 0, (b"\0" + b"\x80" * 4) * 4, chunk(b"tEXt", b"a\0b")))
    place = data.index(kind)
    (length,) = struct.unpack_from(">I", data, place - 4)
    data[place + 4 + length] ^= 1
    return bytes(data)


def flipped_bit(data: bytes) -> bytes:
    place = data.index(b"\xff\xda") + 40
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


def without_adobe(data: bytes) -> bytes:
    """A CMYK JPEG without the segment that says its inks are inverted."""
    place = data.index(b"\xff\xee")
    (length,) = struct.unpack_from(">H", data, place + 2)
    return data[:place] + data[place + 2 + length :]


def as_ycck(data: bytes) -> bytes:
    place = data.index(b"Adobe") + 11
    return data[:place] + b"\x02" + data[place + 1 :]


def frames(kind: str) -> bytes:
    images = [Image.new("RGB", (10, 12), colour) for colour in ((200, 30, 30), (30, 200, 30))]
    return saved(images[0], kind, save_all=True, append_images=images[1:])


def gray16(values: int, order: str = ">") -> bytes:
    pixels = np.full((12, 10), values, f"{order}u2")
    if order == ">":
        return png(10, 12, 16, 0, b"".join(b"\0" + row.tobytes() for row in pixels))
    return array(pixels, "TIFF")


def gray_bits(bits: int) -> bytes:
    """The largest value everywhere: white, whatever the depth."""
    return png(8, 2, bits, 0, (b"\0" + b"\xff" * bits) * 2)


def exif_cycle() -> bytes:
    """Its directory is followed by itself."""
    block = exif(6)
    return saved(gradient(), "JPEG", exif=block[:-4] + struct.pack("<I", 8))


RED, GREEN = (200, 30, 30), (30, 200, 30)
WHITE = (255, 255, 255)

# name of the file, its maker, what must become of it (A accepted, S skipped with a reason, X passed over, ? either of
# A and S), and the colour of an accepted one's pixels within 8 levels, where that is the question
TABLE: list[tuple[str, Callable[[], bytes], str, tuple[int, int, int] | None]] = [
    ("I1.png", lambda: b"", "S", None),
    ("I2.png", lambda: b"\x89", "S", None),
    ("I3.png", lambda: SIGNATURE, "S", None),
    ("I4.png", lambda: GOOD[:20], "S", None),
    ("I5.png", lambda: GOOD[: len(GOOD) // 2], "S", None),
    ("I6.png", lambda: GOOD[:-12], "A", None),
    ("I7.jpg", lambda: JPEG[: len(JPEG) // 2], "S", None),
    ("I8.jpg", lambda: JPEG[:-2], "S", None),
    ("I9.jpg", lambda: flipped_bit(JPEG), "?", None),
    ("I10.png", lambda: broken_crc(b"IDAT"), "S", None),
    ("I11.png", lambda: broken_crc(b"tEXt"), "?", None),
    ("I12.png", lambda: GOOD[:33] + GOOD[8:33] + GOOD[33:], "S", None),
    ("I13.png", lambda: png(4, 4, 8, 3, (b"\0" + b"\1" * 4) * 4), "S", None),
    ("I14.gif", lambda: (lambda data: data[: -len(data) // 4])(gif_frames(2)), "A", None),
    ("I15.webp", lambda: (lambda data: data[: len(data) // 2])(saved(gradient(), "WEBP")), "S", None),
    ("I16.tif", lambda: tiff_pages(1, next_of_first=12), "?", None),
    ("I17.bmp", lambda: saved(gradient(), "BMP").replace(struct.pack("<I", 40), struct.pack("<I", 4000), 1), "S", None),
    ("I18.png", lambda: bytes(20 << 10), "S", None),
    ("I19.png", lambda: b"\xff" * (20 << 10), "S", None),
    ("I22.png", lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "S", None),
    ("I23.jpg", lambda: b"\n<!DOCTYPE html><html>404</html>", "S", None),
    ("I24.png", lambda: gzip.compress(GOOD), "S", None),
    ("I25.png", lambda: saved(gradient(), "JPEG"), "A", None),
    ("I26.jpg", lambda: GOOD, "A", None),
    ("I27", lambda: GOOD, "X", None),
    ("I28.JPEG", lambda: JPEG, "A", None),
    (".DS_Store", lambda: b"\0\0\0\1Bud1", "X", None),
    ("Thumbs.db", lambda: b"\xd0\xcf\x11\xe0", "X", None),
    ("._a.jpg", lambda: b"\0\5\x16\7", "X", None),
    ("a.jpg~", lambda: JPEG, "X", None),
    (".hidden.png", lambda: GOOD, "X", None),
    ("I30.png", lambda: b"not a picture\n", "S", None),
    ("I31.svg", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "S", None),
    ("I32.pdf", lambda: b"%PDF-1.7\n", "S", None),
    ("I33.eps", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "S", None),
    ("I34.png", lambda: saved(gradient(), "AVIF"), "S", None),
    ("I35.png", lambda: saved(gradient(16, 16), "ICO"), "S", None),
    ("I36.png", lambda: b"8BPS\0\1" + bytes(40), "S", None),
    ("I37.png", lambda: b"SIMPLE  =                    T" + bytes(60), "S", None),
    ("I38.png", lambda: b"\x93NUMPY\1\0" + bytes(60), "S", None),
    ("I39.png", lambda: b"PK\3\4" + bytes(60), "S", None),
    ("I40.png", lambda: GOOD + b"PK\3\4\x7fELF" * 9, "A", None),
    ("I41.png", lambda: array(gradient(1, 1), "PNG"), "A", None),
    ("I42.png", lambda: array(gradient(500, 1), "PNG"), "A", None),
    ("I43.png", lambda: array(gradient(3, 3), "PNG"), "A", None),
    ("I44.png", lambda: array(gradient(37, 31), "PNG"), "A", None),
    ("I45.png", lambda: array(gradient(2, 2000), "PNG"), "A", None),
    ("I46.png", lambda: png(10000, 10000, 8, 2, b""), "S", None),
    ("I47.png", lambda: png(20000, 20000, 8, 2, b""), "S", None),
    ("I48.png", lambda: png(2**31 - 1, 1, 8, 2, b""), "S", None),
    ("I49.png", lambda: png(0, 5, 8, 2, b""), "S", None),
    ("I50.png", lambda: png(1, 10000, 8, 0, b"\0\1"), "S", None),
    ("I50b.png", lambda: png(1, 4, 8, 0, b"\0\1" * 3), "S", None),
    ("I51.jpg", lambda: progressive_scans(10_000), "S", None),
    ("I52.png", lambda: png(1, 1, 8, 0, b"\0\1", chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80 << 20)))), "S", None),
    (
        "I53.png",
        lambda: png(1, 1, 8, 0, b"\0\1", chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(80 << 20)))),
        "S",
        None,
    ),
    ("I54.png", lambda: png(1, 1, 8, 0, b"\0\1", chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(80 << 20)))), "?", None),
    ("I55.gif", lambda: gif_frames(100_000), "A", None),
    ("I56.tif", lambda: tiff_pages(1_000_000), "A", None),
    ("I57.png", lambda: flat(77, "L", "PNG"), "A", (77, 77, 77)),
    ("I58.png", lambda: flat((77, 0), "LA", "PNG"), "A", WHITE),
    ("I59.png", lambda: flat(1, "1", "PNG"), "A", WHITE),
    ("I60.png", lambda: saved(Image.new("RGB", (10, 12), RED).quantize(4), "PNG"), "A", RED),
    ("I61.png", lambda: saved(Image.new("RGB", (10, 12), RED).quantize(4), "PNG", transparency=0), "A", WHITE),
    ("I62.png", lambda: saved(Image.new("RGB", (10, 12), RED).quantize(4), "PNG", transparency=b"\0"), "A", WHITE),
    ("I63.png", lambda: flat((*RED, 255), "RGBA", "PNG"), "A", RED),
    ("I64.png", lambda: flat((*RED, 0), "RGBA", "PNG"), "A", WHITE),
    ("I65.png", lambda: flat((0, 0, 0, 128), "RGBA", "PNG"), "A", (127, 127, 127)),
    ("I66.jpg", lambda: without_adobe(saved(Image.new("CMYK", (16, 16), (255, 0, 0, 255)), "JPEG")), "A", (255, 0, 0)),
    ("I67.jpg", lambda: saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"), "A", (255, 0, 0)),
    ("I68.jpg", lambda: as_ycck(saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")), "A", None),
    ("I69.tif", lambda: flat((150, 128, 128), "LAB", "TIFF"), "A", (140, 140, 140)),
    ("I70.tif", lambda: saved(Image.new("RGB", (10, 12), RED).convert("YCbCr"), "TIFF"), "A", RED),
    ("I71.png", lambda: gray16(0xC8FF), "A", (200, 200, 200)),
    ("I72.png", lambda: gray16(0x0FFF), "A", (15, 15, 15)),
    ("I73.tif", lambda: gray16(0xC8FF, "<"), "A", (200, 200, 200)),
    ("I74.png", lambda: png(2, 1, 16, 2, b"\0" + struct.pack(">3H", 0xC8FF, 0x1E00, 0x1E00) * 2), "A", RED),
    ("I75.tif", lambda: array(np.full((4, 4), 70000, np.int32), "TIFF"), "S", None),
    ("I76.tif", lambda: array(np.full((4, 4), 0.5, np.float32), "TIFF"), "S", None),
    ("I77.tif", lambda: array(np.full((4, 4), 255.0, np.float32), "TIFF"), "S", None),
    ("I78.tif", lambda: array(np.full((4, 4), np.nan, np.float32), "TIFF"), "S", None),
    ("I79a.png", lambda: gray_bits(2), "A", WHITE),
    ("I79b.png", lambda: gray_bits(4), "A", WHITE),
    ("I82.png", lambda: flat(GREEN, "RGB", "PNG", icc_profile=swapped_profile()), "A", RED),
    ("I82b.png", lambda: flat(RED, "RGB", "PNG", icc_profile=b"no profile"), "A", RED),
    ("I82c.png", lambda: png(1, 1, 8, 0, b"\0\x50", chunk(b"gAMA", struct.pack(">I", 20000))), "A", (80, 80, 80)),
    ("I93.jpg", exif_cycle, "?", None),
    ("I94.png", lambda: png(1, 1, 8, 0, b"\0\1", chunk(b"eXIf", bytes(60 << 20))), "?", None),
    ("I96.gif", lambda: frames("GIF"), "A", RED),
    ("I97.webp", lambda: frames("WEBP"), "A", RED),
    ("I98.png", lambda: frames("PNG"), "A", RED),
    ("I112\n\t.png", lambda: GOOD, "A", None),
    ("I113\x1b[31m.png", lambda: GOOD, "A", None),
    ("-I114.png", lambda: GOOD, "A", None),
    ("5" * 251 + ".png", lambda: GOOD, "A", None),
    ("caf\u00e9.png", lambda: GOOD, "A", None),
    ("cafe\u0301.png", lambda: GOOD, "A", None),
    ("i118.png", lambda: GOOD, "A", None),
    ("I118.png", lambda: GOOD, "A", None),
    ("\u202egnp.I119.png", lambda: GOOD, "A", None),
    ("ppm.ppm", lambda: saved(gradient(), "PPM"), "A", None),
    ("ppm16.pgm", lambda: b"P5 2 1 65535\n" + struct.pack(">2H", 0xC8FF, 0xC8FF), "A", (200, 200, 200)),
    ("webp.webp", lambda: flat(RED, "RGB", "WEBP"), "A", RED),
    ("bmp.bmp", lambda: flat(RED, "RGB", "BMP"), "A", RED),
    ("heic.heic", lambda: b"\0\0\0\x18ftypheic" + bytes(30), "S", None),
]
SECONDS = 10.0
BYTES = 1 << 30


def single(path: Path) -> np.ndarray:
    return open_image(path, 3, 8, 8)[0].numpy()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for name, make, _, _ in TABLE:
        (folder / name).write_bytes(make())
    return folder


@pytest.mark.parametrize(("name", "outcome", "colour"), [(n, o, c) for n, _, o, c in TABLE], ids=lambda value: None)
def test_a_single_picture(corpus: Path, name: str, outcome: str, colour: tuple[int, int, int] | None) -> None:
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        pixels = single(corpus / name)
    except InputError as error:
        assert outcome in ("S", "?", "X"), error.message
        assert error.message.isprintable() and error.message.endswith(".") and "Traceback" not in error.message
        assert error.file == str(corpus / name)
    else:
        # content decides, so what a folder passes over by its name may be opened when it is named
        assert outcome in ("A", "?", "X")
        assert pixels.shape == (3, 8, 8)
        if colour is not None:
            assert np.abs(pixels.astype(int) - np.array(colour)[:, None, None]).max() <= 8
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)
    assert time.monotonic() - started < SECONDS
    assert grown < BYTES


def test_a_folder_of_them_all(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    section = DataSection(source="folder", root=str(corpus), image_size=8, max_skipped=0.9, test=0, validation=0)
    data = open_data(section, "train")
    skipped = {name for name, _ in data.skipped}
    candidates = [name for name, _, outcome, _ in TABLE if outcome != "X"]
    assert {name for name, _, outcome, _ in TABLE if outcome == "S"} <= skipped
    assert skipped <= {name for name, _, outcome, _ in TABLE if outcome in "S?"}
    assert len(data) == len(candidates) - len(skipped)
    # in the order of the names' bytes, each the same as when it is opened alone
    kept = sorted(set(candidates) - skipped, key=os.fsencode)
    images = data.batch(np.arange(len(data)))["image"].numpy()
    for name, image in zip(kept, images, strict=True):
        assert np.array_equal(image, single(corpus / name)), name
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{len(skipped)} of {len(candidates)}" in said
    assert "git-LFS" in dict(data.skipped)["I22.png"]
    assert "HTML" in dict(data.skipped)["I23.jpg"]
    assert "AVIF" in dict(data.skipped)["I34.png"]
    assert "10000x10000 pixels, more than" in dict(data.skipped)["I46.png"]
    assert "32-bit" in dict(data.skipped)["I75.tif"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation(tmp_path: Path, orientation: int, kind: str) -> None:
    stored = gradient(16, 24)
    # where the stored rows and columns belong, as the standard words it
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored, 1),
    }[orientation]
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    path = tmp_path / "a.img"
    path.write_bytes(saved(stored, kind, exif=exif(orientation), **options))
    height, width = upright.shape[:2]
    image, resized = open_image(path, 3, height, width)
    assert not resized
    assert np.abs(image.numpy().transpose(1, 2, 0).astype(int) - upright).max() <= 4


@pytest.mark.parametrize("orientation", [0, 9, 99, b"abc\0"])
def test_an_orientation_that_is_none(tmp_path: Path, orientation: int | bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(saved(gradient(), "PNG", exif=exif(orientation)))
    assert np.array_equal(open_image(path, 3, 12, 10)[0].numpy().transpose(1, 2, 0), gradient())


def test_damaged_exif_and_xmp_leave_the_picture_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(saved(gradient(), "PNG", exif=exif(6)[:20]))
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    (tmp_path / "xmp.webp").write_bytes(saved(gradient(), "WEBP", lossless=True, xmp=xmp))
    for name in ("cut.png", "xmp.webp"):
        image, resized = open_image(tmp_path / name, 3, 12, 10)
        assert not resized and np.array_equal(image.numpy().transpose(1, 2, 0), gradient())


def test_a_sparse_file_is_refused_by_its_size_unread(tmp_path: Path) -> None:
    with open(tmp_path / "huge.png", "wb") as file:
        file.truncate(10 << 30)
    started = time.monotonic()
    with pytest.raises(InputError, match="10,737,418,240 bytes"):
        single(tmp_path / "huge.png")
    assert time.monotonic() - started < 1


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(GOOD)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / "inside.png").write_bytes(GOOD)
    os.mkfifo(tmp_path / "fifo.png")
    listener = socket.socket(socket.AF_UNIX)
    working = os.getcwd()
    os.chdir(tmp_path)  # a socket's path must be short
    try:
        listener.bind("socket.png")
    finally:
        os.chdir(working)
        listener.close()
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    (tmp_path / "itself.png").symlink_to("itself.png")
    (tmp_path / "link.png").symlink_to("good.png")
    (tmp_path / "loop").symlink_to(".")
    os.link(tmp_path / "good.png", tmp_path / "twin.png")
    started = time.monotonic()
    section = DataSection(source="folder", root=str(tmp_path), image_size=8, max_skipped=0.9, test=0, validation=0)
    data = open_data(section, "train")
    assert [name for name, _ in data.skipped] == sorted(
        ["fifo.png", "socket.png", "device.png", "dangling.png", "itself.png"]
    )
    assert len(data) == 3  # good, link, twin
    for name in ("folder.png", "fifo.png", "socket.png", "device.png", "dangling.png", "itself.png"):
        with pytest.raises(InputError):
            single(tmp_path / name)
    assert time.monotonic() - started < 5


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    try:
        with open(folder + b"/\xff\xfe.png", "wb") as file:
            file.write(b"bad")
    except OSError:
        pytest.skip("this file system wants names in UTF-8")
    (tmp_path / "good.png").write_bytes(GOOD)
    section = DataSection(source="folder", root=str(tmp_path), image_size=8, max_skipped=0.9, test=0, validation=0)
    for _ in range(2):  # decoded, and from the cache
        data = open_data(section, "train")
        assert [os.fsencode(name) for name, _ in data.skipped] == [b"\xff\xfe.png"]
    with pytest.raises(InputError, match=r"\\udcff"):
        single(tmp_path / os.fsdecode(b"\xff\xfe.png"))


def test_files_and_folders_without_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "cache").mkdir()
        (root / "photos" / "a" / "locked").mkdir(parents=True)
        (root / "photos" / "a" / "good.png").write_bytes(GOOD)
        (root / "photos" / "a" / "secret.png").write_bytes(GOOD)
        (root / "photos" / "a" / "locked" / "b.png").write_bytes(GOOD)
        monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        root.chmod(0o755)
        (root / "cache").chmod(0o777)
        (root / "photos" / "a" / "secret.png").chmod(0)
        (root / "photos" / "a" / "locked").chmod(0)
        section = DataSection(
            source="folder", root=str(root / "photos"), image_size=8, max_skipped=0.9, test=0, validation=0
        )
        me = os.geteuid()
        if me == 0:
            os.seteuid(65534)  # rights mean nothing to root
        try:
            data = open_data(section, "train")
        finally:
            os.seteuid(me)
            (root / "photos" / "a" / "locked").chmod(0o755)
    assert len(data) == 1
    assert [name for name, _ in data.skipped] == ["a/locked", "a/secret.png"]
    assert all("Permission denied" in reason for _, reason in data.skipped)
