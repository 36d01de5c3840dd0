"""Conditions that are maps made from the image itself: what a picture still shows when something is taken from it.

Each encoder here makes a *view* of the image, integers on the image's own grid and of its own shape: means of blocks,
its luma, a blurred or noisy copy, its edges. ``masks.py`` has the view with holes. The model then draws what the view
leaves open: super-resolution, colourisation, restoration, pictures from drawings.

Legend: B images, C channels, H x W pixels, f the factor of a low resolution, S channels of the map, F features.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from condgen import Batch, Condition, DataInfo, Encoder, Options, open_image
from condgen.encoders.labels import LabelOptions, Labels
from condgen.errors import RecipeError
from condgen.streams import example_keys, example_uniforms

STREAM = -5
"""Of an example's key: whatever these encoders draw at random."""
_SMALLEST = 2
"""Side in pixels at which a 3x3 convolution sees all there is."""


class SpatialOptions(Options):
    features: int = Field(
        32,
        ge=0,
        le=1024,
        description="Maps of a network over the view, by which every pixel sees all of it; 0: only its own place.",
    )
    label: Literal["none", "one_hot", "embedding", "attributes"] = Field(
        "none", description="A label beside the map, as a vector: the code of the encoder labels."
    )
    label_size: int = Field(32, ge=1, le=65536, description="label: embedding: its length.")
    hide: float = Field(
        0.5, ge=0, le=0.5, description="label: attributes: share made unknown in training, on average over examples."
    )


class Surroundings(nn.Module):
    """What lies around a place of the view, (B, S, H, W) -> (B, F, H, W).

    A condition map enters the core at each pixel's own place alone (equation 5 of van den Oord et al. 2016), and the
    core looks up and to the left: without this, no pixel would know what the view shows below it. A U-Net (Ronneberger
    et al. 2015) of one 3x3 convolution a level: strided ones down to a side of 2, one there, and up again, added to the
    way down. Nothing in it looks at other examples.
    """

    def __init__(self, inputs: int, features: int, height: int, width: int) -> None:
        super().__init__()
        halvings = max(0, math.ceil(math.log2(max(height, width) / _SMALLEST)))
        self.first = nn.Conv2d(inputs, features, 3, padding=1)
        down = [nn.Conv2d(features, features, 3, 2, 1) for _ in range(halvings)]
        self.down = nn.ModuleList(down)
        self.deepest = nn.Conv2d(features, features, 3, padding=1)
        self.up = nn.ModuleList(nn.Conv2d(features, features, 3, padding=1) for _ in range(halvings))
        for layer in down:  # keeps the scale of what goes down
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, view: Tensor) -> Tensor:
        way = [self.first(view)]
        for down in self.down:
            way.append(down(F.relu(way[-1])))
        x = way.pop()
        x = x + self.deepest(F.relu(x))
        for up in reversed(self.up):
            finer = way.pop()
            height, width = finer.shape[2:]
            x = finer + up(_repeated(F.relu(x), 2)[:, :, :height, :width])
        return x


class Spatial(Encoder):
    """Base of the encoders whose condition is a view of the image, alone or beside a label."""

    Options = SpatialOptions

    def __init__(self, options: Any, info: DataInfo) -> None:
        super().__init__(options, info)
        self.top = 2**info.bit_depth - 1
        self.labels = self._labels(options, info)
        self.reads = ("image", *(self.labels.reads if self.labels else ()))
        self.words = ("image", *type(self).words, *(self.labels.words if self.labels else ()))
        self.vector_size = self.labels.vector_size if self.labels else 0
        seen = self.seen()
        self.around = Surroundings(seen, options.features, info.height, info.width) if options.features else None
        self.map_channels = seen + options.features

    @staticmethod
    def _labels(options: Any, info: DataInfo) -> Labels | None:
        """The encoder of the label.

        Raises:
            RecipeError: the data has no such labels.
        """
        if options.label == "none":
            return None
        what = "attributes" if options.label == "attributes" else "classes"
        if not getattr(info, what):
            raise RecipeError(
                f"encoder.label: {options.label} needs named {what}, which this data does not have; choose another "
                "code, or none.",
                field="encoder.label",
            )
        return Labels(LabelOptions(code=options.label, size=options.label_size, hide=options.hide), info)

    def seen(self) -> int:
        """Channels of what ``look`` gives."""
        return self.info.channels

    def view(self, batch: Batch) -> Tensor:
        """What is shown of the images, uint8 (B, C, H, W) on their own grid."""
        raise NotImplementedError

    def look(self, batch: Batch) -> Tensor:
        """The view as numbers of [-1, 1], (B, S, H, W), without the network's features."""
        return self.on_scale(self.view(batch))

    def on_scale(self, values: Tensor) -> Tensor:
        dtype = torch.float32 if self.around is None else self.around.first.weight.dtype
        return values.to(dtype) * (2 / self.top) - 1

    def encode(self, batch: Batch) -> Condition:
        look = self.look(batch)
        map = look if self.around is None else torch.cat([look, self.around(look)], dim=1)
        vector = None if self.labels is None else self.labels.encode(batch).vector
        return Condition(vector, map)

    def parse(self, word: str, value: str) -> dict[str, Tensor]:
        """``--image PATH``: a picture as the data has them, of which the view is made; ``--label`` as of ``labels``."""
        if word == "image":
            return {"image": self.opened(value)}
        if word == "label" and self.labels is not None:
            return self.labels.parse(word, value)
        return super().parse(word, value)

    def opened(self, path: str) -> Tensor:
        """The picture in ``path``, framed to the model's shape: uint8 (1, C, H, W)."""
        info = self.info
        return open_image(path, info.channels, info.height, info.width, bit_depth=info.bit_depth)[0][None]

    def keys(self, batch: Batch) -> Tensor:
        """Each example's own stream, int64 (B,): in training that of its visit, otherwise that of its place in the
        data, so that evaluations agree; where there is no place, that of the first."""
        if self.training and "key" in batch:
            return batch["key"]
        image = batch["image"]
        index = batch["index"].cpu().numpy() if "index" in batch else np.zeros(len(image), np.int64)
        return example_keys(index, 0, "spatial").to(image.device)


class LowResolutionOptions(SpatialOptions):
    factor: int = Field(4, ge=2, le=256, description="Side of the blocks, in pixels, of which only the mean is seen.")


class LowResolution(Spatial):
    """The image at a lower resolution: the mean of each block of f x f pixels, for super-resolution."""

    Options = LowResolutionOptions
    task = "upscale"

    def __init__(self, options: Any, info: DataInfo) -> None:
        super().__init__(options, info)
        factor = options.factor
        if info.height % factor or info.width % factor:
            raise RecipeError(
                f"encoder.factor: {factor} does not divide {info.height}x{info.width}, the size of the images; choose "
                "a divisor of both sides.",
                field="encoder.factor",
            )
        self.low_height, self.low_width = info.height // factor, info.width // factor

    def low(self, images: Tensor) -> Tensor:
        """Means of blocks, rounded as a picture of that size has them: uint8 (B, C, H, W) -> (B, C, H / f, W / f)."""
        f = self.options.factor
        sums = images.long().unflatten(3, (-1, f)).sum(4).unflatten(2, (-1, f)).sum(3)
        return ((2 * sums + f * f) // (2 * f * f)).to(torch.uint8)

    def view(self, batch: Batch) -> Tensor:
        return _repeated(self.low(batch["image"]), self.options.factor)

    def opened(self, path: str) -> Tensor:
        """A picture of the low size is taken as it is; a larger one is brought to the full size, of which the view is
        made; of a smaller one the view would be made up."""
        info, size = self.info, (self.low_height, self.low_width)
        low, resized = open_image(path, info.channels, *size, bit_depth=info.bit_depth, smallest=size)
        return super().opened(path) if resized else _repeated(low[None], self.options.factor)


class Grey(Spatial):
    """The image without its colours: its luma, for colourisation."""

    task = "colorize"

    def __init__(self, options: Any, info: DataInfo) -> None:
        if info.channels == 1:
            raise RecipeError(
                "encoder.type: grey takes the colours from images, and these have none; set data.channels to 3.",
                field="encoder.type",
            )
        super().__init__(options, info)

    def seen(self) -> int:
        return self.info.channels - 2  # luma, and alpha where there is one

    def view(self, batch: Batch) -> Tensor:
        image = batch["image"]
        return torch.cat([_luma(image).expand(-1, 3, -1, -1), image[:, 3:]], dim=1)

    def look(self, batch: Batch) -> Tensor:
        return self.on_scale(self.view(batch)[:, 2:])


class Restored(Spatial):
    """Base of the encoders whose view may also be a picture from elsewhere: a photograph that *is* blurred."""

    words = ("given",)

    def view(self, batch: Batch) -> Tensor:
        image = batch["image"]
        if "given" not in batch:
            return self.damaged(batch)
        return torch.where(batch["given"][:, None, None, None], self.taken(image), self.damaged(batch))

    def damaged(self, batch: Batch) -> Tensor:
        """What the view shows of the images, uint8 (B, C, H, W)."""
        raise NotImplementedError

    def taken(self, images: Tensor) -> Tensor:
        """The view that ``images``, views already, stand for."""
        return images

    def parse(self, word: str, value: str) -> dict[str, Tensor]:
        """``--given PATH``: a picture that is itself the view; ``--image`` and ``--label`` as of ``Spatial``."""
        if word == "given":
            return {"image": self.opened(value), "given": torch.ones(1, dtype=torch.bool)}
        return super().parse(word, value)


class BlurredOptions(SpatialOptions):
    sigma: float = Field(2.0, gt=0, le=32, description="Standard deviation of the blur, in pixels.")


class Blurred(Restored):
    """The image through a Gaussian blur, for restoration."""

    Options = BlurredOptions

    def damaged(self, batch: Batch) -> Tensor:
        """In whole numbers, so that no device and no batch rounds differently: weights of 2^-16, borders repeated."""
        radius = math.ceil(3 * self.options.sigma)
        shape = np.exp(-0.5 * (np.arange(-radius, radius + 1) / self.options.sigma) ** 2)
        weights = np.floor(shape / shape.sum() * 2**16).astype(np.int64)
        weights[radius] += 2**16 - weights.sum()  # level images stay as they are
        x = batch["image"].long()
        for dimension in (2, 3):
            places = torch.arange(x.shape[dimension], device=x.device)
            x = sum(
                int(weight) * x.index_select(dimension, (places + k - radius).clamp(0, len(places) - 1))
                for k, weight in enumerate(weights)
            )  # type: ignore[assignment]
        return ((x + 2**31) >> 32).to(torch.uint8)


class NoisyOptions(SpatialOptions):
    sigma: float = Field(25.0, gt=0, le=1000, description="Standard deviation of the noise, in levels of 0..255.")


class Noisy(Restored):
    """The image under Gaussian noise, for restoration: other noise in every epoch, the same in every evaluation."""

    Options = NoisyOptions

    def damaged(self, batch: Batch) -> Tensor:
        image = batch["image"]
        uniforms = example_uniforms(self.keys(batch), STREAM, image[0].numel())
        noise = torch.special.ndtri(uniforms).view(image.shape) * (self.options.sigma * self.top / 255)
        return (image + noise).round().clamp(0, self.top).to(torch.uint8)


class EdgesOptions(SpatialOptions):
    threshold: float = Field(
        0.15, gt=0, lt=1, description="Steepness of the luma from which on a pixel is an edge; 1: black beside white."
    )


class Edges(Restored):
    """Where the image has edges, black on white, as a drawing would: Sobel's gradient of the luma above a threshold."""

    Options = EdgesOptions

    def seen(self) -> int:
        return 1

    def look(self, batch: Batch) -> Tensor:
        return self.on_scale(self.view(batch)[:, :1])

    def damaged(self, batch: Batch) -> Tensor:
        luma = _luma(batch["image"]).long()
        H, W = luma.shape[2:]
        rows, columns = (torch.arange(-1, side + 1, device=luma.device).clamp(0, side - 1) for side in (H, W))
        x = luma[:, :, rows][..., columns]  # (B, 1, H + 2, W + 2), borders repeated
        down = x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]
        along = x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]
        steepness = (down[..., 2:] - down[..., :-2]) ** 2 + (along[:, :, 2:] - along[:, :, :-2]) ** 2
        return self._drawn(steepness.double() > (4 * self.top * self.options.threshold) ** 2)

    def taken(self, images: Tensor) -> Tensor:
        """A drawing: what is darker than half is a line."""
        return self._drawn(2 * _luma(images).long() < self.top)

    def _drawn(self, lines: Tensor) -> Tensor:
        """bool (B, 1, H, W) -> black lines on white, uint8 (B, C, H, W)."""
        paper = torch.full_like(lines, self.top, dtype=torch.uint8)
        colours = paper.masked_fill(lines, 0).expand(-1, min(self.info.channels, 3), -1, -1)
        return torch.cat([colours, paper], dim=1) if self.info.channels == 4 else colours


def _luma(images: Tensor) -> Tensor:
    """ITU-R BT.601 luma in whole numbers, as grey pictures are made of coloured ones: uint8 (B, 1, H, W)."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images[:, :3].long().unbind(1)
    return ((19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16).to(torch.uint8)[:, None]


def _repeated(x: Tensor, times: int) -> Tensor:
    """Each value as a square: (B, C, h, w) -> (B, C, h * times, w * times)."""
    B, C, h, w = x.shape
    return x[:, :, :, None, :, None].expand(-1, -1, -1, times, -1, times).reshape(B, C, h * times, w * times)
