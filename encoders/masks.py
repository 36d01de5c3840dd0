"""Images with holes: the condition of inpainting, and the holes that training draws.

Legend: B images, C channels, H x W pixels, P strokes' points.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from condgen import Batch, open_mask
from condgen.encoders.spatial import STREAM, Spatial
from condgen.errors import RecipeError
from condgen.streams import example_uniforms

_POINTS = 5
"""Of a stroke; it runs straight from one to the next."""
_LARGEST_BOX, _SMALLEST_BOX = 0.75, 0.2
"""Sides of a box, as shares of the image's."""
_TURNED = 0.2
"""Share of boxes and strokes that are what is known instead of what is not."""


class Masked(Spatial):
    """The image with a hole, and where the hole is, for inpainting: known pixels are kept, and only the others count.

    The map is the image with zeros (middle grey) in the hole, then 1 where the image is known and 0 where not: zeros
    everywhere, which stand for no condition, say that nothing is known. Holes are boxes, half planes and strokes, drawn
    from each example's own stream; in evaluations they are a fixed function of its place in the data.
    """

    words = ("mask",)
    task = "complete"

    def seen(self) -> int:
        return self.info.channels + 1

    def known(self, batch: Batch) -> Tensor:
        """Where the images are known, bool (B, H, W): as ``batch["known"]`` says, or as drawn.

        Raises:
            RecipeError: a batch of words, which says nothing about it.
        """
        if "known" in batch:
            return batch["known"]
        if "index" not in batch and "key" not in batch:
            raise RecipeError("The model completes images; say with --mask which pixels are known.", field="mask")
        return ~holes(self.keys(batch), self.info.height, self.info.width)

    def view(self, batch: Batch) -> Tensor:
        return batch["image"] * self.known(batch)[:, None]

    def look(self, batch: Batch) -> Tensor:
        known = self.known(batch)[:, None]
        pixels = self.on_scale(batch["image"])
        return torch.cat([pixels * known, known.to(pixels.dtype)], dim=1)

    def parse(self, word: str, value: str) -> dict[str, Tensor]:
        """``--mask PATH``: black is known, white is to be drawn."""
        if word == "mask":
            return {"known": open_mask(value, self.info.height, self.info.width)[None]}
        return super().parse(word, value)


def holes(keys: Tensor, height: int, width: int) -> Tensor:
    """A hole for each key, bool (B, H, W), of at least a pixel: a box, a half plane or strokes, a third each.

    Some boxes and strokes are turned inside out. Sums and products alone, so that every device draws the same.
    """
    u = example_uniforms(keys, STREAM, 2 + 4 + 4 + 2 * _POINTS + 1)[:, :, None, None]  # (B, n, 1, 1)
    rows = ((torch.arange(height, device=keys.device) + 0.5) / height).double()[None, :, None]
    columns = ((torch.arange(width, device=keys.device) + 0.5) / width).double()[None, None, :]
    kind, turned = u[:, 0], u[:, 1] < _TURNED
    box = _box(u[:, 2:6], rows, columns)
    half = _half_plane(u[:, 6:10], rows, columns)
    strokes = _strokes(u[:, 10:], rows, columns, height / width)
    drawn = torch.where(kind < 1 / 3, box, strokes) ^ turned
    drawn = torch.where((kind >= 1 / 3) & (kind < 2 / 3), half, drawn)
    return drawn | ~drawn.flatten(1).any(1)[:, None, None]  # where nothing was left to draw: all of it


def _box(u: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, 4, 1, 1) uniforms -> bool (B, H, W)."""
    down, across = (_SMALLEST_BOX + (_LARGEST_BOX - _SMALLEST_BOX) * u[:, k] for k in (0, 1))
    top, left = u[:, 2] * (1 - down), u[:, 3] * (1 - across)
    return (rows >= top) & (rows < top + down) & (columns >= left) & (columns < left + across)


def _half_plane(u: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """One side of a line in any direction through a point of the inner three fifths."""
    row, column = (0.2 + 0.6 * u[:, k] for k in (0, 1))
    across, down = (2 * u[:, k] - 1 for k in (2, 3))
    return across * (columns - column) + down * (rows - row) >= 0


def _strokes(u: Tensor, rows: Tensor, columns: Tensor, aspect: float) -> Tensor:
    """What a brush of one width covers along straight lines through ``_POINTS`` points, lengths in image widths."""
    radius = 0.04 + 0.08 * u[:, 0]
    y, x = rows * aspect, columns
    covered = torch.zeros(1, dtype=torch.bool, device=u.device)
    points = [(u[:, 1 + 2 * k] * aspect, u[:, 2 + 2 * k]) for k in range(_POINTS)]
    for (y0, x0), (y1, x1) in itertools.pairwise(points):
        dy, dx = y1 - y0, x1 - x0
        along = ((y - y0) * dy + (x - x0) * dx) / (dy * dy + dx * dx)
        along = along.clamp(0, 1)
        off_y, off_x = y - y0 - along * dy, x - x0 - along * dx
        covered = covered | (off_y * off_y + off_x * off_x <= radius * radius)
    return covered
