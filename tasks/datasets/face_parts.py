"""The parts of a procedural face, each painted by one function, back to front.

Coordinates: x to the right and y down, -1 to 1 over the image; the head's centre is the origin.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TypeVar

import numpy as np

from tasks.datasets.face_shapes import Canvas, arc, box, bumps, ellipse, smooth
from tasks.datasets.face_shots import Shots
from tasks.datasets.face_traits import STYLE_COLUMNS, STYLE_NAMES, Floats, Traits

Rows = TypeVar("Rows", Traits, Shots)

WHITE = np.array([0.96, 0.95, 0.94], np.float32)
MOUTH = np.array([0.30, 0.07, 0.09], np.float32)
DARK = np.array([0.05, 0.04, 0.04], np.float32)
ROSY = np.array([1.0, 0.66, 0.64], np.float32)  # factor on the skin's colour
BUN = STYLE_NAMES.index("bun")


class Scene:
    """Who is shown, how, and where each pixel is on the head.

    Attributes:
        traits: fields of shape (n, 1, 1), to meet pixel arrays; colours (n, 1, 1, 3).
        shots: likewise.
        style: columns of the hair style, each (n, 1, 1).
        x: on the turned and scaled head, (n, size, size).
        y: likewise.
        fx: on the features, which move with yaw and pitch.
        fy: likewise.
        curls: relief of the hair, 0 where it is straight.
    """

    def __init__(self, traits: Traits, shots: Shots, size: int) -> None:
        self.traits = t = _per_pixel(traits)
        self.shots = s = _per_pixel(shots)
        self.style = {name: t.style[..., i] for i, name in enumerate(STYLE_COLUMNS)}
        grid = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
        dx, dy = grid - s.x, grid[:, None] - s.y
        self.x, self.y = s.cos * dx + s.sin * dy, s.cos * dy - s.sin * dx
        self.fx, self.fy = self.x - s.yaw, self.y - s.pitch
        self.curls = self.style["curl"] * bumps(self.x * 3.4, self.y * 3.4)


def paint_behind(canvas: Canvas, scene: Scene) -> None:
    """Paint clothes, the hair behind the head, and the neck."""
    t, s = scene.traits, scene.shots
    x, y, style = scene.x, scene.y, scene.style
    shoulders = box(x, y - 1.36, 0.86, 0.56, 0.30)
    canvas.paint(canvas.cover(shoulders), s.clothes)
    top, bottom = -t.height * (1 + style["top"]), style["back"]
    half = np.maximum(bottom - top, 0) * 0.5
    width = t.width * style["flare"]
    corner = np.minimum(width, half) * (0.75 + 0.25 * style["round"])
    mane = box(x - 0.15 * s.yaw, y - top - half, width, half, corner) - scene.curls
    shadow = 0.72 + 0.18 * smooth(np.abs(x), 0.35, 0.8)
    hidden = np.where(bottom > top, canvas.cover(mane), 0)
    canvas.paint(hidden, t.hair)
    canvas.shade(1 - hidden * (1 - shadow))
    neck = np.maximum(
        np.abs(x) - 0.50 * t.width - 0.10 * smooth(y, 0.85, 1.1),
        np.abs(y - 0.6) - 0.42,
    )
    canvas.paint(canvas.cover(neck, 0.02), t.skin * 0.80)


def paint_skin(canvas: Canvas, scene: Scene) -> None:
    """Paint ears and face, with blush, eye sockets and the lines of age."""
    t, s = scene.traits, scene.shots
    x, y, fx, fy = scene.x, scene.y, scene.fx, scene.fy
    ears = ellipse(
        np.abs(x + 0.2 * s.yaw) - t.width,
        y - 0.03,
        0.075 * t.ears,
        0.13 * t.ears,
    )
    canvas.paint(canvas.cover(ears), t.skin * 0.88)
    canvas.paint(canvas.cover(head_outline(x - 0.35 * s.yaw, y, t)), t.skin)
    ax = np.abs(fx)
    cheek = ellipse(ax - 0.25, fy - 0.20, 0.15, 0.11)
    canvas.paint(canvas.cover(cheek, 0.16) * t.blush, t.skin * ROSY)
    socket = ellipse(ax - t.eye_gap, fy - t.eye_height + 0.03, 0.15, 0.10)
    canvas.shade(1 - 0.12 * canvas.cover(socket, 0.10))
    old = smooth(t.age, 0.5, 0.95)
    fold = np.abs(ax - 0.11 - 0.42 * (fy - 0.20)) - 0.012
    fold = np.maximum(fold, np.abs(fy - 0.30) - 0.11)
    bags = arc(ax - t.eye_gap, fy - t.eye_height - 0.10, -0.02, 0.11, 0.020)
    brow = arc(fx, np.abs(fy + 0.35) - 0.045, 0.02, 0.24, 0.016)
    for line, depth in ((fold, 0.30), (bags, 0.26), (brow, 0.22)):
        canvas.shade(1 - depth * old * canvas.cover(line, 0.02))


def paint_mouth(canvas: Canvas, scene: Scene) -> None:
    """Paint lips, and the teeth of an open mouth."""
    t, s = scene.traits, scene.shots
    x, y = scene.fx, scene.fy - t.mouth_height
    half = t.mouth_width * (1 + 0.14 * s.smile)
    bend = -0.070 * s.smile
    gap = 0.050 * s.open
    t2 = np.minimum((x / half) ** 2, 1.5)
    middle = y - bend * (t2 - 0.5)
    ends = np.abs(x) - half
    lips = np.maximum(np.abs(middle - 0.2 * t.lips) - (t.lips + gap) * (1 - t2), ends)
    canvas.paint(canvas.cover(lips), t.lip)
    hole = np.maximum(np.abs(middle) - gap * (1 - t2), ends)
    seam = np.maximum(np.abs(middle) - 0.010 * (1 - t2), ends)
    canvas.shade(1 - 0.45 * canvas.cover(seam))
    inside = canvas.cover(hole) * np.minimum(s.open * 4, 1)
    canvas.paint(inside, MOUTH)
    canvas.paint(inside * canvas.cover(middle + 0.1 * gap), WHITE)


def paint_beard(canvas: Canvas, scene: Scene) -> None:
    """Paint beard and moustache over the lower face."""
    t, s = scene.traits, scene.shots
    fx, fy = scene.fx, scene.fy - t.mouth_height
    color = t.hair * 0.86
    jaw = head_outline(scene.x - 0.35 * s.yaw, scene.y, t, longer=t.beard_length)
    ax = np.abs(fx)
    mouth = ellipse(
        fx,
        fy - 0.01,
        t.mouth_width * 1.02,
        0.075 + 0.05 * s.open,
    )
    line = 0.33 - 1.1 * np.maximum(ax - 0.24, 0)
    cheeks = np.maximum(np.maximum(jaw, (line - scene.fy) * 0.7), -mouth)
    canvas.paint(canvas.cover(cheeks, 0.03) * t.cheek_beard, color)
    chin = ellipse(fx, fy - 0.16, 0.19, 0.16 + t.beard_length)
    chin = np.maximum(np.maximum(chin, jaw), -mouth)
    canvas.paint(canvas.cover(chin, 0.02) * t.chin_beard, color)
    lip = arc(fx, fy + 0.075, 0.05, t.mouth_width + 0.03, 0.042)
    canvas.paint(canvas.cover(lip, 0.01) * t.moustache, color)


def paint_nose(canvas: Canvas, scene: Scene) -> None:
    """Shade the nose: a lit bridge, a shadow beside it, wings and nostrils."""
    t, s = scene.traits, scene.shots
    x, y = scene.fx - 0.5 * s.yaw, scene.fy
    tip = t.eye_height + t.nose_length
    bridge = np.maximum(
        np.abs(x) - 0.28 * t.nose_width - 0.10 * np.maximum(y, 0),
        np.abs(y - tip * 0.45) - tip * 0.55,
    )
    canvas.shade(1 + 0.10 * canvas.cover(bridge, 0.05))
    wings = ellipse(x, y - tip, t.nose_width, 0.050)
    canvas.shade(1 - 0.20 * canvas.cover(wings, 0.03))
    ball = ellipse(x, y - tip + 0.022, t.nose_width * 0.72, 0.045)
    canvas.shade(1 + 0.22 * canvas.cover(ball, 0.02))
    side = ellipse(
        x + 0.09 * np.copysign(np.float32(1), s.light_x),
        y - tip * 0.6,
        0.035,
        tip * 0.55,
    )
    canvas.shade(1 - 0.16 * canvas.cover(side, 0.05))
    nostrils = ellipse(np.abs(x) - 0.5 * t.nose_width, y - tip - 0.028, 0.024, 0.014)
    canvas.shade(1 - 0.55 * canvas.cover(nostrils))


def paint_eyes(canvas: Canvas, scene: Scene) -> None:
    """Paint eyes and brows."""
    t, s = scene.traits, scene.shots
    x, y = scene.fx, scene.fy - t.eye_height
    ax = np.abs(x) - t.eye_gap
    ay = y + t.eye_tilt * ax
    half, high = 0.105 * t.eye_size, 0.062 * t.eye_size * s.lid
    t2 = np.minimum((ax / half) ** 2, 1.5)
    ends = np.abs(ax) - half
    eye = np.maximum(np.abs(ay) - high * (1 - t2), ends)
    opening = canvas.cover(eye)
    canvas.paint(opening, WHITE)
    ix = np.copysign(ax, ax * x) - s.gaze
    iris = np.sqrt(ix * ix + ay * ay)
    radius = 0.056 * t.eye_size
    canvas.paint(opening * canvas.cover(iris - radius), t.iris)
    canvas.paint(opening * canvas.cover(iris - 0.5 * radius), DARK)
    spark = ellipse(ix + 0.02, ay + 0.022, 0.016, 0.016)
    canvas.paint(opening * canvas.cover(spark), WHITE)
    lashes = np.float32(0.014) + np.float32(0.010) * t.feminine
    lid = np.abs(ay + high * (1 - t2)) - lashes * (1.25 - t2)
    lid = np.maximum(lid, ends - 0.01)
    canvas.paint(canvas.cover(lid) * 0.85, DARK)
    by = y + 0.145 * t.eye_size + s.brow
    by = by + t.brow_tilt * ax - 0.015 * t.brow_arch * t2
    long = (ax + 0.008) / 0.135
    brow = np.abs(by) - 0.027 * t.brow_size * (1.15 - long * long)
    canvas.paint(canvas.cover(brow), t.hair * 0.62 + 0.02)


def paint_hair(canvas: Canvas, scene: Scene) -> None:
    """Paint the hair in front: a cap over the skull, cut off by the hairline."""
    t, s = scene.traits, scene.shots
    hx, y, style = scene.x - 0.25 * s.yaw, scene.y, scene.style
    rise = 1 + np.where(y < 0, style["top"], 0)
    wide = t.width * (1 + style["side"])
    cap = ellipse(hx, y, wide, t.height * rise) - scene.curls
    knot = ellipse(hx, y + t.height * 1.16, 0.19, 0.17)
    cap = np.where(t.style_index == BUN, np.minimum(cap, knot), cap)
    u = hx * t.side / t.width
    line = -t.height * style["hairline"] + t.height * (
        style["vee"] * np.abs(u - style["part"]) + style["sweep"] * u
    )
    below = y - line - 0.4 * scene.curls
    beside = (style["temple"] - np.abs(u)) * t.width
    hair = np.minimum(below, np.maximum(beside, y - style["sideburn"]))
    hair = np.maximum(np.maximum(hair, cap), y - np.maximum(style["sideburn"], line))
    alpha = canvas.cover(hair, 0.015) * style["cover"]
    on_skin = canvas.cover(head_outline(hx, y, t)) * style["cover"]
    canvas.shade(1 - 0.22 * canvas.cover(hair - 0.035, 0.05) * on_skin)
    canvas.paint(alpha, t.hair)
    gloss = ellipse(hx - 0.25 * s.light_x * wide, y + t.height * 0.80, 0.26, 0.09)
    canvas.shade(1 + alpha * (0.35 * canvas.cover(gloss, 0.15) + 3 * scene.curls))


def paint_glasses(canvas: Canvas, scene: Scene) -> None:
    """Paint lenses, frame, bridge and temples."""
    t = scene.traits
    x, y = scene.fx, scene.fy - t.eye_height - 0.01
    ax, ay = np.abs(x) - t.eye_gap, y
    corner = t.frame_round * np.minimum(t.frame_width, t.frame_height)
    lens = box(ax, ay, t.frame_width, t.frame_height, corner)
    canvas.paint(canvas.cover(lens) * t.tint, t.frame * 0.5 + 0.05)
    rim = np.abs(lens) - t.frame_line
    bar = np.abs(ay + 0.03) - t.frame_line * 0.8
    bar = np.maximum(np.maximum(bar, -lens), np.abs(x) - t.width)
    canvas.paint(canvas.cover(np.minimum(rim, bar)) * t.glasses, t.frame)


def head_outline(x: Floats, y: Floats, t: Traits, longer: Floats | float = 0.0) -> Floats:
    """Return nearly the signed distance to the outline of the head."""
    height = np.where(y > 0, t.height + longer, t.height)
    down = np.clip(y / height, 0, 1)
    width = t.width * (1 - t.jaw * down * down)
    a, b = (x / width) ** 2, (y / height) ** 2
    ball, block = np.sqrt(a + b), np.sqrt(np.sqrt(a * a + b * b))
    square = np.where(y > 0, t.square * smooth(y, 0.0, 0.3), 0.25 * smooth(-y, 0.0, 0.3))
    return np.asarray((ball + square * (block - ball) - 1) * t.width)


def _per_pixel(rows: Rows) -> Rows:
    """Return the same rows with each scalar field of shape (n, 1, 1), to meet pixel arrays."""
    values = {field.name: getattr(rows, field.name) for field in fields(rows)}
    return type(rows)(**{name: value[:, None, None] for name, value in values.items()})
