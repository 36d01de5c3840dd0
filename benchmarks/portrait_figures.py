"""What portraits of a person are worth: python benchmarks/portrait_figures.py [--model RUN] [--photographs FOLDER]

Prints one JSON object. Sources are people that the model never saw: drawn ones (their numbers are those of the test
split), or the first photograph of each of many people in FOLDER, a folder for each person. Portraits are those of
``condgen portraits`` with seed 0 and the recipe's temperature and guidance, which options of these names change.

- ``found``: the share of portraits whose embedding lies nearest to that of their own source among all sources, and the
  half-width of its 95 % interval over people; ``found_real``: the same of real other views, which no portrait can
  be expected to beat; chance is one over the number of people.
- ``variety``: mean absolute difference, of 0..255, of two portraits of one source; ``variety_real`` of two real views
  of one person.
- ``walk``: with 65 steps, the mean difference of neighbours of a row, and of two rows at the same place;
  ``ends_equal``: whether the ends of a walk of three steps are, bit for bit, the portraits of the two sources.
- ``photographs``: Spearman's rank correlation over photographs, of the mean colour of a source's face region with that
  of its portraits (the mean of R, G and B, and each), and of the luma of the hair region; ``found`` as above.
  Faces are found in the photographs (``aligned: false``) or the photographs taken as they are.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condgen import open_face, open_image
from condgen.cli.portraits import model_path
from condgen.condition import Condition
from condgen.data import open_data
from condgen.encoders.face import region_weights
from condgen.errors import InputError
from condgen.evaluate.likeness import identities
from condgen.evaluate.smoothness import walk_distances
from condgen.progress import Progress
from condgen.recipe.schema import DataSection
from condgen.store import load_conditional

LUMA = np.array([0.299, 0.587, 0.114])


def conditions(model: Any, sources: Tensor) -> Condition:
    """Each source encoded by itself."""
    return Condition.stack([model.encode(image=source[None]) for source in sources])


def drawing(model: Any) -> dict[str, Any]:
    """How the recipe has pictures drawn."""
    sample = model.recipe.sample
    return {"temperature": sample.temperature, "guidance": sample.guidance, "tile": sample.tile}


def portraits(model: Any, sources: Tensor, count: int) -> np.ndarray:
    """uint8 (sources, count, C, H, W)."""
    tiles = []
    with Progress("sampling", len(sources) * count, "images") as progress:
        for images, _ in model.stream(conditions(model, sources), count, 0, **drawing(model)):
            tiles.append(images)
            progress.advance(len(images))
    drawn: np.ndarray = torch.cat(tiles).numpy()
    return drawn.reshape(len(sources), count, *drawn.shape[1:])


def found(model: Any, sources: Tensor, views: np.ndarray) -> dict[str, float]:
    """How often ``views`` (N, n, C, H, W) lie nearest to their own of ``sources`` (N, C, H, W)."""
    own = identities(model, sources)
    nearest = np.stack([(identities(model, each) @ own.T).argmax(1) for each in views])  # (N, n)
    shares = (nearest == np.arange(len(views))[:, None]).mean(1)
    return {"share": float(shares.mean()), "ci95": float(1.96 * shares.std(ddof=1) / math.sqrt(len(shares)))}


def variety(views: np.ndarray) -> float:
    """Mean absolute difference of two views of one source: (N, n, C, H, W) -> 0 .. 255."""
    pairs = itertools.combinations(range(views.shape[1]), 2)
    return float(np.mean([np.abs(views[:, a].astype(np.float64) - views[:, b]).mean() for a, b in pairs]))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation; equal values share the mean of their ranks."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        ends = np.cumsum(counts)
        mean: np.ndarray = (ends - (counts - 1) / 2)[place]
        return mean

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def drawn_people(model: Any, people: int, views: int) -> np.ndarray:
    """Views of drawn people of the test split, (people, views, C, H, W)."""
    info = model.info
    section = DataSection(
        source="portraits",
        image_size=(info.height, info.width),
        channels=info.channels,
        bit_depth=info.bit_depth,
        identities=8 * max(people, 64),
        views=views,
    )
    data = open_data(section, "test")
    images: np.ndarray = data.batch(np.arange(people * views))["image"].numpy()
    return images.reshape(people, views, *images.shape[1:])


def on_drawings(model: Any, people: int, count: int) -> dict[str, Any]:
    real = drawn_people(model, people, count + 1)
    sources = torch.from_numpy(real[:, 0].copy())
    drawn = portraits(model, sources, count)
    return {
        "people": people,
        "portraits": count,
        "found": found(model, sources, drawn),
        "found_real": found(model, sources, real[:, 1:]),
        "variety": variety(drawn),
        "variety_real": variety(real),
    }


def of_walks(model: Any, steps: int, rows: int) -> dict[str, Any]:
    ends = torch.from_numpy(drawn_people(model, 2, 1)[:, 0].copy())
    a, b = (model.encode(image=end[None]) for end in ends)
    options = drawing(model)
    walk = model.sample(a.interpolate(b, steps), rows, **options).numpy().reshape(steps, rows, *ends.shape[1:])
    short = model.sample(a.interpolate(b, 3), rows, **options).numpy().reshape(3, rows, *ends.shape[1:])
    singles = [model.sample(end, rows + 1, **options).numpy()[:rows] for end in (a, b)]
    along, across = walk_distances(walk.swapaxes(0, 1))
    equal = all(
        np.array_equal(pictures[k], single)
        for pictures in (walk, short)
        for k, single in ((0, singles[0]), (-1, singles[1]))
    )
    return {"steps": steps, "rows": rows, "neighbours": along, "between_rows": across, "ends_equal": equal}


def on_photographs(model: Any, folder: Path, people: int, count: int, aligned: bool) -> dict[str, Any]:
    """Evenly spaced people in order of their names; of each the first photograph in which a face is found."""
    info = model.info
    shape = info.channels, info.height, info.width
    everyone = sorted(path for path in folder.iterdir() if path.is_dir())
    sources, without = [], 0
    for k in range(people):
        person = everyone[k * len(everyone) // people]
        for file in sorted(person.iterdir()):
            try:
                sources.append((open_image if aligned else open_face)(file, *shape, bit_depth=info.bit_depth)[0])
                break
            except InputError:
                without += 1
    given = torch.stack(sources)
    drawn = portraits(model, given, count)
    weights = region_weights(info.height, info.width)
    weights = np.asarray(weights)

    def colours(images: np.ndarray) -> np.ndarray:
        """(N, R, C)."""
        means: np.ndarray = np.einsum("nchw,rhw->nrc", images.astype(np.float64), weights)
        return means

    theirs = colours(given.numpy())
    ours = np.mean([colours(drawn[:, k]) for k in range(count)], axis=0)
    by_colour = [spearman(theirs[:, 0, c], ours[:, 0, c]) for c in range(info.channels)]
    luma = LUMA if info.channels == 3 else np.ones(1)
    return {
        "people": len(given),
        "portraits": count,
        "aligned": aligned,
        "without_face": without,
        "face_colour": float(np.mean(by_colour)),
        "face_red_green_blue": by_colour,
        "hair_brightness": spearman(theirs[:, 1] @ luma, ours[:, 1] @ luma),
        "found": found(model, given, drawn),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[1], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=None, help="a run or model; default: the one that ships")
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--portraits", type=int, default=4, help="of each")
    parser.add_argument("--guidance", type=float, default=None, help="default: the recipe's")
    parser.add_argument("--steps", type=int, default=65, help="of the walk; 0: none")
    parser.add_argument("--photographs", type=Path, default=None, help="a folder with a folder of pictures a person")
    parser.add_argument("--photographed", type=int, default=100, help="people of that folder")
    parser.add_argument("--temperature", type=float, default=None, help="default: the recipe's")
    parser.add_argument("--aligned", action="store_true", help="photographs are cropped to faces already")
    options = parser.parse_args(arguments)
    if options.people < 2 or options.portraits < 2 or options.photographed < 2:
        parser.error("two people and two portraits at the least")
    model = load_conditional(model_path(options.model))
    asked = {name: getattr(options, name) for name in ("temperature", "guidance")}
    sample = model.recipe.sample.model_copy(update={name: value for name, value in asked.items() if value is not None})
    model.recipe = model.recipe.model_copy(update={"sample": sample})
    report: dict[str, Any] = {
        "model": "portraits" if options.model is None else options.model,
        "size": [model.info.height, model.info.width],
        "temperature": sample.temperature,
        "guidance": sample.guidance,
        "drawings": on_drawings(model, options.people, options.portraits),
    }
    if options.steps:
        report["walk"] = of_walks(model, options.steps, 4)
    if options.photographs is not None:
        report["photographs"] = on_photographs(
            model, options.photographs, options.photographed, options.portraits, options.aligned
        )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
