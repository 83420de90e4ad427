"""The frontier plot: every trial on the plane of the two objectives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.palette import LIGHT
from orchestrator.records import Rate
from orchestrator.spec import GoalSpec

Box = tuple[float, float, float, float]
"""Left, bottom, right, top, in points."""


@dataclass(frozen=True)
class PlottedTrial:
    """One trial on the frontier plot."""

    index: int
    clean: Rate
    attack: Rate
    role: Literal["control", "recommended", "rival", "other"]
    on_front: bool
    knee: bool
    tooltip: str
    inflation: float = 1.0


def draw_frontier(axes: Any, trials: Sequence[PlottedTrial], goal: GoalSpec) -> None:
    """Draw clean accuracy against attack accuracy, with 95 % intervals.

    The vertical axis has a square-root scale: the protected trials lie within a few percent of
    zero, and a linear axis would pile them up far under the control.

    Args:
        axes: matplotlib axes in their final place, since labels are placed in its pixels.
        trials: at least one, all with results.
        goal: drawn as the region where both goals are met, when the control is among the trials.
    """
    _scale_axes(axes, trials, goal)
    words = _draw_goal(axes, trials, goal)
    # Stairs: a step is what the trials reach, a slope between them would promise what none did.
    front = sorted((t.clean.value, t.attack.value) for t in trials if t.on_front)
    axes.step(*zip(*front, strict=True), where="pre", color=LIGHT["trial"], lw=1.2, zorder=2)
    plain = [t for t in trials if t.role == "other" and not t.on_front and not t.knee]
    named = list(trials) if len(trials) <= FEW else [t for t in trials if t not in plain]
    if len(named) < len(trials):
        _draw_crowd(axes, plain)
    for trial in named:
        _draw_trial(axes, trial)
    _label_trials(axes, named, words)


GOAL_WIDTH = 72.0
"""Of the words at the region where both goals are met, in points."""

FEW = 40
"""Trials up to which each has its interval and number; of more, those that matter have them."""


@dataclass(frozen=True)
class _Style:
    """How a trial looks: colour of `LIGHT`, area in points², open or filled, which is on top."""

    colour: str
    size: float
    filled: bool
    order: int
    marker: str = "o"


def _style(trial: PlottedTrial) -> _Style:
    # The area grows with the training rows, within what can be told apart.
    size = 28 + 14 * min(trial.inflation, 8.0)
    if trial.role == "recommended":
        return _Style("accent", max(size, 90), True, 6)
    if trial.role == "control":
        return _Style("control", 80, trial.on_front, 5)
    if trial.role == "rival":
        return _Style("alarm", size, trial.on_front, 4, "D")
    return _Style("trial", size, True, 4) if trial.on_front else _Style("trial", size, False, 3)


def _scale_axes(axes: Any, trials: Sequence[PlottedTrial], goal: GoalSpec) -> None:
    import numpy as np
    from matplotlib.ticker import FuncFormatter

    low, high = min(t.clean.low for t in trials), max(t.clean.high for t in trials)
    low = min([low, *(_goal_left(t, goal) for t in trials if t.role == "control")])
    margin = 0.05 * max(high - low, 0.01)
    axes.set_xlim(low - margin, high + margin)
    top = 1.1 * max([goal.max_attack_accuracy, *(t.attack.high for t in trials)])
    axes.set_yscale("function", functions=(lambda y: np.sqrt(np.clip(y, 0, None)), np.square))
    axes.set_yticks([t for t in (0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0) if t <= top])
    axes.set_ylim(-0.0004, top)
    percent = FuncFormatter(lambda share, _: f"{100 * share:.4g} %" if share <= 1 else "")
    axes.xaxis.set_major_formatter(percent)
    axes.yaxis.set_major_formatter(percent)
    axes.set_facecolor(LIGHT["card"])
    axes.set_xlabel("clean accuracy, all classes  (better →)", color=LIGHT["muted"], size=10)
    axes.set_ylabel("(← better)  worst attack, accuracy@1", color=LIGHT["muted"], size=10)
    axes.tick_params(colors=LIGHT["muted"], length=0, pad=6, labelsize=9)
    axes.grid(color=LIGHT["line"], linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def _goal_left(control: PlottedTrial, goal: GoalSpec) -> float:
    return control.clean.value - goal.max_accuracy_drop


def _draw_goal(axes: Any, trials: Sequence[PlottedTrial], goal: GoalSpec) -> list[Box]:
    """Shade where both goals are met; return the box of the words above it."""
    control = next((t for t in trials if t.role == "control"), None)
    if control is None:
        return []
    left, right = _goal_left(control, goal), axes.get_xlim()[1]
    bottom, top = axes.get_ylim()[0], goal.max_attack_accuracy
    axes.fill_between([left, right], bottom, top, color=LIGHT["goal"], lw=0, zorder=0.6)
    axes.plot([left, left, right], [bottom, top, top], color=LIGHT["accent"], lw=0.9, dashes=(4, 3))
    points = 72 / axes.figure.dpi
    x, y = axes.transData.transform((left, top)) * points
    # Where the region is narrow, the words end at the frame instead of beyond it.
    x = min(x + 3, axes.bbox.x1 * points - GOAL_WIDTH)
    axes.annotate(
        "both goals met", (x, y + 5), xycoords="figure points", size=8.5, color=LIGHT["accent"],
    )  # fmt: skip
    return [(x, y + 5, x + GOAL_WIDTH, y + 15)]


def _draw_crowd(axes: Any, trials: Sequence[PlottedTrial]) -> None:
    """Draw dominated trials small, without intervals; the tables have them."""
    axes.scatter(
        [t.clean.value for t in trials], [t.attack.value for t in trials], s=14, lw=0.8,
        edgecolor=LIGHT["trial"], facecolor="none", alpha=0.6, zorder=3,
    )  # fmt: skip


def _draw_trial(axes: Any, trial: PlottedTrial) -> None:
    style = _style(trial)
    colour = LIGHT[style.colour]
    x, y = trial.clean, trial.attack
    faint: dict[str, Any] = {
        "color": colour,
        "alpha": 0.45 if style.filled else 0.2,
        "lw": 1.1,
        "zorder": style.order - 0.5,
    }
    axes.plot([x.low, x.high], [y.value, y.value], **faint)
    axes.plot([x.value, x.value], [y.low, y.high], **faint)
    if trial.knee:
        axes.scatter(
            [x.value], [y.value], s=style.size * 2.6, facecolor="none", edgecolor=colour, lw=1.2,
            zorder=style.order, clip_on=False,
        )  # fmt: skip
    axes.scatter(
        [x.value], [y.value], s=style.size, edgecolor=colour, lw=1.4, zorder=style.order,
        facecolor=colour if style.filled else LIGHT["card"], clip_on=False,
        gid=f"trial-{trial.index}|{trial.tooltip}", marker=style.marker,
    )  # fmt: skip


CROWDED = 0.2
"""Share of a label that may cover others, or lie outside, before a dominated trial has none."""

_PLACES = ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1.2), (0, -1.2), (1, 2.5), (-1, 2.5))
"""Where a label may stand, in gaps from its point: right and above first."""


def _label_trials(axes: Any, trials: Sequence[PlottedTrial], taken: list[Box]) -> None:
    """Write each trial's number where it hides least, the most important trial first."""
    scale = 72 / axes.figure.dpi  # pixels to points
    frame = tuple(axes.bbox.extents * scale)
    at = {
        t.index: axes.transData.transform((t.clean.value, t.attack.value)) * scale for t in trials
    }
    taken = taken + [(x - 5, y - 5, x + 5, y + 5) for x, y in at.values()]
    for trial in sorted(trials, key=lambda t: (-_style(t).order, t.index)):
        # A rival's mark says what it is, and there may be dozens.
        words: list[str] = [] if trial.role in ("other", "rival") else [trial.role]
        words += ["knee"] if trial.knee else []
        text = ", ".join([*([] if trial.role == "control" else [str(trial.index)]), *words])
        x, y = at[trial.index]
        width, height = 5.2 * len(text) + 2, 10.0
        gap = 12 if trial.knee or trial.role == "recommended" else 8
        corners = [
            (x + dx * gap - width * (1 - dx) / 2, y + dy * gap - height * (1 - dy) / 2)
            for dx, dy in _PLACES
        ]
        boxes: list[Box] = [(left, low, left + width, low + height) for left, low in corners]
        hidden = [sum(_overlap(b, o) for o in taken) + _outside(b, frame) for b in boxes]
        best = boxes[hidden.index(min(hidden))]
        if min(hidden) > CROWDED * width * height and not (words or trial.on_front):
            continue  # the table below and a pointer on the mark have its number
        taken.append(best)
        axes.annotate(
            text, (trial.clean.value, trial.attack.value), xytext=(best[0] - x, best[1] - y),
            textcoords="offset points", size=8.5, color=LIGHT[_style(trial).colour],
            weight="bold" if words else "normal", zorder=7,
        )  # fmt: skip


def _overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


def _outside(box: Box, frame: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, frame)
