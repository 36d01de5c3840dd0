"""``Embedding``: an encoder that was trained by itself, so that pictures of one person lie near each other."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from condgen.condition import Batch
from condgen.model import Encoded


class Embedding(Encoded):
    """x -> f(x), a unit vector: the encoder's vector, brought to length 1 where it is not.

    An encoder whose condition has more in it than who is seen (colours) says that by itself with a method
    ``identity(batch)`` -> (B, D), which is then trained and compared alone.

    Args:
        encoder: anything -> Condition with a vector.
        info: shape of the images and names of their labels.
    """

    @property
    def device(self) -> torch.device:
        return next(self.encoder.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.encoder.parameters()).dtype

    def embed(self, batch: Batch) -> Tensor:
        """Unit vectors (B, D) of the examples of a batch."""
        identity: Any = getattr(self.encoder, "identity", None)
        vector = self.condition(batch).vector if identity is None else identity(batch)
        assert vector is not None  # noqa: S101  # building an embedding asks for it
        return F.normalize(vector, dim=1)
