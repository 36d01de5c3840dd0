"""Which face of a photograph is meant: ``--face``, ``--box``, ``--aligned``, alike in all commands that read one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from condgen.errors import RecipeError, shown

if TYPE_CHECKING:
    from torch import Tensor

    from condgen.condition import Encoder

Face = Annotated[
    int | None,
    typer.Option(
        "--face", metavar="N", min=1, help="Which of several faces, the largest being 1 (default).", show_default=False
    ),
]
Box = Annotated[
    str | None,
    typer.Option(
        "--box", metavar="x0,y0,x1,y1", help="Where the face is, in pixels; then none is sought.", show_default=False
    ),
]
Aligned = Annotated[
    bool, typer.Option("--aligned", help="Pictures are cropped to a face already; then none is sought.")
]


@dataclass(frozen=True)
class Sought:
    """What the three options say of a command's photographs."""

    face: int | None = None
    box: tuple[float, float, float, float] | None = None
    aligned: bool = False

    @classmethod
    def of(cls, face: int | None, box: str | None, aligned: bool) -> Sought:
        """From the options as they were given.

        Raises:
            RecipeError: more than one of them, or a box that is not four numbers.
        """
        if (face is not None) + (box is not None) + aligned > 1:
            raise RecipeError("--face, --box and --aligned each say where the face is; give one of them.", field="face")
        return cls(face, None if box is None else _numbers(box), aligned)

    def read(self, encoder: Encoder, path: str) -> dict[str, Tensor]:
        """What ``encoder`` reads of the photograph ``path``, a batch of one: its own ``parse`` unless an option says
        more.

        Raises:
            CondgenError: as ``condgen.open_face`` and ``condgen.open_image``.
        """
        from condgen.data import open_face, open_image

        info = encoder.info
        shape = info.channels, info.height, info.width
        if self.aligned:
            image, _ = open_image(path, *shape, bit_depth=info.bit_depth)
        elif self.face is not None or self.box is not None:
            image, _ = open_face(path, *shape, face=self.face or 1, box=self.box, bit_depth=info.bit_depth)
        else:
            return encoder.parse("image", path)
        return {"image": image[None]}


def _numbers(text: str) -> tuple[float, float, float, float]:
    try:
        left, top, right, bottom = (float(side) for side in text.split(","))
    except ValueError:
        raise RecipeError(
            f"--box: expected four numbers, left,top,right,bottom, found {shown(text)[:60]!r}.", field="box"
        ) from None
    return left, top, right, bottom
