"""Synthetic portraits, drawn by the package itself: any number of people, each in any number of views.

    images, attributes = draw(0, np.arange(8), np.zeros(8, np.int64), height=32, width=32, grain=2.0)

A person is a point of a continuous space of shapes and colours (people.py), a view a pose, an expression, a light, a
background. scene.py, hair.py and features.py paint them, back to front, on the canvases of canvas.py.
"""

from __future__ import annotations

from functools import cache
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray

from condgen import streams
from condgen.data.portraits import features, hair, scene
from condgen.data.portraits.attributes import ATTRIBUTES, attributes_of
from condgen.data.portraits.canvas import Canvas
from condgen.data.portraits.moments import CHANCES, Moment, moments_at
from condgen.data.portraits.people import TRAITS, Person, people_at
from condgen.data.portraits.points import Planes
from condgen.errors import RecipeError

__all__ = ["ATTRIBUTES", "draw"]

SMALLEST = 16
"""Pixels of the shorter side below which a face cannot be told."""
_BLOCK = 32 * 32 * 32
"""Pixels painted at a time: a plane is 128 KiB, so that the dozen in use stay in a core's cache."""
_CHUNK = 4096
"""Pictures whose people are worked out at a time."""


def draw(
    seed: int, identities: np.ndarray, views: np.ndarray, height: int, width: int, grain: float
) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """Portraits of people in views, and what is to be seen on them.

    A picture is a function of (seed, identity, view, height, width, grain): the same bits in any company, order or
    thread. Only correctly rounded arithmetic is used, so other machines draw the same.

    Args:
        seed: of all people and views.
        identities: numbers of the people, int64 (n,); any integers.
        views: numbers of the views, int64 (n,).
        height, width: in pixels, 16 or more; the face fills the shorter side.
        grain: standard deviation of the camera's Gaussian grain, in levels of 0..255; added before rounding.

    Returns:
        The pictures, uint8 (n, 3, H, W), and 0 or 1 for each of ``ATTRIBUTES``, int8 (n, A).

    Raises:
        RecipeError: a side is shorter than 16 pixels.
    """
    if min(height, width) < SMALLEST:
        raise RecipeError(
            f"data.image_size is {height}x{width}, too small for portraits; set it to {SMALLEST} or more.",
            field="data.image_size",
        )
    images = np.empty((len(identities), 3, height, width), np.uint8)
    attributes = np.empty((len(identities), len(ATTRIBUTES)), np.int8)
    for start in range(0, len(identities), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        who = streams.example_keys(identities[chunk], seed, "portraits", "sitter")
        when = who ^ streams.example_keys(views[chunk], seed, "portraits", "view")  # both are hashes: no two agree
        person = people_at(streams.example_uniforms(who, 0, TRAITS).numpy())
        moment = moments_at(streams.example_uniforms(when, 0, CHANCES).numpy())
        attributes[chunk] = attributes_of(person, moment)
        step = max(1, _BLOCK // (height * width))
        for first in range(0, len(who), step):
            block = slice(first, first + step)
            picture = paint(person.block(block), moment.block(block), height, width)
            images[chunk][block] = _developed(picture, when[block], grain)
    return images, attributes


def paint(person: Person, moment: Moment, height: int, width: int) -> Planes:
    """The pictures without grain, float32 (3, b, H, W), about 0..1. What comes later covers what came before."""
    canvas = Canvas(person, moment, height, width)
    face = scene.face(canvas)
    locks = hair.Hair.on(canvas)
    scene.background(canvas)
    scene.clothes(canvas)
    hair.hair_behind(canvas, locks, face)
    scene.neck_and_ears(canvas)
    scene.skin(canvas, face)
    features.nose(canvas)
    hair.beard(canvas, locks, face)
    features.mouth(canvas, face)
    eyes = features.Eyes.on(canvas)
    features.eyes(eyes, face)
    features.brows(eyes, face)
    hair.hair_in_front(canvas, locks, face)
    features.glasses(eyes, face)
    hair.hat(canvas, locks)
    scene.light(canvas)
    return canvas.image


def _developed(picture: Planes, keys: torch.Tensor, grain: float) -> NDArray[np.uint8]:
    """``picture`` (3, b, H, W) with grain, in levels: (b, 3, H, W)."""
    levels = picture.transpose(1, 0, 2, 3) * 255
    if grain > 0:
        size = levels[0].size
        raw = streams.example_bytes(keys, 1, 2 * size).numpy().view("<u2")  # (b, 3 H W)
        noise = _normal()[raw]
        noise *= grain
        levels += noise.reshape(levels.shape)
    np.rint(levels, out=levels)
    return np.clip(levels, 0, 255, out=levels).astype(np.uint8)


@cache
def _normal() -> Planes:
    """The 2^16 quantiles of a normal distribution, of variance 1: a 16-bit word looked up in it is Gaussian.

    On a grid of 2^-12, so that the last bit of a machine's logarithm does not matter. It ends at 4.2 deviations.
    """
    half = np.array([NormalDist().inv_cdf((i + 0.5) / 2**16) for i in range(2**15, 2**16)])
    half /= np.sqrt(np.mean(half * half))
    return (np.rint(np.concatenate([-half[::-1], half]) * 2**12) * 2.0**-12).astype(np.float32)
