"""``Autoencoder``: an encoder and a deconvolutional decoder that are trained on squared error, the model that a
PixelCNN in the decoder's place is compared with (van den Oord et al. 2016, section 3.4).

Legend: B images, C colour channels, H x W pixels, D length of the condition vector h; x integers 0 .. V-1.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from condgen.condition import Batch, Condition, DataInfo, Encoder
from condgen.errors import InputError, RecipeError
from condgen.model import Encoded


class DeconvolutionalDecoder(nn.Sequential):
    """Draws an image from a vector: (B, D) -> (B, C, H, W), about 0 .. 1.

    A linear layer to 3 or 4 pixels on the longer side, then transposed convolutions (4x4, stride 2) that double the
    sides until the image is covered, each with ReLU, and a 3x3 convolution to the colours. Two and more doublings below
    the full resolution there are four times as many maps as there, one below it twice as many.

    Args:
        filters: maps at full resolution.
    """

    def __init__(self, vector_size: int, channels: int, height: int, width: int, filters: int) -> None:
        doublings = max(1, (max(height, width) - 1).bit_length() - 2)
        self.height, self.width = height, width
        rows, columns = (-(-side // 2**doublings) for side in (height, width))
        widths = [filters * 2 ** min(k, 2) for k in range(doublings, -1, -1)]
        layers: list[nn.Module] = [
            nn.Linear(vector_size, widths[0] * rows * columns),
            nn.Unflatten(1, (widths[0], rows, columns)),
            nn.ReLU(),
        ]
        for before, after in itertools.pairwise(widths):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1), nn.ReLU()]
        super().__init__(*layers, nn.Conv2d(filters, channels, 3, padding=1))

    def forward(self, vector: Tensor) -> Tensor:
        drawn: Tensor = super().forward(vector)
        return drawn[:, :, : self.height, : self.width]


class Autoencoder(Encoded):
    """x -> h -> x', with the squared error between x and x' as what training lowers.

    Args:
        encoder: anything -> Condition with a vector; usually of the image itself.
        decoder: (B, D) -> (B, C, H, W), on 0 .. 1.
        info: shape of the images and names of their labels.
    """

    def __init__(self, encoder: Encoder, decoder: DeconvolutionalDecoder, info: DataInfo) -> None:
        super().__init__(encoder, info)
        self.decoder = decoder

    @property
    def device(self) -> torch.device:
        return next(self.decoder.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.decoder.parameters()).dtype

    @torch.no_grad()
    def initialise(self, batch: Batch) -> None:
        """The decoder starts from the mean colour of ``batch``; once, before training."""
        bias = self.decoder[-1].bias
        assert isinstance(bias, Tensor)  # noqa: S101  # for mypy
        bias.copy_(self._on_unit(batch["image"]).mean((0, 2, 3)))

    def _on_unit(self, x: Tensor) -> Tensor:
        """Integers 0 .. V-1 -> 0 .. 1."""
        return x.to(self.device, self.dtype) / (2**self.info.bit_depth - 1)

    def drawn(self, h: Condition) -> Tensor:
        """What the decoder draws of each condition, (B, C, H, W) on about 0 .. 1, as it is."""
        if h.vector is None:
            raise RecipeError("The autoencoder decodes a vector: give it a condition (encode makes one).")
        image: Tensor = self.decoder(h.vector.to(self.dtype))
        return image

    def squared_error(self, batch: Batch) -> Tensor:
        """Squared error of each example's reconstruction, of values on 0 .. 1, summed over its sub-pixels: (B,)."""
        x, info = batch["image"], self.info
        if tuple(x.shape[1:]) != (info.channels, info.height, info.width):
            raise InputError(
                f"The model's images are {(info.channels, info.height, info.width)} (channels, height, width), "
                f"not {tuple(x.shape[1:])}; give images of its shape."
            )
        drawn = self.drawn(self.condition(batch)).to(self.dtype)  # under autocast it comes in bf16
        return (drawn - self._on_unit(x)).square().sum((1, 2, 3))

    @torch.no_grad()
    def reconstruct(self, h: Condition) -> Tensor:
        """The image of each condition on the grid of the data: uint8 (B, C, H, W) on 0 .. V-1, on the CPU.

        One at a time, so that no image depends on its batch mates in the last bit.
        """
        was_training, top = self.training, 2**self.info.bit_depth - 1
        self.eval()
        try:
            images = [self.drawn(h[k].to(self.device))[0] for k in range(len(h))]
        finally:
            self.train(was_training)
        return (torch.stack(images).clamp(0, 1) * top).round().to(torch.uint8).cpu()
