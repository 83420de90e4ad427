"""The report of runs: one HTML file that opens offline, with figures and a JSON beside it.

Everything on it comes from the trial records and a few files of the runs' folders, so that it can
be written again at any time: `dcdctl report`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.figures import figure_png, frontier_figure, sheet_figure
from orchestrator.finished_run import Run, load_run
from orchestrator.frontier_plot import PlottedTrial
from orchestrator.merged_runs import merge_runs
from orchestrator.open_run import shown_path
from orchestrator.pareto import point_of
from orchestrator.reconstructions import Grid, Shown, reconstruction_grid
from orchestrator.records import TrialRecord
from orchestrator.report_data import ReportData, report_data
from orchestrator.report_figures import (
    cost_figure,
    effects_figure,
    grid_figure,
    growth_figure,
    parallel_figure,
    write_figures,
)
from orchestrator.report_format import percent
from orchestrator.report_page import render
from orchestrator.sensitivity import objectives_of, varied_settings
from orchestrator.spec import GoalSpec
from orchestrator.store import write_atomic
from orchestrator.summary import RunSummary, summarise
from tasks.spec import fingerprint


def write_report(
    *run_dirs: str | Path,
    show_people: bool = False,
    max_drop: float | None = None,
    max_attack: float | None = None,
    hour_price: float | None = None,
    out: Path | None = None,
) -> Path:
    """Write `report.html`, `report.json`, `report.png` and `figures/`.

    Args:
        *run_dirs: folders of runs, with `spec.json` and `trials/`; several become one page.
        show_people: put pictures on the page even where they may be of real people (any data but
            the built-in faces). They are watermarked then.
        max_drop: clean accuracy that may be lost; None is the experiment's goal.
        max_attack: attack accuracy that is accepted; None is the experiment's goal.
        hour_price: of a core or GPU for an hour; None takes the experiment's, or leaves money out.
        out: where to write; None is the run's folder, or of several `<storage>/reports/<key>`.

    Returns:
        The path of the HTML file.

    Raises:
        StoreError: a folder holds no run, or a file of it cannot be read.
        SpecError: the runs do not fit together.
    """
    folders = [Path(folder) for folder in run_dirs]
    run = merge_runs([load_run(folder) for folder in folders])
    goal = _goal(run.spec.sweep.goal, max_drop, max_attack)
    spec = run.spec.model_copy(update={"sweep": run.spec.sweep.model_copy(update={"goal": goal})})
    nobody_real = spec.data.kind == "builtin"
    shown = [shown_path(folder) for folder in folders]
    people_shown = show_people and not nobody_real
    summary = summarise(spec, run.records, shown[0], run.evaluation, people_shown=people_shown)
    price = spec.compute.hour_price if hour_price is None else hour_price
    data = report_data(run, summary, shown, price)
    grid = _grid(run, summary, mark=not nobody_real) if nobody_real or show_people else None
    plotted = _plotted(summary)
    figures = _figures(run, data, plotted, grid)
    page = render(run, spec, data, figures, plotted, grid)
    place = out or _place(folders)
    write_figures(place / "figures", figures)
    write_atomic(place / "report.json", data.model_dump_json(indent=1) + "\n")
    sheet = sheet_figure(plotted, goal, grid, f"{spec.name}. {summary.verdict}")
    write_atomic(place / "report.png", figure_png(sheet))
    write_atomic(place / "report.html", page)
    return place / "report.html"


def _goal(goal: GoalSpec, max_drop: float | None, max_attack: float | None) -> GoalSpec:
    asked = {"max_accuracy_drop": max_drop, "max_attack_accuracy": max_attack}
    return goal.model_copy(update={k: v for k, v in asked.items() if v is not None})


def _place(folders: list[Path]) -> Path:
    if len(folders) == 1:
        return folders[0]
    key = fingerprint(sorted(folder.name for folder in folders))
    return folders[0].absolute().parents[1] / "reports" / key


def _figures(
    run: Run, data: ReportData, plotted: list[PlottedTrial], grid: Grid | None
) -> Mapping[str, Any]:
    """Return the figures that the run has something for, by name."""
    figures = {"frontier": frontier_figure(plotted, data.goal)} if plotted else {}
    if sum(value > 0 for value in data.growth) > 1:
        figures["hypervolume"] = growth_figure(data)
    if data.effects:
        figures["importance"] = effects_figure(data)
    tried = [r for r in run.records if r.defense != "none" and objectives_of(r)]
    if len(tried) > 1 and varied_settings(tried):
        figures["settings"] = parallel_figure(run.records, data)
    if data.costs:
        figures["cost"] = cost_figure(data)
    if grid is not None:
        note = f"{data.name}, run {data.fingerprint}, seed {data.seed}. {grid.note}"
        figures["grid"] = grid_figure(grid.pseudonyms, grid.strongest, note)
    return figures


def _plotted(summary: RunSummary) -> list[PlottedTrial]:
    plotted = []
    for trial in summary.trials:
        if trial.clean_accuracy is None or trial.worst_attack is None or trial.status == "failed":
            continue
        clean, attack = trial.clean_accuracy.overall, trial.worst_attack
        named = trial.title or f"trial {trial.index}"
        named = "control" if trial.trial_id == summary.control else named
        plotted.append(
            PlottedTrial(
                index=trial.index,
                clean=clean,
                attack=attack,
                role="control"
                if trial.trial_id == summary.control
                else "recommended"
                if trial.trial_id == summary.recommended
                else "rival"
                if trial.defense == "none"
                else "other",
                on_front=trial.on_front,
                knee=trial.trial_id == summary.knee,
                tooltip=f"{named}: clean accuracy {percent(clean.value)}, worst attack "
                f"{percent(attack.value)} ({attack.successes} of {attack.n})",
                inflation=trial.inflation or 1.0,
            )
        )
    return plotted


def _grid(run: Run, summary: RunSummary, mark: bool) -> Grid | None:
    """Return the pictures of the control, the trial in focus and the best point of each rival."""
    control, focus = run.record(summary.control), run.record(summary.focus)
    chosen: dict[str, TrialRecord] = {}
    if control is not None:
        chosen["no defence"] = control
    for rival in _rivals(run, summary):
        chosen[rival.title or rival.row] = rival
    if focus is not None:
        chosen[f"DCD trial {focus.index}"] = focus
    home = run.trial_folders(focus.trial_id)[0].parents[1] if focus else run.folder
    shown: dict[str, Shown] = {}
    for heading, record in chosen.items():
        for folder in run.trial_folders(record.trial_id):
            if folder.parents[1] == home:
                shown[heading] = Shown(record, folder)
    return reconstruction_grid(home, shown, mark=mark)


def _rivals(run: Run, summary: RunSummary, most: int = 6) -> list[TrialRecord]:
    """Return of each other defence the point with the lowest worst attack within the drop."""
    control = run.record(summary.control)
    if control is None:
        return []
    floor = point_of(control).clean_accuracy - summary.goal.max_accuracy_drop - 1e-9
    best: dict[str, TrialRecord] = {}
    for record in run.records:
        if record.trial_id == control.trial_id or record.status != "ok" or not record.row:
            continue
        if record.defense != "none" and "+" not in record.row:
            continue
        if record.row not in best or _merit(record, floor) > _merit(best[record.row], floor):
            best[record.row] = record
    return list(best.values())[:most]


def _merit(record: TrialRecord, floor: float) -> tuple[bool, float]:
    clean, attack = point_of(record)
    near = clean >= floor
    return near, -attack if near else clean
