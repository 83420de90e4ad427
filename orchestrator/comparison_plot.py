"""The curves of a comparison: attack accuracy against clean accuracy, a line for each defence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.landscape_plot import Drawing
from orchestrator.palette import LIGHT

if TYPE_CHECKING:
    from orchestrator.comparison import Cell, Comparison, Row

COLOURS = (
    *("#3b6fb6", "#c2661d", "#7a4fa3", "#4d8f3a", "#b03a6b", "#8a6d1f", "#2f8f9d", "#8c564b"),
    *("#5b6470", "#a05cc0", "#1f5f4f"),
)
MARKERS = "osD^vP*X<>p"


class Style(NamedTuple):
    """How a row is drawn."""

    colour: str
    marker: str
    hollow: bool


def styles_of(names: Sequence[str]) -> dict[str, Style]:
    """Return a style for each row; they are hollow where the colours begin again."""
    many = len(COLOURS)
    return {
        name: Style(COLOURS[i % many], MARKERS[i % many], i // many % 2 == 1)
        for i, name in enumerate(names)
    }


def curves_figure(found: Comparison) -> Drawing:
    """Draw one panel for each data set and attack; intervals are 95 %, over images and people.

    A line joins the points of a row in the order of their strength; a row of one point has none.
    """
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys((c.data, c.attack) for row in found.rows for c in row.cells))
    names = list(dict.fromkeys(row.row for row in found.rows))
    columns = 2 if len(panels) in (2, 4) else min(3, max(1, len(panels)))
    lines = max(1, -(-len(panels) // columns))
    height = 3.6 * lines + 0.3 * -(-len(names) // 4) + 0.3
    figure = Figure(
        figsize=(4.4 * columns + 0.6, height), facecolor=LIGHT["card"], layout="constrained"
    )
    grid = figure.subplots(lines, columns, squeeze=False)
    for place in grid.flat[len(panels) :]:
        place.set_axis_off()
    handles: dict[str, Any] = {}
    styles = styles_of(names)
    for axes, panel in zip(grid.flat, panels, strict=False):
        for name in names:
            points = _points([row for row in found.rows if row.row == name], panel)
            if points:
                handles[name] = _draw(axes, points, styles[name], name)
        axes.set_title(", ".join(panel), fontsize=10)
        axes.set_xlabel("clean accuracy, %", fontsize=9)
        axes.set_ylabel("attack accuracy, %", fontsize=9)
        axes.set_ylim(-3, 103)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8, colors=LIGHT["muted"])
        axes.grid(color=LIGHT["line"], lw=0.6)
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=4,
        frameon=False,
        fontsize=8,
    )
    return Drawing(figure)


def _points(rows: list[Row], panel: tuple[str, str]) -> list[Cell]:
    """Return a row's points in the order of their strength."""
    rows = sorted(rows, key=lambda row: (row.strength is None, row.strength or 0.0))
    return [cell for row in rows for cell in row.cells if (cell.data, cell.attack) == panel]


def _draw(axes: Any, points: list[Cell], style: Style, name: str) -> Any:
    ours = name == "dcd"
    x = [100 * cell.clean_accuracy.value for cell in points]
    y = [100 * cell.attack_accuracy.value for cell in points]
    sides = [_ends(cell.attack_accuracy.value, cell.attack_accuracy) for cell in points]
    across = [_ends(cell.clean_accuracy.value, cell.clean_accuracy) for cell in points]
    return axes.errorbar(
        x,
        y,
        xerr=list(zip(*across, strict=True)),
        yerr=list(zip(*sides, strict=True)),
        color=LIGHT["accent"] if ours else LIGHT["control"] if name == "none" else style.colour,
        marker=style.marker,
        mfc=LIGHT["card"] if style.hollow and not ours else None,
        ms=8 if ours else 5,
        lw=1.4,
        elinewidth=0.6,
        zorder=4 if ours else 3,
    )


def _ends(value: float, interval: Any) -> tuple[float, float]:
    """Return how far an interval reaches to both sides, in percent; nothing where it is unknown."""
    low = value if interval.low is None else interval.low
    high = value if interval.high is None else interval.high
    return max(0.0, 100 * (value - low)), max(0.0, 100 * (high - value))
