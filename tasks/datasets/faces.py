"""Procedural faces by number: any identity, any image, in any order, always the same bytes."""

from __future__ import annotations

import numpy as np

from tasks.datasets.face_render import paint_faces
from tasks.datasets.face_shots import draw_shots
from tasks.datasets.face_traits import draw_traits
from tasks.draws import Draws, IntArray
from tasks.types import Image8

FACE_VERSION = 1
"""Of the pixels. A change of the renderer that changes them makes the shipped prior stale."""

CHUNK_PIXELS = 1 << 14
"""Pixels painted at once: the arrays of a chunk stay in the processor's cache."""


def render_faces(
    seed: int, population: str, identities: IntArray, images: IntArray, size: int
) -> Image8:
    """Render photographs of procedural faces.

    Args:
        seed: the experiment's seed.
        population: name of the population, such as "private".
        identities: number of the identity of each photograph, shape (n,), >= 0.
        images: number of the photograph among those of its identity, shape (n,), in [0, 2**24).
        size: height and width in pixels.

    Returns:
        (n, size, size, 3) uint8. Image i depends on (seed, population, identities[i], images[i],
        size) alone.
    """
    identities, images = np.asarray(identities, np.int64), np.asarray(images, np.int64)
    noise = Draws(seed, ("faces", population, "noise"))
    faces: Image8 = np.empty((len(identities), size, size, 3), np.uint8)
    step = max(1, CHUNK_PIXELS // (size * size))
    for start in range(0, len(identities), step):
        part = slice(start, start + step)
        traits = draw_traits(seed, population, identities[part])
        shots = draw_shots(seed, population, identities[part], images[part])
        faces[part] = paint_faces(traits, shots, noise, size)
    return faces


def face_attributes(seed: int, population: str, identities: IntArray) -> list[list[str]]:
    """Return the attribute labels of identities, each a subset of `face_traits.ATTRIBUTES`."""
    return draw_traits(seed, population, np.asarray(identities, np.int64)).attributes()
