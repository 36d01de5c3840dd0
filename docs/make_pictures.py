"""Draws the pictures of the documentation that need no trained model: ``python docs/make_pictures.py``."""

from pathlib import Path

import numpy as np

from condgen.data.portraits import draw
from condgen.draw import grid, save_png

PEOPLE, VIEWS, SIDE = 8, 10, 32

if __name__ == "__main__":
    people = np.repeat(np.arange(PEOPLE), VIEWS)
    pictures, _ = draw(0, people, np.tile(np.arange(VIEWS), PEOPLE), SIDE, SIDE, 2.0)
    out = Path(__file__).parent / "portraits.png"
    save_png(out, grid(pictures, columns=VIEWS, scale=2), force=True)
