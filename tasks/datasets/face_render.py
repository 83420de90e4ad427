"""Paints procedural faces: traits and a shot in, pixels out, in NumPy.

Every part is a signed distance (negative inside), and its coverage of a pixel follows from the
distance at the pixel's centre; so edges are smooth at any image size without supersampling. Pixel
arrays see additions, products, quotients and square roots only, which IEEE 754 rounds in one way:
a batch may be split anyhow, on any machine, and the bytes stay the same.

Coordinates: x to the right and y down, -1 to 1 over the image; the head's centre is the origin.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TypeVar

import numpy as np

from tasks.datasets.face_shots import Shots
from tasks.datasets.face_traits import STYLE_COLUMNS, STYLE_NAMES, Floats, Traits
from tasks.draws import Draws, IntArray
from tasks.types import Image8

Rows = TypeVar("Rows", Traits, Shots)

WHITE = np.array([0.96, 0.95, 0.94], np.float32)
MOUTH = np.array([0.30, 0.07, 0.09], np.float32)
DARK = np.array([0.05, 0.04, 0.04], np.float32)
BUN = STYLE_NAMES.index("bun")


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
        width = np.float32(self.pixel + softness)
        return np.clip(np.float32(0.5) - distance / width, 0, 1)

    def paint(self, alpha: Floats, color: Floats) -> None:
        """Lay a colour, (3,) or (n, 3), over the image."""
        self.rgb += alpha[:, None] * (color.reshape(-1, 3, 1, 1) - self.rgb)
        np.maximum(self.person, alpha, out=self.person)

    def shade(self, factor: Floats) -> None:
        """Darken or lighten what is there."""
        self.rgb *= factor[:, None]


def paint_faces(traits: Traits, shots: Shots, noise: Draws, size: int) -> Image8:
    """Return the photographs of n faces, (n, size, size, 3) uint8.

    Args:
        traits: who is shown, n rows.
        shots: how, n rows.
        noise: source of the sensor noise, keyed by `shots.noise_key`.
        size: height and width in pixels.
    """
    n = len(shots.noise_key)
    t, s = _per_pixel(traits), _per_pixel(shots)
    grid = ((np.arange(size, dtype=np.float32) + np.float32(0.5)) / size * 2 - 1).astype(np.float32)
    px, py = np.broadcast_to(grid, (n, size, size)), np.broadcast_to(grid[:, None], (n, size, size))
    slope = 1 + s.slope * (s.slope_x * px + s.slope_y * py)
    canvas = Canvas(shots.backdrop[:, :, None, None] * slope[:, None])
    dx, dy = px - s.x, py - s.y
    x, y = s.cos * dx + s.sin * dy, s.cos * dy - s.sin * dx
    style = {name: t.style[..., i] for i, name in enumerate(STYLE_COLUMNS)}

    curls = style["curl"] * _bumps(x * 3.4, y * 3.4)
    _paint_behind(canvas, t, s, traits, shots, style, x, y, curls)
    head = _head(x - np.float32(0.35) * s.yaw, y, t)
    _paint_skin(canvas, t, s, traits, x, y, head)
    fx, fy = x - s.yaw, y - s.pitch
    _paint_mouth(canvas, t, s, traits, fx, fy)
    _paint_beard(canvas, t, s, traits, fx, fy, x, y)
    _paint_nose(canvas, t, s, fx, fy)
    _paint_eyes(canvas, t, s, traits, fx, fy)
    _paint_hair(canvas, t, s, traits, style, x, y, curls)
    _paint_glasses(canvas, t, traits, fx, fy)
    _light(canvas, t, s, x, y)
    return _expose(canvas.rgb, shots, noise)


def _per_pixel(rows: Rows) -> Rows:
    """Return the same rows with each scalar field of shape (n, 1, 1), to meet pixel arrays."""
    values = {field.name: getattr(rows, field.name) for field in fields(rows)}
    return type(rows)(**{name: value[:, None, None] for name, value in values.items()})


def _ellipse(x: Floats, y: Floats, width: Floats | float, height: Floats | float) -> Floats:
    """Return nearly the signed distance to an ellipse at the origin, from its half axes."""
    radius = np.sqrt((x / width) ** 2 + (y / height) ** 2)
    return (radius - 1) * np.minimum(np.float32(width), np.float32(height))


def _box(x: Floats, y: Floats, width: Floats | float, height: Floats | float, round_: Floats) -> Floats:
    """Return the signed distance to a rounded box; `round_` is the radius of its corners."""
    qx, qy = np.abs(x) - width + round_, np.abs(y) - height + round_
    outside = np.sqrt(np.maximum(qx, 0) ** 2 + np.maximum(qy, 0) ** 2)
    return np.asarray(outside + np.minimum(np.maximum(qx, qy), 0) - round_)


def _arc(x: Floats, y: Floats, bend: Floats | float, half: Floats | float, thick: Floats | float) -> Floats:
    """Return nearly the distance to a stroke y = bend (x / half)^2 that thins to its ends."""
    t2 = np.minimum((x / half) ** 2, np.float32(1.5))
    return np.abs(y - bend * t2) - thick * (1 - t2)


def _bumps(x: Floats, y: Floats) -> Floats:
    """Return a smooth wavy pattern in [-1, 1], of period 1 in x and y."""

    def wave(v: Floats) -> Floats:
        v = v - np.floor(v)
        up = v < 0.5
        w = np.where(up, v, v - np.float32(0.5)) * 2
        return np.where(up, 1, -1) * (4 * w * (1 - w))

    return (wave(x + y) + wave(x - y)) * np.float32(0.5)


def _smooth(x: Floats, low: float, high: float) -> Floats:
    """Return 0 below low, 1 above high, and a smooth step between."""
    v = np.clip((x - np.float32(low)) / np.float32(high - low), 0, 1)
    return v * v * (3 - 2 * v)


def _head(x: Floats, y: Floats, t: Traits, longer: Floats | float = 0.0) -> Floats:
    """Return nearly the signed distance to the outline of the head."""
    height = np.where(y > 0, t.height + longer, t.height)
    down = np.clip(y / height, 0, 1)
    width = t.width * (1 - t.jaw * down * down)
    a, b = (x / width) ** 2, (y / height) ** 2
    ball, block = np.sqrt(a + b), np.sqrt(np.sqrt(a * a + b * b))
    square = t.square * _smooth(y, 0.0, 0.3)
    return np.asarray((ball + square * (block - ball) - 1) * t.width)


def _paint_behind(
    canvas: Canvas, t: Traits, s: Shots, traits: Traits, shots: Shots,
    style: dict[str, Floats], x: Floats, y: Floats, curls: Floats,
) -> None:
    """Paint clothes, the hair behind the head, and the neck."""
    shoulders = _box(x, y - np.float32(1.42), 0.86, 0.56, np.float32(0.30))
    canvas.paint(canvas.cover(shoulders), shots.clothes)
    top, bottom = -t.height * (1 + style["top"]), style["back"]
    half = np.maximum(bottom - top, 0) * np.float32(0.5)
    width = t.width * style["flare"]
    corner = np.minimum(width, half) * (np.float32(0.55) + np.float32(0.45) * style["round"])
    mane = _box(x - np.float32(0.15) * s.yaw, y - top - half, width, half, corner) - curls
    shadow = np.float32(0.72) + np.float32(0.18) * _smooth(np.abs(x), 0.35, 0.8)
    hidden = np.where(bottom > top, canvas.cover(mane), 0)
    canvas.paint(hidden, traits.hair)
    canvas.shade(1 - hidden * (1 - shadow))
    neck = np.maximum(np.abs(x) - np.float32(0.46) * t.width - np.float32(0.10) * _smooth(y, 0.85, 1.1), y - np.float32(1.02))
    canvas.paint(canvas.cover(neck, 0.02), traits.skin * np.float32(0.80))


def _paint_skin(
    canvas: Canvas, t: Traits, s: Shots, traits: Traits, x: Floats, y: Floats, head: Floats
) -> None:
    """Paint ears and face, with blush, eye sockets and the lines of age."""
    ears = _ellipse(np.abs(x + np.float32(0.2) * s.yaw) - t.width * np.float32(1.0), y - np.float32(0.03), 0.075 * t.ears, 0.13 * t.ears)
    canvas.paint(canvas.cover(ears), traits.skin * np.float32(0.88))
    canvas.paint(canvas.cover(head), traits.skin)
    fx, fy = x - s.yaw, y - s.pitch
    ax = np.abs(fx)
    cheek = _ellipse(ax - np.float32(0.25), fy - np.float32(0.20), 0.15, 0.11)
    rosy = traits.skin * np.array([1.0, 0.66, 0.64], np.float32)
    canvas.paint(canvas.cover(cheek, 0.16) * t.blush, rosy)
    socket = _ellipse(ax - t.eye_gap, fy - t.eye_height + np.float32(0.03), 0.15, 0.10)
    canvas.shade(1 - np.float32(0.12) * canvas.cover(socket, 0.10))
    old = _smooth(t.age, 0.5, 0.95)
    fold = np.abs(ax - np.float32(0.11) - np.float32(0.42) * (fy - np.float32(0.20))) - np.float32(0.012)
    fold = np.maximum(fold, np.abs(fy - np.float32(0.30)) - np.float32(0.11))
    bags = _arc(ax - t.eye_gap, fy - t.eye_height - np.float32(0.10), -0.02, 0.11, 0.020)
    brow = _arc(fx, np.abs(fy + np.float32(0.35)) - np.float32(0.045), 0.02, 0.24, 0.016)
    for line, depth in ((fold, 0.30), (bags, 0.26), (brow, 0.22)):
        canvas.shade(1 - np.float32(depth) * old * canvas.cover(line, 0.02))


def _paint_mouth(canvas: Canvas, t: Traits, s: Shots, traits: Traits, x: Floats, y: Floats) -> None:
    """Paint lips, and the teeth of an open mouth."""
    half = t.mouth_width * (1 + np.float32(0.14) * s.smile)
    bend = np.float32(-0.055) * s.smile
    gap = np.float32(0.050) * s.open
    y = y - t.mouth_height + np.float32(0.5) * bend
    t2 = np.minimum((x / half) ** 2, np.float32(1.5))
    middle = y - bend * t2
    lips = np.abs(middle - np.float32(0.2) * t.lips) - (t.lips + gap) * (1 - t2)
    canvas.paint(canvas.cover(lips), traits.lip)
    hole = np.abs(middle) - gap * (1 - t2)
    seam = np.abs(middle) - np.float32(0.010) * (1 - t2)
    canvas.shade(1 - np.float32(0.45) * canvas.cover(seam))
    inside = canvas.cover(hole) * np.minimum(s.open * 4, 1)
    canvas.paint(inside, MOUTH)
    canvas.paint(inside * canvas.cover(middle + np.float32(0.1) * gap), WHITE)


def _paint_beard(
    canvas: Canvas, t: Traits, s: Shots, traits: Traits, fx: Floats, fy: Floats, x: Floats, y: Floats
) -> None:
    """Paint beard and moustache over the lower face."""
    color = traits.hair * np.float32(0.86)
    jaw = _head(x - np.float32(0.35) * s.yaw, y, t, longer=t.beard_length)
    ax = np.abs(fx)
    mouth = _ellipse(fx, fy - t.mouth_height - np.float32(0.01), t.mouth_width * np.float32(1.02), np.float32(0.075) + np.float32(0.05) * s.open)
    line = np.float32(0.33) - np.float32(1.1) * np.maximum(ax - np.float32(0.24), 0)
    cheeks = np.maximum(np.maximum(jaw, (line - fy) * np.float32(0.7)), -mouth)
    canvas.paint(canvas.cover(cheeks, 0.03) * t.cheek_beard, color)
    chin = _box(fx, fy - t.mouth_height - np.float32(0.20), 0.17, 0.17 + t.beard_length, np.float32(0.10))
    chin = np.maximum(np.maximum(chin, jaw), -mouth)
    canvas.paint(canvas.cover(chin, 0.02) * t.chin_beard, color)
    lip = _arc(fx, fy - t.mouth_height + np.float32(0.075), 0.05, t.mouth_width + np.float32(0.03), 0.042)
    canvas.paint(canvas.cover(lip, 0.01) * t.moustache, color)


def _paint_nose(canvas: Canvas, t: Traits, s: Shots, x: Floats, y: Floats) -> None:
    """Shade the nose: a lit bridge, a shadow beside it, wings and nostrils."""
    tip = t.eye_height + t.nose_length
    x = x - np.float32(0.5) * s.yaw
    bridge = np.maximum(np.abs(x) - np.float32(0.28) * t.nose_width - np.float32(0.10) * np.maximum(y, 0), np.abs(y - tip * np.float32(0.45)) - tip * np.float32(0.55))
    canvas.shade(1 + np.float32(0.10) * canvas.cover(bridge, 0.05))
    wings = _ellipse(x, y - tip, t.nose_width, 0.050)
    canvas.shade(1 - np.float32(0.20) * canvas.cover(wings, 0.03))
    ball = _ellipse(x, y - tip + np.float32(0.022), t.nose_width * np.float32(0.72), 0.045)
    canvas.shade(1 + np.float32(0.22) * canvas.cover(ball, 0.02))
    side = _ellipse(x + np.float32(0.09) * np.where(s.light_x > 0, 1, -1), y - tip * np.float32(0.6), 0.035, tip * np.float32(0.55))
    canvas.shade(1 - np.float32(0.16) * canvas.cover(side, 0.05))
    nostrils = _ellipse(np.abs(x) - np.float32(0.5) * t.nose_width, y - tip - np.float32(0.028), 0.024, 0.014)
    canvas.shade(1 - np.float32(0.55) * canvas.cover(nostrils))


def _paint_eyes(canvas: Canvas, t: Traits, s: Shots, traits: Traits, x: Floats, y: Floats) -> None:
    """Paint eyes and brows."""
    sign = np.where(x > 0, np.float32(1), np.float32(-1))
    ax, ay = np.abs(x) - t.eye_gap, y - t.eye_height
    ay = ay + t.eye_tilt * ax
    half, high = np.float32(0.105) * t.eye_size, np.float32(0.062) * t.eye_size * s.lid
    t2 = np.minimum((ax / half) ** 2, np.float32(1.5))
    eye = np.abs(ay) - high * (1 - t2)
    opening = canvas.cover(eye)
    canvas.paint(opening, WHITE)
    ix = ax * sign - s.gaze
    iris = np.sqrt(ix * ix + ay * ay)
    radius = np.float32(0.056) * t.eye_size
    canvas.paint(opening * canvas.cover(iris - radius), traits.iris)
    canvas.paint(opening * canvas.cover(iris - np.float32(0.5) * radius), DARK)
    spark = _ellipse(ix + np.float32(0.02), ay + np.float32(0.022), 0.016, 0.016)
    canvas.paint(opening * canvas.cover(spark), WHITE)
    lashes = np.where(t.feminine, np.float32(0.024), np.float32(0.014))
    lid = np.abs(ay + high * (1 - t2)) - lashes * (np.float32(1.25) - t2)
    canvas.paint(canvas.cover(lid) * np.float32(0.85), DARK)
    by = y - t.eye_height + np.float32(0.145) * t.eye_size + s.brow
    by = by + t.brow_tilt * ax - np.float32(0.03) * t.brow_arch * (t2 * np.float32(0.5))
    long = (ax + np.float32(0.008)) / (np.float32(0.135))
    brow = np.abs(by) - np.float32(0.027) * t.brow_size * (np.float32(1.15) - np.minimum(long * long, np.float32(1.5)))
    canvas.paint(canvas.cover(brow), traits.hair * np.float32(0.62) + np.float32(0.02))


def _paint_hair(
    canvas: Canvas, t: Traits, s: Shots, traits: Traits, style: dict[str, Floats],
    x: Floats, y: Floats, curls: Floats,
) -> None:
    """Paint the hair in front: a cap over the skull, cut off by the hairline."""
    hx = x - np.float32(0.25) * s.yaw
    rise = np.float32(1) + np.where(y < 0, style["top"], 0)
    wide = t.width * (1 + style["side"])
    cap = _ellipse(hx, y, wide, t.height * rise) - curls
    knot = _ellipse(hx, y + t.height * np.float32(1.16), 0.19, 0.17)
    is_bun = traits.style_index == BUN
    cap = np.where(is_bun[:, None, None], np.minimum(cap, knot), cap)
    u = hx * t.side / t.width
    line = -t.height * style["hairline"] + t.height * (style["vee"] * np.abs(u - style["part"]) + style["sweep"] * u)
    below = y - line - np.float32(0.4) * curls
    face = np.maximum(below, -(np.abs(u) - style["temple"]) * t.width)
    fringe = np.minimum(below, np.float32(1))
    beside = (style["temple"] - np.abs(u)) * t.width
    hair = np.minimum(fringe, np.maximum(beside, y - style["sideburn"]))
    hair = np.maximum(np.maximum(hair, cap), y - np.maximum(style["sideburn"], line))
    alpha = canvas.cover(hair, 0.015) * style["cover"]
    canvas.shade(1 - np.float32(0.22) * canvas.cover(hair - np.float32(0.035), 0.05) * (canvas.cover(_head(hx, y, t))) * style["cover"])
    canvas.paint(alpha, traits.hair)
    del face
    gloss = _ellipse(hx - np.float32(0.25) * s.light_x * wide, y + t.height * np.float32(0.80), 0.26, 0.09)
    canvas.shade(1 + alpha * (np.float32(0.35) * canvas.cover(gloss, 0.15) + curls * 3))


def _paint_glasses(canvas: Canvas, t: Traits, traits: Traits, x: Floats, y: Floats) -> None:
    """Paint lenses, frame, bridge and temples."""
    ax, ay = np.abs(x) - t.eye_gap, y - t.eye_height - np.float32(0.01)
    corner = t.frame_round * np.minimum(t.frame_width, t.frame_height)
    lens = _box(ax, ay, t.frame_width, t.frame_height, corner)
    canvas.paint(canvas.cover(lens) * t.tint, traits.frame * np.float32(0.5) + np.float32(0.05))
    rim = np.abs(lens) - t.frame_line
    bar = np.abs(ay + np.float32(0.03)) - t.frame_line * np.float32(0.8)
    bar = np.maximum(np.maximum(bar, -lens), np.abs(x) - t.width)
    canvas.paint(canvas.cover(np.minimum(rim, bar)) * t.glasses, traits.frame)


def _light(canvas: Canvas, t: Traits, s: Shots, x: Floats, y: Floats) -> None:
    """Light the person as a ball: brighter where it faces the lamp."""
    nx, ny = x / (t.width * np.float32(1.25)), y / (t.height * np.float32(1.2))
    nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, np.float32(0.05)))
    facing = s.light_x * np.clip(nx, -1, 1) + s.light_y * np.clip(ny, -1, 1) + np.float32(0.75) * nz
    light = 1 + s.light * (facing - np.float32(0.60))
    canvas.shade(1 + canvas.person * (light - 1))


def _expose(rgb: Floats, shots: Shots, noise: Draws) -> Image8:
    """Return the exposed image with sensor noise, rounded to bytes."""
    n, _, size, _ = rgb.shape
    bits = noise.bits(shots.noise_key, (3 * size * size + 1) // 2)
    # A sum of four random bytes is nearly normal: mean 510, variance 4 (256^2 - 1) / 12.
    sums = bits.astype("<u8", copy=False).view(np.uint8).reshape(n, -1, 4)[:, : 3 * size * size]
    grain = sums.sum(axis=2, dtype=np.uint16).astype(np.float32) - np.float32(510)
    grain = grain.reshape(n, 3, size, size) * (shots.noise / np.float32(147.8))[:, None, None, None]
    exposed = rgb * shots.gain[:, :, None, None] + grain
    return np.rint(np.clip(exposed, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
