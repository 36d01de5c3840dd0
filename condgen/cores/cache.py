"""What the layers of a core remember of an image that is drawn pixel by pixel.

With a cache a core's ``vertical`` is asked for one row, its ``horizontal`` for one pixel; each causal layer takes what
lies above and to the left from what it was given before. The layers' weights, and the order in which they are called,
are those of the whole image: there is no second network. Asking twice at one place gives the same.

Legend: B images, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

State = TypeVar("State")


class Cache:
    """The memory of one batch of images, and the place that is being computed.

    Attributes:
        width: W, at full resolution.
        row, column: the place, at the resolution of ``scale``.
        scale: 0 for full resolution, k for its 2^k-th part.
    """

    def __init__(self, batch: int, width: int) -> None:
        self.batch = batch
        self.scale = 0
        self._lifted = 0
        self._full_width = width
        self._place = [0, 0]
        self._states: dict[nn.Module, Any] = {}

    def move(self, row: int, column: int = 0) -> None:
        """To a place at full resolution. Rows and columns only grow; what was given at earlier places is remembered."""
        self._place[:] = row, column

    def at(self, scale: int) -> Cache:
        """The same memory and place as a layer of another resolution sees them."""
        other = Cache.__new__(Cache)
        other.__dict__.update(self.__dict__, scale=scale)
        return other

    def above(self) -> Cache:
        """The same memory, a row higher up: for what is made of the row above and shifted down afterwards."""
        other = self.at(self.scale)
        other._lifted = 1
        return other

    @property
    def row(self) -> int:
        return (self._place[0] - self._lifted) >> self.scale

    @property
    def column(self) -> int:
        return self._place[1] >> self.scale

    @property
    def width(self) -> int:
        return self._full_width >> self.scale

    def row_is_due(self, scale: int) -> bool:
        """Whether a scale advances with this row: coarse ones do where a coarse row begins."""
        return self._place[0] % 2**scale == 0

    def pixel_is_due(self, scale: int) -> bool:
        return self.row_is_due(scale) and self._place[1] % 2**scale == 0

    def of(self, layer: nn.Module, make: Callable[[], State]) -> State:
        """What ``layer`` remembers; ``make()`` the first time."""
        if layer not in self._states:
            self._states[layer] = make()
        state: State = self._states[layer]
        return state
