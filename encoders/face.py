"""Faces as conditions: who is in a picture, as a point on the unit sphere, and its main colours.

Pictures are aligned (``condgen.open_face``; data sets by ``data.aligned: false``, or by whoever made them): the same
things lie at the same places.

Legend: B pictures, C channels, H x W pixels, D length of the embedding, R regions.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from condgen import Batch, Condition, DataInfo, Encoder, Options, load, open_face
from condgen.encoders.face_network import FaceNetwork
from condgen.encoders.facenet import PUBLISHED, SIZE, InceptionResnet, published
from condgen.errors import ModelError, RecipeError, shown
from condgen.streams import example_uniforms

_STREAM = -8
"""Of an example's key; see ``condgen.streams.example_bytes``."""
_CONTRAST, _BRIGHTNESS, _TINT = 0.30, 0.15, 0.10
"""Of ``light`` 1, either way: contrast about middle grey, all values (of the range 0..1), and each colour's gain."""
_FILES = (".pt", ".pth", ".safetensors", ".npz")


class FaceOptions(Options):
    network: Literal["small", "inception"] = Field(
        "small", description="small: 0.68 million parameters; inception: facenet-pytorch's InceptionResnetV1."
    )
    size: int = Field(128, ge=2, le=4096, description="small: length of the embedding (inception: 512).")
    weights: str | None = Field(
        None,
        description="Trained weights: a run or model folder with a face encoder; inception: also a file, vggface2 or "
        "casia-webface.",
    )
    trainable: bool | None = Field(
        None, description="Whether training changes the network; default: only where no weights are given."
    )
    colours: bool = Field(
        True, description="Add the mean colours of face, hair and background to the condition (not for triplets)."
    )

    noise: float = Field(
        0.0,
        ge=0,
        le=10,
        description="In training by likelihood half of the embeddings, of length 1, get noise of up to this length: "
        "where an embedding looks like none of the training's, colours are believed.",
    )
    light: float = Field(
        0.0,
        ge=0,
        le=2,
        description="In training by likelihood each picture and the colours of its source come under one other light, "
        "up to this strong (1: as data.augment 1): colours then follow the source's.",
    )

    @model_validator(mode="after")
    def _check(self) -> FaceOptions:
        if self.light and not self.colours:
            raise ValueError("light: the condition says nothing of it without colours; leave it out, or set colours")
        if self.network == "small" and self.weights in PUBLISHED:
            raise ValueError(f"weights: {self.weights} is of the other network; set network to inception")
        return self


class Face(Encoder):
    """Who is in a picture: a unit vector by a network for faces; and the colours of face, hair and background.

    The vector (B, D + R C): the embedding (FaceNet, Schroff et al. 2015), then, with ``colours``, the mean colour of
    each region on -1..1, in the order of ``regions``. An embedding is trained to ignore light and colour; whoever looks
    for likeness does not.
    """

    Options = FaceOptions
    reads = ("image",)
    words = ("image",)
    regions = ("face", "hair", "background")

    def __init__(self, options: Any, info: DataInfo) -> None:
        super().__init__(options, info)
        inception = options.network == "inception"
        self.network: nn.Module = InceptionResnet() if inception else FaceNetwork(options.size)
        self.identity_size = SIZE if inception else options.size
        """D: the first so many numbers of the vector say who it is."""
        self.colours = 3 if info.channels == 4 else info.channels
        self.vector_size = self.identity_size
        if options.colours:
            self.vector_size += len(self.regions) * self.colours
            weights = region_weights(info.height, info.width)
            self.register_buffer("region_weights", weights, persistent=False)  # a function of the images' shape

    @property
    def frozen(self) -> bool:  # type: ignore[override]
        trainable = self.options.trainable
        return bool(self.options.weights) if trainable is None else not trainable

    def load_pretrained(self) -> None:
        """Takes the weights that ``encoder.weights`` names.

        Raises:
            ModelError: it names no face encoder like this one.
            MachineError: published weights are not here and cannot be fetched.
        """
        name = self.options.weights
        if not name:
            return
        if isinstance(self.network, InceptionResnet):
            if name in PUBLISHED:
                return self.network.read(published(name))
            if name.lower().endswith(_FILES):
                return self.network.read(Path(name))
        other = getattr(load(name), "encoder", None)
        if not isinstance(other, Face) or _kind(other) != _kind(self):
            found = _kind(other) if isinstance(other, Face) else "no face encoder"
            raise ModelError(
                f"encoder.weights: {shown(name)} holds {found}, and {_kind(self)} is wanted; name another run, or "
                "change encoder.network or encoder.size.",
                field="encoder.weights",
            )
        self.network.load_state_dict(other.network.state_dict())

    def identity(self, batch: Batch) -> Tensor:
        """Who is in the pictures: uint8 (B, C, H, W) -> unit vectors (B, D)."""
        embedding: Tensor = self.network(self._rgb(batch["image"]))
        return embedding

    def encode(self, batch: Batch) -> Condition:
        """uint8 (B, C, H, W) of aligned faces -> vector (B, D + R C)."""
        vector = self.identity(batch)
        if not self.options.colours:
            return Condition(vector=vector)
        x = self._rgb(batch["image"])[:, : self.colours]  # three equal ones of a grey picture are one
        means = torch.einsum("bchw,rhw->brc", x, self.region_weights.to(x.dtype))  # (B, R, C)
        return Condition(vector=torch.cat([vector, 2 * means.flatten(1).to(vector.dtype) - 1], dim=1))

    def varied(self, images: Tensor, condition: Condition, keys: Tensor) -> tuple[Tensor, Condition]:
        """``noise`` on the embedding; ``light`` on the picture and, by the same straight line, on the source's colours.

        The embedding stays as it is under another light: the network standardises pictures, and has learned the rest.
        """
        options, vector, D = self.options, condition.vector, self.identity_size
        if vector is None or not (options.noise or options.light):
            return images, condition
        u = example_uniforms(keys, _STREAM, 6 + 2 * D).to(vector.dtype)
        embedding, colours = vector[:, :D], vector[:, D:]
        if options.noise:
            radius, angle = (-2 * u[:, 6 : 6 + D].log()).sqrt(), 2 * torch.pi * u[:, 6 + D :]
            normal = radius * torch.cos(angle)  # Box and Muller 1958
            length = options.noise * (2 * u[:, :1] - 1).clamp(min=0)  # half of them: none
            embedding = F.normalize(embedding + length * normal / D**0.5, dim=1)
        if options.light:
            w = options.light * (2 * u[:, 1:6] - 1)  # (B, 5) on -light .. light
            tint = 1 + _TINT * w[:, 2 : 2 + self.colours]
            gain = tint * (1 + _CONTRAST * w[:, :1])
            offset = tint * (0.5 - 0.5 * (1 + _CONTRAST * w[:, :1]) + _BRIGHTNESS * w[:, 1:2])  # of values on 0..1
            means = (colours.unflatten(1, (-1, self.colours)) + 1) / 2  # (B, R, C)
            colours = 2 * (means * gain[:, None] + offset[:, None]).clamp(0, 1).flatten(1) - 1
            images = self._lit(images, gain, offset)
        return images, replace(condition, vector=torch.cat([embedding, colours], dim=1))

    def _lit(self, images: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
        """Integers (B, C, H, W), their colours on 0..1 times ``gain`` plus ``offset`` (B, C), back on the grid."""
        top, c = 2**self.info.bit_depth - 1, self.colours
        lit = images[:, :c] / top * gain[:, :, None, None] + offset[:, :, None, None]
        return torch.cat([(lit.clamp(0, 1) * top).round().to(images.dtype), images[:, c:]], dim=1)

    def _rgb(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) on 0..1, in the weights' precision; alpha shows white."""
        dtype = next(self.network.parameters()).dtype
        x = images.to(dtype) / (2**self.info.bit_depth - 1)
        if x.shape[1] == 4:
            x = x[:, :3] * x[:, 3:] + (1 - x[:, 3:])
        return x.expand(-1, 3, -1, -1)

    def parse(self, word: str, value: str) -> dict[str, Tensor]:
        """``--image photo.jpg``: the largest face in it, aligned and brought to the model's shape."""
        if word != "image":
            return super().parse(word, value)
        info = self.info
        image, _ = open_face(value, info.channels, info.height, info.width, bit_depth=info.bit_depth)
        return {"image": image[None]}


def _kind(encoder: Face) -> str:
    return f"a face encoder of network {encoder.options.network} and {encoder.identity_size} numbers"


def region_weights(height: int, width: int) -> Tensor:
    """Where face, hair and background are on an aligned picture: (R, H, W), each region's weights with sum 1.

    The face is an ellipse between brows and mouth, the hair a band above the hairline, the background the upper
    corners: what lies there on nearly every picture, drawn or photographed; not all there is of it.
    """
    side = min(height, width)
    x = (np.arange(width) + 0.5 - width / 2) / side + 0.5
    y = ((np.arange(height) + 0.5 - height / 2) / side + 0.5)[:, None]
    face = ((x - 0.5) / 0.16) ** 2 + ((y - 0.62) / 0.17) ** 2 < 1
    hair = (abs(x - 0.5) < 0.18) & (y > 0.12) & (y < 0.26)
    background = (abs(x - 0.5) > 0.40) & (y < 0.35)
    masks = np.stack([face, hair, background]).astype(np.float64)  # (R, H, W)
    counts = masks.sum((1, 2), keepdims=True)
    if not counts.all():
        raise RecipeError(
            f"data.image_size: {height}x{width} is too small for the colours of a face; set encoder.colours to false.",
            field="encoder.colours",
        )
    return torch.tensor(masks / counts, dtype=torch.float32)
