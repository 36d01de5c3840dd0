"""Images of every kind behind one door.

``open_data(section, split)`` finds a source (``folder``, ``shards``, ``arrays``, ``torchvision_sets``,
``portrait_set``), decodes it once (``cache``, ``images``) and gives a ``Dataset``; ``open_image`` and ``open_face``
read one picture that a person names. Names are imported on first use: whether a picture can be read at all
(``check_picture``) is known before torch is there.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from condgen.data.augment import augmented
    from condgen.data.columns import read_columns
    from condgen.data.dataset import Dataset, flipped
    from condgen.data.images import check_picture
    from condgen.data.masks import open_mask
    from condgen.data.opening import data_info, data_sizes, declared_info, open_data
    from condgen.data.pairs import Pairs
    from condgen.data.parts import SPLITS, Split
    from condgen.data.photographs import FaceBox, open_face, open_image

_HOME = {
    "Dataset": "dataset",
    "FaceBox": "photographs",
    "Pairs": "pairs",
    "SPLITS": "parts",
    "augmented": "augment",
    "Split": "parts",
    "check_picture": "images",
    "data_info": "opening",
    "data_sizes": "opening",
    "declared_info": "opening",
    "flipped": "dataset",
    "open_data": "opening",
    "open_face": "photographs",
    "open_image": "photographs",
    "open_mask": "masks",
    "read_columns": "columns",
}

__all__ = [
    "SPLITS",
    "Dataset",
    "FaceBox",
    "Pairs",
    "Split",
    "augmented",
    "check_picture",
    "data_info",
    "data_sizes",
    "declared_info",
    "flipped",
    "open_data",
    "open_face",
    "open_image",
    "open_mask",
    "read_columns",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"condgen.data.{_HOME[name]}"), name)
    raise AttributeError(f"module 'condgen.data' has no attribute {name!r}")
