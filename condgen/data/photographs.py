"""One picture that a person names: framed as it is, or the face in it found and aligned.

Legend: C channels (1 luma, 3 RGB, 4 RGBA), H x W the size asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from condgen.data.alignment import aligned
from condgen.data.cache import Opener, PicturePart
from condgen.data.faces import Face, find_faces
from condgen.data.framing import Framing, framed, with_channels
from condgen.data.images import decode, decode_reduced, pillow_quiet, unusable
from condgen.data.limits import MAX_BYTES, MAX_PHOTO_BYTES, NO_FACE, Unreadable
from condgen.data.parts import digest
from condgen.errors import InputError, RecipeError, shown
from condgen.files import read_regular
from condgen.progress import warn

FaceBox = tuple[float, float, float, float]
"""Left, top, right, bottom of a face in pixels of the upright picture."""
_LONGEST = 2048
"""A photograph of twice these pixels or more is reduced to no fewer on its longer side, before faces are sought."""
_MUCH_BEYOND = 0.25
"""Share of a crop beyond the picture's edge from which that is worth a word."""
_NAMED = 8
"""Faces of one picture that a line names."""
_FORMAT = 1
"""Raise it when the same picture would be aligned to other pixels."""


def open_image(
    path: str | Path,
    channels: int,
    height: int,
    width: int,
    fit: str = "crop",
    background: tuple[int, int, int] = (255, 255, 255),
    bit_depth: int = 8,
    smallest: tuple[int, int] | None = None,
) -> tuple[Tensor, bool]:
    """The picture in ``path``, and whether its size had to be changed.

    Args:
        smallest: (height, width) of which a picture has to have each; None: enlarged, however small it is.

    Returns:
        uint8 (C, H, W) on 0 .. 2^bit_depth - 1, and True where the file's own size is another than ``width`` x
        ``height``.

    Raises:
        InputError: the file is missing, damaged, too large, too small, or of a format that is not accepted.
        MachineError: it needs a package that is not installed.
    """
    path = Path(path)
    data = read_regular(path, MAX_BYTES)
    try:
        with pillow_quiet():
            picture = decode(data)
            if smallest is not None and (picture.height < smallest[0] or picture.width < smallest[1]):
                wanted = f"{smallest[1]}x{smallest[0]}"
                raise Unreadable(
                    f"it is {picture.width}x{picture.height} where at least {wanted} is wanted; give a larger one"
                )
            pixels, resized = framed(picture, Framing(channels, height, width, fit, background))
    except Unreadable as reason:
        raise unusable(path, reason) from reason
    return torch.from_numpy(np.array(pixels, order="C")) >> (8 - bit_depth), resized


def open_face(
    path: str | Path,
    channels: int,
    height: int,
    width: int,
    *,
    face: int = 1,
    box: FaceBox | None = None,
    background: tuple[int, int, int] = (255, 255, 255),
    bit_depth: int = 8,
) -> tuple[Tensor, list[FaceBox]]:
    """A face in the photograph ``path``, upright, at its place in the frame (``condgen.data.alignment``).

    Other faces, and a face that the picture's edge cuts, are told in a line on stderr.

    Args:
        face: which one, counted from 1, the largest.
        box: where the face is, if that is known; then none is sought, and the head is taken to be upright.

    Returns:
        uint8 (C, H, W) on 0 .. 2^bit_depth - 1, and the boxes of the faces that were found, the largest first.

    Raises:
        InputError: the file is missing, damaged, too large, or of a format that is not accepted; there is no face.
        MachineError: it needs a package that is not installed.
        RecipeError: there are fewer faces than ``face``, or ``box`` is none in this picture.
    """
    path = Path(path)
    data = read_regular(path, MAX_PHOTO_BYTES)
    try:
        with pillow_quiet():
            picture, size = decode_reduced(data, _LONGEST)
    except Unreadable as reason:
        raise unusable(path, reason) from reason
    del data
    picture = _rgb(picture, background)
    scale = size[0] / picture.width, size[1] / picture.height
    if box is not None:
        chosen, boxes = _in_box(path, box, size, scale), []
    else:
        faces = find_faces(picture)
        boxes = [_scaled(found.box, scale) for found in faces]
        if not faces:
            raise InputError(
                f"{shown(path)}: no face was found; mark it by --box x0,y0,x1,y1 (in pixels), or add --aligned if the "
                "picture is cropped to a face already.",
                file=path,
                field="image",
            )
        if not 1 <= face <= len(faces):
            raise RecipeError(
                f"--face {face}: {shown(path)} has {_faces(len(faces))}; the largest is number 1.", field="face"
            )
        chosen = faces[face - 1]
        if len(faces) > 1:
            warn(_others(path, face, boxes))
    crop, beyond = aligned(picture, chosen, height, width)
    if beyond > _MUCH_BEYOND:
        warn(
            f"{shown(path)}: the face is cut by the edge, or close to it; {beyond:.0%} of its crop repeats the edge of "
            "the picture"
        )
    pixels, _ = framed(crop, Framing(channels, height, width))
    return torch.from_numpy(np.array(pixels, order="C")) >> (8 - bit_depth), boxes


def with_faces(part: PicturePart, framing: Framing) -> PicturePart:
    """``part`` with the largest face of each picture, aligned, in the picture's place."""

    def open_all() -> Iterator[tuple[str, Opener]]:
        for name, opener in part.open_all():
            yield name, partial(_largest_face, opener, framing)

    return replace(
        part,
        open_all=open_all,
        work="finding faces in",
        fingerprint=digest("faces", _FORMAT, part.fingerprint),
        stamp=digest("faces", _FORMAT, part.stamp),
    )


def _largest_face(opener: Opener, framing: Framing) -> Image.Image:
    picture = _rgb(opener(), framing.background)
    faces = find_faces(picture)
    if not faces:
        raise Unreadable(NO_FACE)
    return aligned(picture, faces[0], framing.height, framing.width)[0]


def _rgb(picture: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    return with_channels(picture, Framing(3, picture.height, picture.width, background=background))


def _in_box(path: Path, box: FaceBox, size: tuple[int, int], scale: tuple[float, float]) -> Face:
    """The face of ``box`` in the reduced picture."""
    left, top, right, bottom = box
    width, height = size
    meets = left < width and right > 0 and top < height and bottom > 0
    # a box may reach beyond the picture, as that of a face which the edge cuts does, but not far
    near = -width <= left < right <= 2 * width and -height <= top < bottom <= 2 * height
    if not (meets and near):
        raise RecipeError(
            f"--box: {','.join(f'{side:g}' for side in box)} is no box in {shown(path)}, which has {width}x{height} "
            "pixels; give left,top,right,bottom.",
            field="box",
        )
    return Face(_scaled(box, (1 / scale[0], 1 / scale[1])))


def _scaled(box: FaceBox, scale: tuple[float, float]) -> FaceBox:
    return box[0] * scale[0], box[1] * scale[1], box[2] * scale[0], box[3] * scale[1]


def _faces(count: int) -> str:
    return "one face" if count == 1 else f"{count} faces"


def _others(path: Path, face: int, boxes: list[FaceBox]) -> str:
    """The line about the faces that were not taken."""
    listed = [
        f"--face {number} at {','.join(str(round(side)) for side in box)}"
        for number, box in enumerate(boxes[:_NAMED], 1)
        if number != face
    ]
    more = "; ..." if len(boxes) > _NAMED else ""
    taken = "the largest" if face == 1 else f"number {face}"
    return f"{shown(path)} has {len(boxes)} faces; {taken} is taken; others: {'; '.join(listed)}{more}"
