"""Images of every kind behind one door.

``open_data(section, split)`` finds a source (``folder``, ``shards``, ``arrays``, ``torchvision_sets``,
``portrait_set``), decodes it once (``cache``, ``images``) and gives a ``Dataset``.
"""

from condgen.data.dataset import Dataset, flipped
from condgen.data.images import open_image
from condgen.data.masks import open_mask
from condgen.data.opening import data_info, data_sizes, declared_info, open_data
from condgen.data.parts import SPLITS, Split

__all__ = [
    "SPLITS",
    "Dataset",
    "Split",
    "data_info",
    "data_sizes",
    "declared_info",
    "flipped",
    "open_data",
    "open_image",
    "open_mask",
]
