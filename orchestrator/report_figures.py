"""The report's other figures: growth of the hypervolume, settings, effects, cost, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from textwrap import fill
from typing import Any

from orchestrator.figures import GridRow, attack_name, draw_grid, figure_png
from orchestrator.palette import LIGHT
from orchestrator.records import TrialRecord
from orchestrator.report_data import ReportData
from orchestrator.sensitivity import OBJECTIVES, objectives_of, varied_settings
from orchestrator.store import write_atomic


def growth_figure(data: ReportData) -> Any:
    """Return the hypervolume after each trial."""
    figure, axes = _figure(9.2, 2.9, (0.085, 0.2, 0.9, 0.74))
    axes.step(range(len(data.growth)), data.growth, where="post", color=LIGHT["accent"], lw=1.8)
    if len(data.growth) <= 60:
        axes.plot(range(len(data.growth)), data.growth, "o", ms=4, color=LIGHT["accent"])
    axes.set_xlabel("trial, in the order of suggestion", color=LIGHT["muted"], size=10)
    axes.set_ylabel("hypervolume (better ↑)", color=LIGHT["muted"], size=10)
    axes.xaxis.get_major_locator().set_params(integer=True)
    return figure


def effects_figure(data: ReportData) -> Any:
    """Return each setting's rank correlation with each objective, with its interval."""
    settings = list(dict.fromkeys(effect.setting for effect in data.effects))
    shown = [o for o in OBJECTIVES if any(e.objective == o for e in data.effects)]
    height = 0.95 + 0.42 * len(settings)
    figure, _ = _figure(9.2, height, None)
    width = 0.77 / len(shown)
    for j, objective in enumerate(shown):
        axes = figure.add_axes(
            (0.22 + width * j, 0.55 / height, width - 0.03, 1 - 0.95 / height)
        )  # fmt: skip
        _quiet(axes)
        axes.axvline(0, color=LIGHT["muted"], lw=0.8)
        for i, setting in enumerate(settings):
            for effect in data.effects:
                if (effect.setting, effect.objective) == (setting, objective):
                    colour = LIGHT["accent" if effect.settled else "trial"]
                    axes.plot((effect.low, effect.high), (-i, -i), color=colour, lw=1.6)
                    face = colour if effect.settled else LIGHT["card"]
                    axes.plot(effect.rho, -i, "o", ms=7, color=colour, mfc=face)
        axes.set_xlim(-1.05, 1.05)
        axes.set_ylim(-len(settings) + 0.4, 0.6)
        axes.set_yticks([-i for i in range(len(settings))])
        axes.set_yticklabels([s.replace("_", " ") for s in settings] if j == 0 else [])
        axes.set_title(objective, size=10, color=LIGHT["ink"], loc="left")
        axes.set_xlabel("rank correlation", size=9, color=LIGHT["muted"])
    return figure


def parallel_figure(records: Sequence[TrialRecord], data: ReportData) -> Any:
    """Return parallel coordinates: a line a trial over its settings and objectives."""
    good = [r for r in records if r.defense != "none" and r.status == "ok" and objectives_of(r)]
    settings = varied_settings(good)
    table = [
        [float(r.settings[s] or 0.0) for s in settings] + list(objectives_of(r) or ()) for r in good
    ]
    ends = [(min(column), max(column)) for column in zip(*table, strict=True)]
    figure, axes = _figure(9.2, 3.7, (0.07, 0.08, 0.86, 0.66))
    meets = {trial.trial_id for trial in data.trials if trial.meets_goals}
    many = len(good) > 60
    for record, row in sorted(
        zip(good, table, strict=True),
        key=lambda pair: (pair[0].trial_id == data.recommended, pair[0].trial_id in meets),
    ):
        heights = [
            0.5 if high == low else (value - low) / (high - low)
            for value, (low, high) in zip(row, ends, strict=True)
        ]
        role = "accent" if record.trial_id == data.focus else "control"
        ours = record.trial_id == data.focus or record.trial_id in meets
        axes.plot(
            range(len(heights)), heights, color=LIGHT[role if ours else "trial"],
            lw=2.6 if record.trial_id == data.focus else 1.0,
            alpha=1.0 if record.trial_id == data.focus else 0.18 if many else 0.6,
            ls="-" if record.trial_id == data.focus or record.trial_id not in meets else "--",
        )  # fmt: skip
    names = [s.replace("_", " ") for s in settings] + list(OBJECTIVES)
    for x, (name, (low, high)) in enumerate(zip(names, ends, strict=True)):
        axes.axvline(x, color=LIGHT["line"], lw=1, zorder=0)
        axes.text(x, 1.05, f"{high:.3g}", ha="center", size=8.5, color=LIGHT["muted"])
        axes.text(x, -0.11, f"{low:.3g}", ha="center", size=8.5, color=LIGHT["muted"])
        axes.text(x, 1.13, fill(name, 14), ha="center", va="bottom", size=9, color=LIGHT["ink"])
    axes.set_ylim(-0.05, 1.03)
    axes.set_axis_off()
    return figure


def cost_figure(data: ReportData) -> Any:
    """Return the seconds of each stage as bars."""
    costs = data.costs[:12]
    figure, axes = _figure(9.2, 0.7 + 0.32 * len(costs), None)
    axes = figure.add_axes(
        (0.27, 0.45 / figure.get_figheight(), 0.7, 1 - 0.6 / figure.get_figheight())
    )
    _quiet(axes)
    axes.barh(
        [-i for i in range(len(costs))], [c.total for c in costs], color=LIGHT["trial"], height=0.6
    )
    axes.set_yticks([-i for i in range(len(costs))], [attack_name(c.name) for c in costs])
    axes.set_xlabel("seconds over all trials", color=LIGHT["muted"], size=9)
    return figure


def grid_figure(pseudonyms: Sequence[str], rows: Sequence[GridRow], note: str) -> Any:
    """Return the reconstruction grid as one picture: a row for each source, a column a person."""
    figure, _ = _figure(2.1 + 0.98 * len(pseudonyms), 0.95 + 1.14 * len(rows), None)
    height = figure.get_figheight()
    draw_grid(figure, pseudonyms, rows, top=1 - 0.32 / height, bottom=0.55 / height)
    figure.text(0.02, 0.1 / height, note, size=8, color=LIGHT["muted"])
    return figure


def write_figures(folder: Path, figures: Mapping[str, Any]) -> None:
    """Write every figure as a PNG and as an SVG file whose text stays text."""
    import matplotlib

    for name, figure in figures.items():
        buffer = BytesIO()
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        write_atomic(folder / f"{name}.svg", buffer.getvalue())
        write_atomic(folder / f"{name}.png", figure_png(figure))


def _figure(width: float, height: float, box: tuple[float, float, float, float] | None) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=LIGHT["card"])
    axes = None if box is None else figure.add_axes(box)
    if axes is not None:
        _quiet(axes)
    return figure, axes


def _quiet(axes: Any) -> None:
    axes.set_facecolor(LIGHT["card"])
    axes.tick_params(colors=LIGHT["muted"], length=0, pad=5, labelsize=9)
    axes.grid(color=LIGHT["line"], linewidth=0.6, axis="x")
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
