"""InceptionResnetV1 (Szegedy et al. 2016; as a face embedding, D. Sandberg's FaceNet) as facenet-pytorch brings it.

The one module that knows that package's network and its published weights, which were trained with softmax.

Legend: B pictures, 160 x 160 pixels.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from condgen import read_weights
from condgen.encoders.face_network import resized
from condgen.errors import MachineError, ModelError, shown

SIDE = 160
SIZE = 512
"""Length of the embedding."""
PUBLISHED = {
    "vggface2": "20180402-114759-vggface2.pt",
    "casia-webface": "20180408-102900-casia-webface.pt",
}
"""Published weights by the data that they were trained on: the names of their files."""
_ADDRESS = "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/"
_CLASSIFIER = "logits."
"""What the published files hold beside the embedding."""
_BOX = (0.24, 0.24, 0.76, 0.93)
"""Left, top, right, bottom of what it was trained to look at, the detector's box, as shares of an aligned picture."""


class InceptionResnet(nn.Module):
    """Aligned faces -> unit vectors of length 512; always in evaluation mode: no statistics of a batch, no dropout."""

    def __init__(self) -> None:
        super().__init__()
        from facenet_pytorch import InceptionResnetV1

        self.network = InceptionResnetV1(pretrained=None)
        for layer in self.network.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.num_batches_tracked = None  # counted in training mode alone
        self.eval()

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    def forward(self, faces: Tensor) -> Tensor:
        """Aligned faces in RGB on 0..1, (B, 3, H, W) -> unit vectors (B, 512)."""
        height, width = faces.shape[2:]
        side = min(height, width)
        left, top, right, bottom = (
            round((edge - 0.5) * side + whole / 2) for edge, whole in zip(_BOX, (width, height) * 2, strict=True)
        )
        box = faces[:, :, top : max(bottom, top + 1), left : max(right, left + 1)]
        embedding: Tensor = self.network((resized(box, SIDE) * 255 - 127.5) / 128)
        return embedding

    @torch.no_grad()
    def read(self, path: Path) -> None:
        """Takes the weights of a file.

        Raises:
            ModelError: it is missing, damaged, or holds other weights than this network has.
        """
        found = {name: value for name, value in read_weights(path).items() if not name.startswith(_CLASSIFIER)}
        own = self.network.state_dict()
        wrong = sorted(
            name
            for name in {*found, *own}
            if name not in found or name not in own or found[name].shape != own[name].shape
        )
        if wrong:
            raise ModelError(
                f"{shown(path)} holds no weights of InceptionResnetV1: {shown(wrong[0])[:100]} is missing, or of "
                f"another shape, here or there; give the file {' or '.join(PUBLISHED.values())}.",
                file=path,
                field="encoder.weights",
            )
        for name, value in own.items():  # load_state_dict would add the counters
            value.copy_(found[name])


def published(name: str) -> Path:
    """The file of published weights: where facenet-pytorch keeps it, fetched there if it is missing.

    Raises:
        MachineError: it is not there and cannot be fetched; the sentence says where to put it.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = Path(os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")).expanduser()
    path = home / "checkpoints" / PUBLISHED[name]
    if path.is_file():
        return path
    from facenet_pytorch.models.utils.download import download_url_to_file

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        download_url_to_file(_ADDRESS + path.name, str(path), progress=False)
    except (OSError, ValueError) as error:  # no network, no such page, no room: all are OSError; a bad proxy is not
        reason = shown(" ".join(str(error).split()))[:200] or type(error).__name__
        raise MachineError(
            f"encoder.weights: {name} is not here and cannot be fetched ({reason}); put {path.name} into "
            f"{shown(path.parent)}, or give its path as encoder.weights.",
            file=path,
            field="encoder.weights",
        ) from error
    return path
