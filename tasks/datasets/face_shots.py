"""How a photograph of a face differs from the next: pose, expression, light, background.

All of it is keyed by (seed, population, identity, image) and none of it by the person's traits, so
that it tells nothing about who is shown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.datasets.face_traits import Floats
from tasks.draws import Draws, IntArray

IMAGE_BITS = 24
"""An identity has at most 2**24 images: its number and the image's share one 64-bit id."""

CLOTHES = (
    (0.20, 0.24, 0.32),
    (0.75, 0.75, 0.72),
    (0.55, 0.16, 0.18),
    (0.20, 0.38, 0.30),
    (0.30, 0.42, 0.62),
    (0.78, 0.62, 0.25),
    (0.42, 0.30, 0.45),
    (0.10, 0.10, 0.11),
)
_DRAWS = (
    *("x", "y", "roll", "scale", "yaw", "pitch", "smile", "open", "brow", "lid", "gaze"),
    *("light", "light_x", "light_y", "exposure", "warmth"),
    *("hue", "saturation", "value", "slope", "direction", "clothes", "clothes_shade", "noise"),
)


@dataclass(frozen=True)
class Shots:
    """Conditions of n photographs; each field has shape (n,), colours (n, 3)."""

    x: Floats  # where the face is, in half images
    y: Floats
    cos: Floats  # of the roll, divided by the scale of the face
    sin: Floats
    yaw: Floats  # how far the features move sideways
    pitch: Floats  # and down
    smile: Floats  # -1 to 1
    open: Floats  # the mouth, 0 to 1
    brow: Floats
    lid: Floats  # height of the open eye
    gaze: Floats
    light: Floats  # strength of the directed light
    light_x: Floats
    light_y: Floats
    gain: Floats  # exposure and white balance
    backdrop: Floats
    slope: Floats  # gradient of the background
    slope_x: Floats
    slope_y: Floats
    clothes: Floats
    noise: Floats  # standard deviation, unit range
    noise_key: IntArray  # id of the draws of the noise


def draw_shots(seed: int, population: str, identities: IntArray, images: IntArray) -> Shots:
    """Draw the conditions of photographs; row i depends on identities[i] and images[i] alone."""
    ids = (np.asarray(identities).astype(np.int64) << IMAGE_BITS) + np.asarray(images)
    draws = Draws(seed, ("faces", population, "image"))
    u = dict(zip(_DRAWS, draws.uniform(ids, len(_DRAWS)).T, strict=True))
    signed = {name: 2 * values - 1 for name, values in u.items()}
    roll, scale = 0.11 * signed["roll"], 1.10 + 0.05 * signed["scale"]
    hue = u["hue"][:, None] + np.array([[0, 1 / 3, 2 / 3]])
    wave = np.clip(np.abs((hue % 1) * 6 - 3) - 1, 0, 1)  # the hue circle, as in HSV
    value = 0.30 + 0.62 * u["value"][:, None]
    backdrop = value * (1 - 0.42 * u["saturation"][:, None] * (1 - wave))
    clothes = np.array(CLOTHES)[(u["clothes"] * len(CLOTHES)).astype(int)]
    warmth = signed["warmth"][:, None] * np.array([[0.045, 0.0, -0.055]])
    fields = {
        "x": 0.05 * signed["x"],
        "y": 0.03 + 0.045 * signed["y"],
        "cos": np.cos(roll) / scale,
        "sin": np.sin(roll) / scale,
        "yaw": 0.075 * signed["yaw"],
        "pitch": 0.03 * signed["pitch"],
        "smile": 0.5 + 0.6 * signed["smile"],
        "open": np.clip(1.6 * u["open"] - 0.8, 0, 1),
        "brow": 0.03 * np.clip(signed["brow"], -0.4, 1),
        "lid": 0.72 + 0.38 * u["lid"],
        "gaze": 0.02 * signed["gaze"],
        "light": 0.16 + 0.34 * u["light"],
        "light_x": 0.85 * signed["light_x"],
        "light_y": -0.5 + 0.4 * signed["light_y"],
        "gain": (1 + 0.13 * signed["exposure"][:, None]) * (1 + warmth),
        "backdrop": backdrop,
        "slope": 0.28 * signed["slope"],
        "slope_x": np.cos(2 * np.pi * u["direction"]),
        "slope_y": np.sin(2 * np.pi * u["direction"]),
        "clothes": clothes * (0.8 + 0.4 * u["clothes_shade"][:, None]),
        "noise": 0.006 + 0.012 * u["noise"],
    }
    floats = {name: np.asarray(value, np.float32) for name, value in fields.items()}
    return Shots(noise_key=ids, **floats)
