"""How much of a caption's worth is left when it is said in words that no caption in training had?

    python paraphrases.py RUN [IMAGES]

For test portraits: bits/image that their captions save over those of other portraits, in the words of training and in
others that only the text model knows, with 95 % intervals.
"""

import math
import re
import sys

import condgen
import numpy as np
import torch

from condgen_captions import writing

OTHERS = {
    "smiling": "grinning", "cheerful": "happy", "bald": "hairless", "dark-skinned": "brown-skinned",
    "glasses": "spectacles", "eyeglasses": "spectacles", "beard": "moustache", "hat": "cap", "fringe": "forelock",
    "dark": "brown", "black": "raven",
    "red": "ginger", "blond": "golden", "yellow": "flaxen", "grey": "silver", "white": "gray", "long": "lengthy",
    "turned": "facing", "looking": "gazing", "person": "human", "face": "head", "portrait": "picture",
}  # fmt: skip


def reworded(caption: str) -> str:
    return re.sub(r"[a-z-]+", lambda word: OTHERS.get(word[0], word[0]), caption)


def main(run: str, count: int = 1000) -> None:
    model = condgen.load(run).eval()
    batch = condgen.open_data(model.recipe.data, "test").batch(np.arange(count))
    captions = writing.written(model.info.attributes, batch["attributes"], batch["index"])
    others = captions[count // 2 :] + captions[: count // 2]  # half the set away: nobody keeps a caption of his own
    nats = {}
    with torch.no_grad():
        for name, texts in {
            "own": captions,
            "reworded": [reworded(text) for text in captions],
            "another's": others,
            "another's, reworded": [reworded(text) for text in others],
        }.items():
            conditions = model.encode(caption=texts)
            parts = [slice(k, k + 50) for k in range(0, count, 50)]
            nats[name] = torch.cat([model.log_prob(batch["image"][p], conditions[p]) for p in parts]).double()
    print(f"{captions[0]!r} -> {reworded(captions[0])!r}")
    for name, other in (("own", "another's"), ("reworded", "another's, reworded")):
        bits = (nats[name] - nats[other]) / math.log(2)
        print(f"{name:<9} {bits.mean():6.1f} +- {1.96 * bits.std() / math.sqrt(count):.1f} bits/image")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
