"""The landscape of a trial and its control as a picture: the paper's Figure 2, measured."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from orchestrator.figures import figure_png
from orchestrator.palette import LIGHT

if TYPE_CHECKING:
    from orchestrator.landscape import Around, Landscape
    from orchestrator.records import Estimate

COLOURS = {"target": "alarm", "target_trained": "control", "surrogate": "accent"}
WORDS = {"target": "target, test", "target_trained": "target, trained on", "surrogate": "surrogate"}


@dataclass(frozen=True)
class Drawing:
    """A matplotlib figure that can be written."""

    figure: Any

    def png(self) -> bytes:
        """Return it as a PNG."""
        return figure_png(self.figure)

    def svg(self) -> bytes:
        """Return it as an SVG file whose text stays text; the same figure gives the same bytes."""
        import matplotlib

        buffer = BytesIO()
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "landscape"}):
            self.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        return buffer.getvalue()


def landscape_figure(found: Landscape) -> Drawing:
    """Draw the loss along random directions, and the traces with their intervals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 4.2), facecolor=LIGHT["card"], layout="constrained")
    left, right, traces = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
    top = 1.05 * max(max(a.along) for m in (found.control, found.defended) for a in m.values())
    models = (("no defence", found.control), (f"DCD trial {found.trial}", found.defended))
    for axes, (title, around) in zip((left, right), models, strict=True):
        for kind, one in around.items():
            colour = LIGHT[COLOURS[kind]]
            axes.plot(found.radii, one.along, color=colour, marker="o", ms=3, label=WORDS[kind])
        axes.set(title=title, xlabel="sigma of the noise, unit range", ylim=(0, top or 1))
    left.set_ylabel("mean loss of the target's label")
    left.legend(frameon=False, fontsize=8)
    right.tick_params(labelleft=False)
    _draw_traces(traces, models)
    for axes in (left, right, traces):
        axes.title.set_size(10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8, colors=LIGHT["muted"])
    return Drawing(figure)


def _draw_traces(axes: Any, models: tuple[tuple[str, dict[str, Around]], ...]) -> None:
    """Draw each trace of each model as a dot with its interval; filled is DCD."""
    ticks: list[str] = []
    for kind in COLOURS:
        for part in ("pixel", "latent"):
            shown: list[tuple[int, Estimate]] = []
            for i, (_, around) in enumerate(models):
                estimate = getattr(around[kind], f"{part}_trace")
                if estimate is not None:
                    shown.append((i, estimate))
            for i, estimate in shown:
                y, colour = -len(ticks) - 0.25 * i, LIGHT[COLOURS[kind]]
                if estimate.low is not None and estimate.high is not None:
                    axes.plot((estimate.low, estimate.high), (y, y), color=colour, lw=1.2)
                axes.plot(
                    estimate.value, y, "o", ms=5, color=colour, mfc=colour if i else LIGHT["card"]
                )
            if shown:
                ticks.append(f"{WORDS[kind]}\n{'pixels' if part == 'pixel' else 'along w'}")
    axes.set_yticks([-i - 0.12 for i in range(len(ticks))], ticks)
    axes.set_xscale("symlog", linthresh=1.0)
    axes.axvline(0, color=LIGHT["line"], lw=1, zorder=0)
    axes.set(title="trace of the Hessian, 95 %; filled: DCD")
