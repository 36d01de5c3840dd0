"""The smallest encoder there is, to copy."""

from condgen import Condition, Encoder


class MeanColour(Encoder):
    """The mean of each colour channel."""

    reads = ("image",)

    def __init__(self, options, info):  # type: ignore[no-untyped-def]
        super().__init__(options, info)
        self.vector_size = info.channels

    def encode(self, batch):  # type: ignore[no-untyped-def]
        return Condition(vector=batch["image"].float().mean((2, 3)) / 255)  # (B, C, H, W) -> (B, C)
