"""A small convolutional network from the picture of an aligned face to a point on the unit sphere.

Legend: B pictures, S x S pixels, D length of the embedding. Trained by triplets (Schroff et al. 2015, "FaceNet",
section 3.1), so that one person's pictures lie near each other; sized to be trained in minutes on two cores.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 64
"""S: pixels of a side that the network sees; pictures of another size are resized."""
MAPS = (24, 48, 96, 128)
"""Feature maps at 64, 32, 16 and 8 pixels a side."""
_OF_A_GROUP = 8
"""Channels that GroupNorm takes together. Statistics of the batch would make an embedding depend on its batch mates,
which coupled losses and the encoders' contract both forbid."""


class FaceNetwork(nn.Module):
    """Four pairs of 3x3 convolutions, each pair halving the side, and one linear layer: 0.68 million parameters.

    Args:
        size: D.
    """

    def __init__(self, size: int = 128) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for maps in MAPS:
            layers += [*_convolved(channels, maps), *_convolved(maps, maps), nn.MaxPool2d(2)]
            channels = maps
        self.features = nn.Sequential(*layers)
        self.embedding = nn.Linear(channels * (SIDE // 2 ** len(MAPS)) ** 2, size)

    def forward(self, faces: Tensor) -> Tensor:
        """Faces in RGB on 0..1 or 0..255, (B, 3, S, S) or of another size -> unit vectors (B, D)."""
        features = self.features(standardised(resized(faces, SIDE)))  # (B, 128, S / 16, S / 16)
        return F.normalize(self.embedding(features.flatten(1)), dim=1)


def _convolved(channels: int, maps: int) -> list[nn.Module]:
    """Without a bias of its own: the norm has one."""
    convolution = nn.Conv2d(channels, maps, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return [convolution, nn.GroupNorm(maps // _OF_A_GROUP, maps), nn.ReLU(inplace=True)]


def resized(faces: Tensor, side: int) -> Tensor:
    """(B, 3, h, w) -> (B, 3, side, side); smoothed where that is smaller."""
    if faces.shape[2:] == (side, side):
        return faces
    return F.interpolate(faces, (side, side), mode="bilinear", align_corners=False, antialias=True)


def standardised(faces: Tensor) -> Tensor:
    """Each picture with mean 0 and standard deviation 1 over its pixels and colours: exposure and contrast are no
    part of an identity. Ratios of the colours stay."""
    deviation, mean = torch.std_mean(faces, dim=(1, 2, 3), keepdim=True, correction=0)  # (B, 1, 1, 1)
    # one level of 256 in an even picture is noise, not contrast; the floor is for pictures on 0..1 as for 0..255
    return (faces - mean) / (deviation + 1e-3 * mean.abs() + 1e-6)
