"""The pictures of a run: the frontier, reconstructions, and the sheet beside the report.

Matplotlib draws them all, on its Agg canvas and without pyplot, so that they work in any thread and
leave no global state. It is imported where it is used: it takes half a second.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO, StringIO
from textwrap import fill
from typing import TYPE_CHECKING, Any

from orchestrator.frontier_plot import PlottedTrial, draw_frontier
from orchestrator.palette import LIGHT
from orchestrator.spec import GoalSpec
from tasks.types import Image8

if TYPE_CHECKING:
    from orchestrator.reconstructions import Grid

ATTACK_NAMES = {
    "ppa": "PPA",
    "mirror-w": "MIRROR, white box",
    "mirror-b": "MIRROR, black box",
    "gmi": "GMI",
    "if-gmi": "IF-GMI",
    "brep-mi": "BREP-MI",
    "plg-mi": "PLG-MI",
    "lomma": "LOMMA",
    "adaptive-modes": "adaptive: every mode",
    "adaptive-reject": "adaptive: not the first mode",
    "adaptive-sharp": "adaptive: sharp minima",
    "adaptive-level": "adaptive: held confidence",
    "adaptive-attribute": "adaptive: known attributes",
    "adaptive-views": "adaptive: averaged views",
}


def attack_name(name: str) -> str:
    """Return an attack's name as people write it; any other word as it is."""
    return ATTACK_NAMES.get(name, name)


@dataclass(frozen=True)
class GridRow:
    """One row of the reconstruction grid: a picture of each target class.

    Attributes:
        heading: what the pictures are, such as "no defence".
        pictures: uint8, shape (T, H, W, 3).
        verdicts: what the evaluation classifier says of each; "" where it was not asked.
        attack: who drew them; "" for examples of the data.
        first: whether the row opens the group of its attack.
    """

    heading: str
    pictures: Image8
    verdicts: Sequence[str]
    attack: str = ""
    first: bool = False

    @property
    def title(self) -> str:
        """The heading with the attack's name."""
        return f"{attack_name(self.attack)}, {self.heading}" if self.attack else self.heading


def frontier_figure(trials: Sequence[PlottedTrial], goal: GoalSpec, narrow: bool = False) -> Any:
    """Return the frontier plot as a `matplotlib.figure.Figure`; `narrow` is for a phone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 5.0) if narrow else (9.2, 5.0), facecolor=LIGHT["card"])
    box = (0.165, 0.115, 0.81, 0.865) if narrow else (0.085, 0.115, 0.9, 0.865)
    draw_frontier(figure.add_axes(box), trials, goal)
    return figure


def sheet_figure(
    trials: Sequence[PlottedTrial], goal: GoalSpec, pictures: Grid | None, title: str
) -> Any:
    """Draw the frontier with the reconstructions under it: what `report.png` shows.

    Args:
        trials: as for `draw_frontier`, but may be empty.
        goal: as for `draw_frontier`.
        pictures: the reconstruction grid; its strongest attack is drawn.
        title: a sentence over the sheet.
    """
    from matplotlib.figure import Figure

    rows = len(pictures.strongest) if pictures else 0
    plot, grid = (5.0 if trials else 0.0), (0.75 + 1.3 * rows if rows else 0.0)  # inches
    height = 1.0 + plot + grid
    figure = Figure(figsize=(9.2, height), facecolor=LIGHT["card"])
    figure.text(
        0.03, 1 - 0.2 / height, fill(title, 88), va="top", size=12.5, color=LIGHT["ink"]
    )  # fmt: skip
    if trials:
        box = (0.085, (grid + 0.6) / height, 0.9, (plot - 0.65) / height)
        draw_frontier(figure.add_axes(box), trials, goal)
    if pictures and rows:
        top, bottom = (grid - 0.4) / height, 0.3 / height
        draw_grid(figure, pictures.pseudonyms, pictures.strongest, top, bottom)
    return figure


def reconstructions_png(pictures: Image8) -> bytes:
    """Return one PNG of all reconstructions of an attack: a row for each target, best first.

    Args:
        pictures: uint8, shape (T, n, H, W, 3).
    """
    import numpy as np

    targets, kept, height, width, _ = pictures.shape
    gap = 2
    sheet = np.full((targets * (height + gap), kept * (width + gap), 3), 255, np.uint8)
    for i in range(targets):
        for j in range(kept):
            y, x = i * (height + gap), j * (width + gap)
            sheet[y : y + height, x : x + width] = pictures[i, j]
    return picture_png(sheet)


def picture_png(picture: Image8, max_side: int = 1600) -> bytes:
    """Return a PNG of one picture, uint8 (H, W, 3), made smaller if a side is above `max_side`."""
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((max_side, max_side))
    buffer = BytesIO()
    image.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def figure_png(figure: Any) -> bytes:
    """Return a figure as a PNG of 160 dots per inch."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=160, metadata={"Software": None})
    return buffer.getvalue()


def figure_svg(figure: Any, name: str, label: str) -> str:
    """Return a figure as an `<svg>` element to stand inside an HTML page.

    Colours become CSS variables, so that the page's dark scheme reaches into the figure; text stays
    text; an artist's gid of the form `trial-3|some words` becomes a tooltip. Nothing in it refers
    to anything outside the page.

    Args:
        figure: a matplotlib figure drawn in colours of `LIGHT`.
        name: prefix that makes the ids unique on the page.
        label: what the figure shows, for those who cannot see it.
    """
    import matplotlib

    buffer = StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    opening = f'<svg role="img" aria-label="{escape(label)}" '
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', lambda m: f"{opening}{m[1]}>", svg)
    svg = re.sub(r'<g id="(trial-\d+)\|([^"]*)">', r'<g id="\1"><title>\2</title>', svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\1{name}-", svg)
    for role, colour in LIGHT.items():
        svg = svg.replace(colour, f"var(--{role})")
    return svg


def draw_grid(
    figure: Any, pseudonyms: Sequence[str], rows: Sequence[GridRow], top: float, bottom: float
) -> None:
    """Draw the grid of the paper's Figure 3 into a figure, between two heights of it.

    A row is where the pictures come from, a column is a person; below each picture stands what the
    evaluation classifier says of it.
    """
    across = len(pseudonyms)
    left = 1.55 / figure.get_figwidth()
    grid = figure.add_gridspec(
        len(rows), across, left=left, right=0.99, bottom=bottom, top=top, hspace=0.24, wspace=0.06
    )
    for i, row in enumerate(rows):
        for j, verdict in enumerate(row.verdicts):
            cell = figure.add_subplot(grid[i, j])
            cell.imshow(row.pictures[j])
            cell.set_axis_off()
            cell.set_title(
                verdict, size=7.5, pad=2, y=-0.19, color=LIGHT[_VERDICT_COLOURS[verdict]]
            )
            if i == 0:
                cell.text(
                    0.5, 1.07, pseudonyms[j], transform=cell.transAxes, ha="center",
                    size=7, color=LIGHT["muted"],
                )  # fmt: skip
            if j == 0:
                cell.text(
                    -0.1, 0.5, fill(row.title, 18), transform=cell.transAxes, ha="right",
                    va="center", size=9, color=LIGHT["ink"],
                )  # fmt: skip


_VERDICT_COLOURS = {"target": "alarm", "surrogate": "accent", "other": "muted", "": "muted"}
