"""Whatever makes a picture for a person: grids, labelled sheets, heat maps, curves, and the file they go into.

Images come as integers (N, C, H, W) on 0 .. 2^bits - 1; ``displayable`` brings them to 0 .. 255, and everything else
here takes that. Small pixels are enlarged by whole factors without smoothing, so that what was drawn can be seen.
"""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from condgen.errors import shown
from condgen.files import write_whole

Colour = tuple[int, int, int]

PAPER: Colour = (255, 255, 255)
INK: Colour = (38, 42, 48)
FAINT: Colour = (112, 118, 128)
RULE: Colour = (225, 228, 233)
SERIES: tuple[Colour, ...] = ((31, 104, 180), (214, 96, 32), (46, 139, 87), (140, 86, 170), (110, 110, 110))

COMFORTABLE = 96
"""Side in screen pixels to which a small image is enlarged."""
WIDEST = 1600
"""Screen pixels across beyond which enlarging stops."""
MARGIN = 20
GAP = 4

HEAT: tuple[Colour, ...] = ((255, 252, 240), (254, 217, 130), (243, 132, 66), (186, 42, 72), (64, 10, 66))
"""From no bits to many: paper to dark, ever darker, so that it also reads in grey."""


def displayable(images: Tensor | np.ndarray, bit_depth: int = 8) -> np.ndarray:
    """Integers 0 .. 2^bit_depth - 1 as uint8 0 .. 255, rounded: (N, C, H, W) -> the same shape."""
    values = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    top = 2**bit_depth - 1
    rounded: np.ndarray = (values.astype(np.int64) * 510 + top) // (2 * top)  # floor(255 v / top + 1/2)
    return rounded.astype(np.uint8)


def _rgb(image: np.ndarray) -> np.ndarray:
    """(C, H, W) uint8 -> (H, W, 3): grey is repeated, alpha laid over white paper."""
    pixels = np.moveaxis(image, 0, -1)
    if pixels.shape[-1] == 1:
        return np.repeat(pixels, 3, axis=-1)
    if pixels.shape[-1] == 4:
        alpha = pixels[..., 3:].astype(np.int64)
        over = pixels[..., :3] * alpha + 255 * (255 - alpha)
        return ((2 * over + 255) // 510).astype(np.uint8)
    return pixels


def _enlarged(image: np.ndarray, scale: int) -> Image.Image:
    """(C, H, W) uint8 -> a picture of ``scale`` times the size, every pixel a square."""
    return Image.fromarray(np.ascontiguousarray(_rgb(image).repeat(scale, axis=0).repeat(scale, axis=1)))


def comfortable_scale(height: int, width: int, columns: int = 1) -> int:
    """The whole factor that brings an image to about 96 screen pixels, ``columns`` of them to at most 1600."""
    return max(1, min(round(COMFORTABLE / max(height, width)), WIDEST // (columns * width)))


def grid(images: np.ndarray, columns: int | None = None, scale: int | None = None, gap: int = GAP) -> Image.Image:
    """All images (N, C, H, W), uint8 0 .. 255, in rows of ``columns`` (default: about a square)."""
    N, _, H, W = images.shape
    columns = columns or math.ceil(math.sqrt(N))
    scale = scale or comfortable_scale(H, W, columns)
    rows = -(-N // columns)
    picture = Image.new("RGB", (columns * (W * scale + gap) + gap, rows * (H * scale + gap) + gap), PAPER)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        picture.paste(_enlarged(image, scale), (gap + column * (W * scale + gap), gap + row * (H * scale + gap)))
    return picture


def sheet(
    rows: Sequence[tuple[str, np.ndarray]],
    *,
    title: str = "",
    columns: Sequence[str] = (),
    scale: int | None = None,
) -> Image.Image:
    """Rows of images, each with its label at the left.

    Args:
        rows: (label, images (N, C, H, W) uint8 0 .. 255) each; all images of one size, rows may differ in number.
        title: above everything.
        columns: what stands above each column.
        scale: screen pixels per pixel; default: a comfortable size.
    """
    H, W = rows[0][1].shape[2:]
    across = max(len(images) for _, images in rows)
    scale = scale or comfortable_scale(H, W, across)
    cell_width, cell_height = W * scale, H * scale
    label_font, title_font, column_font = _font(15), _font(20), _font(13)
    labels = [_wrapped(label, label_font, 220) for label, _ in rows]
    label_width = max((round(label_font.getlength(line)) for lines in labels for line in lines), default=0)
    heads = [_wrapped(text, column_font, cell_width) for text in columns]

    left = MARGIN + (label_width + 16 if label_width else 0)
    top = MARGIN + (_line_height(title_font) + 12 if title else 0)
    top += max((len(lines) for lines in heads), default=0) * _line_height(column_font) + (6 if heads else 0)
    heights = [max(cell_height, len(lines) * _line_height(label_font)) for lines in labels]
    title_width = round(title_font.getlength(_plain(title))) + 2 * MARGIN
    width = max(left + across * (cell_width + GAP) - GAP + MARGIN, title_width if title else 0)
    picture = Image.new("RGB", (width, top + sum(heights) + GAP * 2 * (len(rows) - 1) + MARGIN), PAPER)
    draw = ImageDraw.Draw(picture)
    if title:
        draw.text((MARGIN, MARGIN), _plain(title), font=title_font, fill=INK)
    for i, lines in enumerate(heads):
        centre = left + i * (cell_width + GAP) + cell_width / 2
        for j, line in enumerate(reversed(lines)):
            draw.text(
                (centre, top - 6 - j * _line_height(column_font)), line, font=column_font, fill=FAINT, anchor="ms"
            )
    y = top
    for lines, height, (_, images) in zip(labels, heights, rows, strict=True):
        first = y + (height - len(lines) * _line_height(label_font)) / 2
        for j, line in enumerate(lines):
            middle = first + (j + 0.5) * _line_height(label_font)
            draw.text((left - 16, middle), line, font=label_font, fill=INK, anchor="rm")
        for i, image in enumerate(images):
            picture.paste(_enlarged(image, scale), (left + i * (cell_width + GAP), y))
        y += height + 2 * GAP
    return picture


def heat_maps(rows: Sequence[tuple[str, np.ndarray, np.ndarray]], *, title: str = "bits per pixel") -> Image.Image:
    """Each image beside the map of the bits spent on its pixels, all on one scale, which stands below.

    Args:
        rows: (label, image (C, H, W) uint8 0 .. 255, bits (H, W)) each, all of one size. The scale ends where 99.5 %
            of the pixels lie below; what is above has the darkest colour, and the scale says so.
    """
    _, H, W = rows[0][1].shape
    scale = max(1, round(2 * COMFORTABLE / max(H, W)))
    every = np.concatenate([bits.ravel() for _, _, bits in rows])
    finite = every[np.isfinite(every)]
    most = float(finite.max()) if finite.size else 0.0
    top = float(np.quantile(finite, 0.995)) if finite.size else 0.0
    top = _rounded_up(top) if top > 0 else 1.0
    pairs = [(label, np.stack([_three(image), _heat(bits / top)])) for label, image, bits in rows]
    picture = sheet(pairs, title=title, columns=("image", "bits"), scale=scale)

    bar_width, bar_height, font = min(260, picture.width - 2 * MARGIN), 12, _font(13)
    whole = Image.new("RGB", (picture.width, picture.height + bar_height + _line_height(font) + MARGIN), PAPER)
    whole.paste(picture, (0, 0))
    draw = ImageDraw.Draw(whole)
    x, y = picture.width - MARGIN - bar_width, picture.height - MARGIN + 14
    ramp = _heat(np.linspace(0, 1, bar_width)[None].repeat(bar_height, 0))
    whole.paste(Image.fromarray(np.ascontiguousarray(np.moveaxis(ramp, 0, -1))), (x, y))
    draw.rectangle((x - 1, y - 1, x + bar_width, y + bar_height), outline=RULE)
    marks = {0.0: ("0", "la"), 0.5: (f"{top / 2:g}", "ma")}
    marks[1.0] = (f"{top:g} and more (most: {most:.3g})" if most > top else f"{top:g}", "ra")
    if font.getlength(marks[1.0][0]) > bar_width / 2 - 20:
        del marks[0.5]
    for share, (text, anchor) in marks.items():
        draw.text((x + share * bar_width, y + bar_height + 4), text, font=font, fill=FAINT, anchor=anchor)
    return whole


def curve(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    size: tuple[int, int] = (760, 420),
) -> Image.Image:
    """Line plots, name -> (x, y), over common axes; a value that is not finite interrupts its line."""
    width, height = size
    picture = Image.new("RGB", size, PAPER)
    points = {name: [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)] for name, (xs, ys) in series.items()}
    seen = [(x, y) for line in points.values() for x, y in line if math.isfinite(x) and math.isfinite(y)]
    x_ticks = _ticks([x for x, _ in seen])
    y_ticks = _ticks([y for _, y in seen])
    draw, small, large = ImageDraw.Draw(picture), _font(13), _font(18)
    left = MARGIN + round(max(small.getlength(f"{tick:g}") for tick in y_ticks)) + 10
    top = MARGIN + (_line_height(large) + 6 if title else 0) + (_line_height(small) + 8 if y_label else 0)
    right, bottom = width - MARGIN - 8, height - MARGIN - _line_height(small) * (2 if x_label else 1) - 8

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return left + across * (right - left), bottom - up * (bottom - top)

    for tick in y_ticks:
        _, y = place(x_ticks[0], tick)
        draw.line((left, y, right, y), fill=RULE)
        draw.text((left - 8, y), f"{tick:g}", font=small, fill=FAINT, anchor="rm")
    for tick in x_ticks:
        x, _ = place(tick, y_ticks[0])
        draw.line((x, bottom, x, bottom + 4), fill=FAINT)
        draw.text((x, bottom + 7), f"{tick:g}", font=small, fill=FAINT, anchor="ma")
    draw.line((left, bottom, right, bottom), fill=FAINT)
    if title:
        draw.text((MARGIN, MARGIN), _plain(title), font=large, fill=INK)
    draw.text((MARGIN, top - 12), _plain(y_label), font=small, fill=FAINT, anchor="ls")
    draw.text((right, height - MARGIN), _plain(x_label), font=small, fill=FAINT, anchor="rs")

    legend = right
    for (name, line), colour in reversed(list(zip(points.items(), _cycled(len(points)), strict=True))):
        piece: list[tuple[float, float]] = []
        for x, y in [*line, (math.nan, math.nan)]:
            if math.isfinite(x) and math.isfinite(y):
                piece.append(place(x, y))
                continue
            if len(piece) == 1:  # a lone value has no line to lie on
                (px, py), piece = piece[0], []
                draw.ellipse((px - 2, py - 2, px + 2, py + 2), fill=colour)
            draw.line(piece, fill=colour, width=2, joint="curve")
            piece = []
        if len(points) > 1:
            draw.text((legend, top - 12), _plain(name), font=small, fill=colour, anchor="rs")
            legend -= round(small.getlength(_plain(name))) + 18
    return picture


def panels(pictures: Sequence[Image.Image], columns: int = 2) -> Image.Image:
    """Pictures side by side in rows of ``columns``, on paper; each row and column as large as its largest picture."""
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    widths = [max(row[k].width for row in rows if k < len(row)) for k in range(len(rows[0]))]
    heights = [max(picture.height for picture in row) for row in rows]
    whole = Image.new("RGB", (sum(widths), sum(heights)), PAPER)
    for i, row in enumerate(rows):
        for k, picture in enumerate(row):
            whole.paste(picture, (sum(widths[:k]), sum(heights[:i])))
    return whole


def blanked(images: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(N, C, H, W) uint8 0 .. 255 with a chessboard of greys wherever ``known``, bool (H, W), is false."""
    rows, columns = np.indices(known.shape)
    board = np.where((rows + columns) % 2, 150, 190).astype(np.uint8)
    found = np.where(known, images, board)
    if found.shape[1] == 4:
        found[:, 3] = np.where(known, images[:, 3], 255)
    return found


def png(image: np.ndarray) -> bytes:
    """An image (C, H, W) uint8 0 .. 255 as it is, pixel for pixel: grey, RGB or RGBA."""
    pixels = np.ascontiguousarray(np.moveaxis(image, 0, -1))
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def save_png(path: Path, picture: Image.Image, *, force: bool = False) -> None:
    """Writes ``picture`` whole or not at all.

    Raises:
        RecipeError: ``path`` exists and ``force`` is off.
        MachineError: the disk is full or cannot be written.
    """
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    write_whole(path, file.getvalue(), force=force)


def save_gif(path: Path, frames: Sequence[Image.Image], *, milliseconds: int = 80, force: bool = False) -> None:
    """Writes a film of pictures of one size, there and back again without end, whole or not at all; both ends stay for
    a while.

    Args:
        milliseconds: of a frame; a GIF counts in hundredths of a second.

    Raises:
        RecipeError: ``path`` exists and ``force`` is off.
        MachineError: the disk is full or cannot be written.
    """
    film = [*frames, *frames[-2:0:-1]]
    lengths = [milliseconds] * len(film)
    lengths[0] = lengths[len(frames) - 1] = 8 * milliseconds
    # the palette of each frame is its own: one for all would band the colours of faces
    coloured = [frame.quantize(256, dither=Image.Dither.NONE) for frame in film]
    file = io.BytesIO()
    coloured[0].save(
        file, "GIF", save_all=True, append_images=coloured[1:], duration=lengths, loop=0, optimize=False, disposal=1
    )
    write_whole(path, file.getvalue(), force=force)


def _cycled(count: int) -> list[Colour]:
    return [SERIES[i % len(SERIES)] for i in range(count)]


def _three(image: np.ndarray) -> np.ndarray:
    """(C, H, W) -> (3, H, W)."""
    return np.moveaxis(_rgb(image), -1, 0)


def _heat(shares: np.ndarray) -> np.ndarray:
    """Shares of the scale (H, W) -> colours (3, H, W) uint8; what lies above 1 or is not finite is the darkest."""
    at = np.nan_to_num(np.clip(shares, 0, 1), nan=1.0) * (len(HEAT) - 1)
    stops = np.array(HEAT, dtype=np.float64)
    return np.stack([np.interp(at, np.arange(len(HEAT)), stops[:, c]) for c in range(3)]).round().astype(np.uint8)


def _rounded_up(value: float) -> float:
    """The next number above with two leading digits: 13.27 -> 14."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.2g}")


def _ticks(values: Sequence[float], about: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that enclose ``values``; at least two."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # a level line, or a lone value
        low, high = (low - 0.5 * abs(low), high + 0.5 * abs(high)) if low else (-1.0, 1.0)
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, max(last, first + 1) + 1)]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))  # every wheel of Pillow has FreeType


def _line_height(font: ImageFont.FreeTypeFont) -> int:
    ascent, descent = font.getmetrics()
    return ascent + descent


def _plain(text: str) -> str:
    """One line that the built-in font can write: no control characters, letters without their accents."""
    apart = unicodedata.normalize("NFKD", text)
    return shown("".join(c for c in apart if not unicodedata.combining(c)))


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int, most: int = 4) -> list[str]:
    """``text`` in lines of at most ``width`` screen pixels; what does not fit into ``most`` lines ends in dots."""
    lines: list[str] = []
    for word in _plain(text).split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1] + " ..."]
    return [_shortened(line, font, width) for line in lines]


def _shortened(line: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    keep = len(line)
    while keep > 1 and font.getlength(line[:keep] + "...") > width:
        keep -= 1
    return line[:keep] + "..."
