"""Shapes as signed distances (negative inside), and the canvas that they are painted on.

The coverage of a pixel follows from the distance at its centre, so edges are smooth at any image
size without supersampling. Pixel arrays see additions, products, quotients and square roots only,
which IEEE 754 rounds in one way: a batch may be split anyhow, and the bytes stay the same.
"""

from __future__ import annotations

import numpy as np

from tasks.datasets.face_traits import Floats


class Canvas:
    """An image being painted, back to front.

    Attributes:
        rgb: (n, 3, size, size), unit range.
        person: coverage by anything but the background, (n, size, size).
    """

    def __init__(self, rgb: Floats) -> None:
        self.rgb = rgb
        self.person: Floats = np.zeros_like(rgb[:, 0])
        self.pixel = 2.0 / rgb.shape[-1]

    def cover(self, distance: Floats, softness: float = 0.0) -> Floats:
        """Return the share of each pixel that a shape covers, blurred over `softness`."""
        return np.asarray(np.clip(0.5 - distance / (self.pixel + softness), 0, 1))

    def paint(self, alpha: Floats, color: Floats) -> None:
        """Lay a colour, (3,) or (n, 3), over the image."""
        self.rgb += alpha[:, None] * (color.reshape(-1, 3, 1, 1) - self.rgb)
        np.maximum(self.person, alpha, out=self.person)

    def shade(self, factor: Floats) -> None:
        """Darken or lighten what is there."""
        self.rgb *= factor[:, None]


def ellipse(x: Floats, y: Floats, width: Floats | float, height: Floats | float) -> Floats:
    """Return nearly the signed distance to an ellipse at the origin, from its half axes."""
    radius = np.sqrt((x / width) ** 2 + (y / height) ** 2)
    scale = np.minimum(width, height, dtype=np.float32)
    return np.asarray((radius - 1) * scale, np.float32)


def box(
    x: Floats, y: Floats, width: Floats | float, height: Floats | float, round_: Floats | float
) -> Floats:
    """Return the signed distance to a rounded box; `round_` is the radius of its corners."""
    qx, qy = np.abs(x) - width + round_, np.abs(y) - height + round_
    outside = np.sqrt(np.maximum(qx, 0) ** 2 + np.maximum(qy, 0) ** 2)
    return np.asarray(outside + np.minimum(np.maximum(qx, qy), 0) - round_)


def arc(
    x: Floats, y: Floats, bend: Floats | float, half: Floats | float, thick: Floats | float
) -> Floats:
    """Return nearly the distance to a stroke y = bend (x / half)^2 that thins to its ends."""
    t2 = np.minimum((x / half) ** 2, 1.5)
    return np.asarray(np.maximum(np.abs(y - bend * t2) - thick * (1 - t2), np.abs(x) - half))


def bumps(x: Floats, y: Floats) -> Floats:
    """Return a smooth wavy pattern in [-1, 1], of period 1 in x and y."""

    def wave(v: Floats) -> Floats:
        v = v - np.floor(v)
        w = 2 * v - 1
        return np.asarray(4 * w * (1 - np.abs(w)))

    return np.asarray((wave(x + y) + wave(x - y)) * 0.5)


def smooth(x: Floats, low: float, high: float) -> Floats:
    """Return 0 below low, 1 above high, and a smooth step between."""
    v = np.clip((x - low) / (high - low), 0, 1)
    return np.asarray(v * v * (3 - 2 * v))
