"""What a picture may be, and the error of one that is not."""

from __future__ import annotations

from condgen.errors import InputError

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
)
"""How names of pictures end, in lower case. Where one is named on the command line, its content alone decides."""
MAX_BYTES = 64 << 20
MAX_PHOTO_BYTES = 128 << 20
"""Of a single photograph that a person names: 50 megapixels as PNG take about 100 MB."""
MAX_PIXELS = 1 << 26
MAX_SIDE = 16384


class Unreadable(InputError):
    """These bytes are no usable picture. ``message`` is the reason and the cure, without the file's name."""


class LacksPackage(Unreadable):
    """An optional package would have to be installed to read them."""


NO_FACE = "no face was found in it"
"""The reason to skip a picture that can be read; ``data.max_skipped`` does not count it."""
