"""What a person would name on a portrait: thresholds of coordinates, or things that are there or not.

The maps from coordinate to look are steep at a threshold, so that few pictures are in doubt.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from condgen.data.portraits.moments import Moment
from condgen.data.portraits.people import BLOND, DARK, DARK_SKIN, GREY, RED, Person

ATTRIBUTES: tuple[str, ...] = (
    # of the identity: the same in every view
    "glasses",
    "beard",
    "bald",
    "long hair",
    "fringe",
    "dark hair",
    "red hair",
    "blond hair",
    "grey hair",
    "dark skin",
    # of the view
    "hat",
    "smile",
    "open mouth",
    "looking left",  # the picture's left, as the viewer sees it
    "looking right",
)


def attributes_of(person: Person, moment: Moment) -> NDArray[np.int8]:
    """0 or 1 for each of ``ATTRIBUTES``, int8 (n, A)."""
    hair = person.bald == 0
    shade = person.shade_of_hair
    told = {
        "glasses": person.glasses > 0,
        "beard": person.beard > 0,
        "bald": person.bald > 0,
        "long hair": person.long_hair > 0,
        "fringe": person.fringe > 0,
        "dark hair": hair & (shade < DARK),
        "red hair": hair & (shade >= RED) & (shade < BLOND),
        "blond hair": hair & (shade >= BLOND) & (shade < GREY),
        "grey hair": hair & (shade >= GREY),
        "dark skin": person.tone >= DARK_SKIN,
        "hat": moment.hat > 0,
        "smile": moment.smile > 0.35,
        "open mouth": moment.opening > 0.3,
        "looking left": moment.turn < -0.2,
        "looking right": moment.turn > 0.2,
    }
    return np.stack([told[name][:, 0, 0] for name in ATTRIBUTES], axis=1).astype(np.int8)
