"""How a condition enters a layer: equations 4 and 5 of van den Oord et al. 2016, and the map m(h).

Legend: B images, D length of the vector h, S channels of the map s, 2p a layer's pre-activations, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condgen.condition import Condition
from condgen.cores.cache import Cache


class ConditionBias(nn.Module):
    """What the condition adds to one layer's pre-activations.

    Equation 4: a vector adds ``V h``, the same everywhere (2p numbers, for tanh and sigmoid apart).
    Equation 5: a map adds ``V * s``, an unmasked 1x1 convolution: s is no part of x, so all of it may be seen.
    Neither has a bias of its own: the layer's convolution has one.

    Args:
        scale: which of the maps the layer takes: 0 for full resolution, k for its 2^k-th part.
    """

    def __init__(self, vector_size: int, map_channels: int, outputs: int, scale: int = 0) -> None:
        super().__init__()
        self.scale = scale
        self.of_vector = nn.Linear(vector_size, outputs, bias=False) if vector_size else None
        self.of_map = nn.Conv2d(map_channels, outputs, 1, bias=False) if map_channels else None

    def forward(self, vector: Tensor | None, map: Tensor | None) -> Tensor | None:
        """(B, D) and (B, S, H, W) -> (B, 2p, H, W), or (B, 2p, 1, 1) without a map, or None without either."""
        term = None
        if self.of_vector is not None and vector is not None:
            term = self.of_vector(vector)[:, :, None, None]  # (B, 2p, 1, 1)
        if self.of_map is not None and map is not None:
            by_place = self.of_map(map)  # (B, 2p, H, W)
            term = by_place if term is None else by_place + term
        return term


class DeconvolutionalMap(nn.Sequential):
    """m(h) of section 2.2: a deconvolutional net that draws the map s, (B, D) -> (B, S, H, W).

    The paper gives no sizes. Here: a linear layer to a few pixels of 2 S maps, then transposed convolutions (4x4,
    stride 2) with ReLU that double the side until the image is covered, the last to S maps.
    """

    def __init__(self, vector_size: int, map_channels: int, height: int, width: int) -> None:
        doublings = max(1, (max(height, width) - 1).bit_length() - 2)  # down to a side of 3 or 4
        self.height, self.width = height, width
        rows, columns = (-(-side // 2**doublings) for side in (height, width))
        wide = 2 * map_channels
        layers: list[nn.Module] = [
            nn.Linear(vector_size, wide * rows * columns),
            nn.Unflatten(1, (wide, rows, columns)),
        ]
        for k in range(doublings):
            layers += [nn.ReLU(), nn.ConvTranspose2d(wide, map_channels if k == doublings - 1 else wide, 4, 2, 1)]
        super().__init__(*layers)

    def forward(self, vector: Tensor) -> Tensor:
        drawn: Tensor = super().forward(vector)
        return drawn[:, :, : self.height, : self.width]


class Terms:
    """The condition as the layers of one core see it, and what it adds to each.

    With ``keep`` every layer's term is computed once: for sampling, where it stays the same for a whole image. In
    training the terms are made where they are used, so that they need not all be in memory at once.

    Args:
        vector: (B, D) or None.
        maps: the map at every scale of the core, (B, S, H / 2^k, W / 2^k), or nothing.
    """

    def __init__(self, vector: Tensor | None, maps: Sequence[Tensor], keep: bool = False) -> None:
        self.vector = vector
        self.maps = maps
        self._kept: dict[ConditionBias, Tensor | None] | None = {} if keep else None

    def added(self, pre_activations: Tensor, bias: ConditionBias, cache: Cache | None = None) -> Tensor:
        """``pre_activations`` (B, 2p, H, W) plus this layer's term; with a cache those of its row or pixel."""
        map = self.maps[bias.scale] if self.maps else None
        if self._kept is None:
            term = bias(self.vector, map)
        else:
            if bias not in self._kept:
                self._kept[bias] = bias(self.vector, map)
            term = self._kept[bias]
        if term is None:
            return pre_activations
        if cache is not None and (term.shape[2] > 1 or term.shape[3] > 1):
            place = cache.at(bias.scale)
            term = term[:, :, place.row : place.row + 1]
            if pre_activations.shape[3] == 1:
                term = term[..., place.column : place.column + 1]
        elif term.shape[2] > 1 or term.shape[3] > 1:  # by place: what lies beyond the image goes
            pre_activations = pre_activations[:, :, : term.shape[2], : term.shape[3]]
        return pre_activations + term


class Conditioning(nn.Module):
    """How an encoder's condition reaches a core: as a vector, as a map, or both.

    Args:
        vector_size, map_channels: D and S of the encoder's condition; 0 for none.
        how: for the vector: ``global`` (eq. 4), ``spatial`` (eq. 5 with s = m(h)) or ``both``. An encoder's own map
            always enters by place, beside m(h) if there is one.
        drawn_channels: channels of m(h).
        scales: resolutions of the core; strided convolutions, learned, bring a map to each.
        vector_width: longer vectors are projected to this length, once, before they enter the layers: 512 numbers in
            each of 64 layers would be a fifth of a core's weights. None: every layer gets the vector itself.
    """

    def __init__(
        self,
        vector_size: int,
        map_channels: int,
        how: str,
        drawn_channels: int,
        height: int,
        width: int,
        *,
        scales: int = 1,
        vector_width: int | None = None,
    ) -> None:
        super().__init__()
        draws_map = bool(vector_size) and how in ("spatial", "both")
        self.draw_map = DeconvolutionalMap(vector_size, drawn_channels, height, width) if draws_map else None
        self.vector_size = vector_size if how in ("global", "both") else 0
        self.map_channels = map_channels + (drawn_channels if draws_map else 0)
        self._own_map = bool(map_channels)
        self.project = None
        if vector_width is not None and self.vector_size > vector_width:
            self.project = nn.Linear(self.vector_size, vector_width, bias=False)
            self.vector_size = vector_width
        S = self.map_channels
        self.shrink = nn.ModuleList(nn.Conv2d(S, S, 3, 2, 1) for _ in range(scales - 1) if S)

    def bias(self, outputs: int, scale: int = 0) -> ConditionBias:
        """A layer's own ``ConditionBias``, of the right widths."""
        return ConditionBias(self.vector_size, self.map_channels, outputs, scale)

    def forward(self, condition: Condition, keep: bool = False) -> Terms:
        maps = []
        if self._own_map and condition.map is not None:
            maps.append(condition.map)
        if self.draw_map is not None and condition.vector is not None:
            maps.append(self.draw_map(condition.vector))
        vector = condition.vector if self.vector_size else None
        if self.project is not None and vector is not None:
            vector = self.project(vector)
        if not maps:
            return Terms(vector, (), keep)
        scaled = [maps[0] if len(maps) == 1 else torch.cat(maps, dim=1)]
        for shrink in self.shrink:
            scaled.append(shrink(F.elu(scaled[-1]) if len(scaled) > 1 else scaled[-1]))
        return Terms(vector, scaled, keep)
