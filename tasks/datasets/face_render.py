"""Paints procedural faces: traits and shots in, pixels out, in NumPy."""

from __future__ import annotations

import numpy as np

from tasks.datasets import face_parts
from tasks.datasets.face_shapes import Canvas
from tasks.datasets.face_shots import Shots
from tasks.datasets.face_traits import Floats, Traits
from tasks.draws import Draws
from tasks.types import Image8

BACK_TO_FRONT = (
    face_parts.paint_behind,
    face_parts.paint_skin,
    face_parts.paint_mouth,
    face_parts.paint_beard,
    face_parts.paint_nose,
    face_parts.paint_eyes,
    face_parts.paint_hair,
    face_parts.paint_glasses,
)


def paint_faces(traits: Traits, shots: Shots, noise: Draws, size: int) -> Image8:
    """Return the photographs of n faces, (n, size, size, 3) uint8.

    Args:
        traits: who is shown, n rows.
        shots: how, n rows.
        noise: source of the sensor noise, keyed by `shots.noise_key`.
        size: height and width in pixels.
    """
    scene = face_parts.Scene(traits, shots, size)
    canvas = Canvas(_backdrop(shots, size))
    for paint in BACK_TO_FRONT:
        paint(canvas, scene)
    _light(canvas, scene)
    return _expose(canvas.rgb, shots, noise)


def _backdrop(shots: Shots, size: int) -> Floats:
    """Return the background, a colour with a gradient, (n, 3, size, size)."""
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    slope_x, slope_y = (shots.slope * shots.slope_x, shots.slope * shots.slope_y)
    tilt = 1 + slope_x[:, None, None] * grid + slope_y[:, None, None] * grid[:, None]
    return np.asarray(shots.backdrop[:, :, None, None] * tilt[:, None])


def _light(canvas: Canvas, scene: face_parts.Scene) -> None:
    """Light the person as a ball: brighter where it faces the lamp."""
    t, s, x, y = scene.traits, scene.shots, scene.x, scene.y
    nx, ny = x / (t.width * 1.25), y / (t.height * 1.2)
    nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0.05))
    facing = s.light_x * np.clip(nx, -1, 1) + s.light_y * np.clip(ny, -1, 1) + 0.75 * nz
    light = 1 + s.light * (facing - 0.68)
    canvas.shade(1 + canvas.person * (light - 1))


def _expose(rgb: Floats, shots: Shots, noise: Draws) -> Image8:
    """Return the exposed image with sensor noise, rounded to bytes."""
    n, _, size, _ = rgb.shape
    bits = noise.bits(shots.noise_key, (3 * size * size + 1) // 2)
    # A sum of four random bytes is nearly normal: mean 510, variance 4 (256^2 - 1) / 12.
    sums = bits.astype("<u8", copy=False).view(np.uint8).reshape(n, -1, 4)[:, : 3 * size * size]
    grain = sums.sum(axis=2, dtype=np.uint16).astype(np.float32) - 510
    grain = grain.reshape(n, 3, size, size) * (shots.noise / 147.8)[:, None, None, None]
    exposed = rgb * shots.gain[:, :, None, None] + grain
    levels: Image8 = np.rint(np.clip(exposed, 0, 1) * 255).astype(np.uint8)
    return levels.transpose(0, 2, 3, 1)
