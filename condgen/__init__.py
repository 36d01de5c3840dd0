"""condgen: conditional PixelCNNs with any encoder. What is listed in ``__all__`` is public, the rest is private.

Names are imported on first use, so that ``import condgen`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from condgen.condition import Batch, Condition, DataInfo, Encoder, Options
    from condgen.data import Dataset, open_data, open_face, open_image, open_mask, read_columns
    from condgen.errors import CondgenError
    from condgen.model import ConditionalModel
    from condgen.plugins import register_encoder
    from condgen.store import load, read_weights
    from condgen.testing import check_encoder
    from condgen.train import train

_HOME = {
    "Batch": "condgen.condition",
    "Condition": "condgen.condition",
    "DataInfo": "condgen.condition",
    "Encoder": "condgen.condition",
    "Options": "condgen.condition",
    "Dataset": "condgen.data",
    "open_data": "condgen.data",
    "open_face": "condgen.data",
    "open_image": "condgen.data",
    "open_mask": "condgen.data",
    "read_columns": "condgen.data",
    "CondgenError": "condgen.errors",
    "ConditionalModel": "condgen.model",
    "register_encoder": "condgen.plugins",
    "check_encoder": "condgen.testing",
    "load": "condgen.store",
    "read_weights": "condgen.store",
    "train": "condgen.train",
}

__all__ = [
    "Batch",
    "CondgenError",
    "Condition",
    "ConditionalModel",
    "DataInfo",
    "Dataset",
    "Encoder",
    "Options",
    "check_encoder",
    "load",
    "open_data",
    "open_face",
    "open_image",
    "open_mask",
    "read_columns",
    "read_weights",
    "register_encoder",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'condgen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
