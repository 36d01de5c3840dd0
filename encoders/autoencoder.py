"""The convolutional encoder of an autoencoder: image -> a short vector, learned with whatever decodes it.

Legend: B images, C colours, H x W pixels, m length of the vector.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

import condgen
from condgen import Batch, Condition, DataInfo, Encoder, Options, open_image
from condgen.errors import RecipeError, shown

_SMALLEST = 4
"""Sides at most this long are not pooled any further."""
_DOUBLINGS = 2
"""How often a stack has twice the maps of the one before."""


class AutoencoderOptions(Options):
    size: int = Field(10, ge=1, le=65536, description="Length m of the vector, the bottleneck.")
    filters: int = Field(32, ge=1, le=4096, description="Maps of the first stack; the second has twice, later ones 4x.")
    range: Literal["free", "bounded", "unit"] = Field(
        "free", description="Values of the vector: any, each within -1..1 (tanh), or a vector of length 1."
    )
    weights: str | None = Field(
        None, description="Run or model folder whose encoder, one of the same fields, is taken as it is and stays so."
    )


class AutoencoderEncoder(Encoder):
    """An image as a short vector: convolutions and pooling, learned with the decoder.

    After Masci et al. 2011 (stacked convolutional auto-encoders), as van den Oord et al. 2016, section 2.4, take it:
    stacks of two 3x3 convolutions and a 2x2 max-pooling until no side is longer than 4, then one linear layer. The
    vector comes from every place of the last maps, so that it can say where something is. There is no softmax before
    it and no statistic of the batch: an image's vector is its own.
    """

    Options = AutoencoderOptions
    reads = ("image",)
    words = ("image",)

    def __init__(self, options: Any, info: DataInfo) -> None:
        super().__init__(options, info)
        self.vector_size = options.size
        self.frozen = options.weights is not None
        layers: list[nn.Module] = []
        maps, (rows, columns) = info.channels, (info.height, info.width)
        for number in range(64):  # an image of 1024 pixels has 8 stacks
            wide = options.filters * 2 ** min(number, _DOUBLINGS)
            for before in (maps, wide):
                # without the norm, which is an image's own, half of the maps die at the rates that decoders learn by
                layers += [nn.Conv2d(before, wide, 3, padding=1), nn.GroupNorm(1, wide), nn.ReLU()]
            maps = wide
            if max(rows, columns) <= _SMALLEST:
                break
            layers.append(nn.MaxPool2d(2, ceil_mode=True))  # what an odd side leaves over is pooled by itself
            rows, columns = -(-rows // 2), -(-columns // 2)
        self.stacks = nn.Sequential(*layers)
        self.bottleneck = nn.Linear(maps * rows * columns, options.size)
        for layer in [*layers, self.bottleneck]:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear" if layer is self.bottleneck else "relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def load_pretrained(self) -> None:
        """Those of ``weights``, whatever decoder they were learned with.

        Raises:
            ModelError: there is no such run.
            RecipeError: its encoder is another one.
        """
        if self.options.weights is None:
            return
        name, trained = shown(self.options.weights), condgen.load(self.options.weights)
        other = getattr(trained, "encoder", trained)
        if not isinstance(other, AutoencoderEncoder):
            raise RecipeError(
                f"encoder.weights: the encoder of {name} is no autoencoder's; name a run of encoder.type=autoencoder.",
                field="encoder.weights",
            )
        fields = [(f"encoder.{name}", (self.options, other.options), name) for name in ("size", "filters", "range")]
        fields += [
            (f"data.{'image_size' if name in ('height', 'width') else name}", (self.info, other.info), name)
            for name in ("channels", "height", "width", "bit_depth")
        ]
        for field, pair, attribute in fields:
            here, there = (getattr(each, attribute) for each in pair)
            if here != there:
                raise RecipeError(
                    f"{field}: {here} here and {there} in {name}, whose encoder is to be taken; set it to that.",
                    field=field,
                )
        self.load_state_dict(other.state_dict())

    def encode(self, batch: Batch) -> Condition:
        """uint8 (B, C, H, W) -> vector (B, m)."""
        top = 2**self.info.bit_depth - 1
        x = batch["image"].to(self.bottleneck.weight.dtype) * (2 / top) - 1  # (B, C, H, W), -1 .. 1
        h: Tensor = self.bottleneck(self.stacks(x).flatten(1))
        if self.options.range == "bounded":
            h = torch.tanh(h)
        elif self.options.range == "unit":
            h = F.normalize(h, dim=1)
        return Condition(vector=h)

    def parse(self, word: str, value: str) -> dict[str, Tensor]:
        """``--image F.png``: a picture, brought to the model's shape."""
        if word != "image":
            return super().parse(word, value)
        info = self.info
        image, _ = open_image(value, info.channels, info.height, info.width, bit_depth=info.bit_depth)
        return {"image": image[None]}
