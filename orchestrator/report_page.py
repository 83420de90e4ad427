"""The report's HTML: Jinja fills the template, and the page's script comes with its hash."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

from orchestrator.adaptive import targets_hit
from orchestrator.data_table import packed
from orchestrator.figures import ATTACK_NAMES, attack_name, figure_svg, frontier_figure
from orchestrator.finished_run import Run
from orchestrator.frontier_plot import PlottedTrial
from orchestrator.palette import DARK, LIGHT
from orchestrator.reconstructions import Grid, load_reconstructions, watermark
from orchestrator.records import AttackRecord, TrialRecord
from orchestrator.redaction import public_settings
from orchestrator.report_data import ReportData
from orchestrator.report_format import (
    command,
    interval,
    money,
    number,
    percent,
    picture_uri,
    rate_of,
    seconds,
    unbroken,
    words,
)
from orchestrator.risk import trials_table
from orchestrator.spec import ExperimentSpec, SpaceSpec
from orchestrator.summary import RunSummary, TrialSummary
from orchestrator.trainers_section import trainers_section

FULL_ROWS = 60
"""Trials that get a rich row; all of them are in the table that the script pages through."""

FIRST_ROWS = 25
"""Rows of a long table that are on the page before its script runs."""

THUMBNAILS = 24
"""Trials whose pictures appear in the frontier's tooltips."""


def render(
    run: Run,
    spec: ExperimentSpec,
    data: ReportData,
    figures: Mapping[str, Any],
    plotted: Sequence[PlottedTrial],
    grid: Grid | None,
) -> str:
    """Return the page.

    Args:
        run: whose pictures and records are shown.
        spec: the experiment, with the goals that were asked for.
        data: its numbers.
        figures: by name; each is drawn once and stands in the page as SVG.
        plotted: the frontier's points.
        grid: the reconstructions, None where they are not to be shown.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    control, focus = run.record(data.control), run.record(data.focus)
    attacks = _attacks(run.records)
    levers, shared = _levers(data)
    svgs = dict.fromkeys(
        ("frontier", "narrow", "hypervolume", "settings", "importance", "cost"), ""
    )
    for name, figure in figures.items():
        if name != "grid":  # its pictures stand in a table of their own
            svgs[name] = figure_svg(figure, name, _described(name, plotted))
    if plotted:
        narrow = frontier_figure(plotted, data.goal, narrow=True)
        svgs["narrow"] = figure_svg(narrow, "narrow", _described("frontier", plotted))
    script = files("orchestrator").joinpath("templates/report.js").read_text()
    tables = {"people": data.people, "trials": trials_table(data)}
    embedded = {
        "tables": {name: table.model_dump() for name, table in tables.items()},
        "points": _points(run, data, grid),
    }
    environment = Environment(
        loader=PackageLoader("orchestrator"),
        autoescape=select_autoescape(["html", "html.j2", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (
        attack_name, command, interval, money, number, percent, picture_uri, seconds, unbroken,
        words,
    )  # fmt: skip
    environment.filters |= {function.__name__: function for function in filters}
    return environment.get_template("report.html.j2").render(
        spec=spec,
        settings=public_settings(spec),
        summary=data,
        data=data,
        control=_row(data, data.control),
        focus=_row(data, data.focus),
        control_record=control,
        focus_record=focus,
        adaptive=run.adaptive,
        adaptive_sentence=data.adaptive,
        plain={r.trial_id: r.attacks for r in run.records},
        targets_hit=targets_hit,
        trainers_section=Markup().join(
            trainers_section(folder, run.records) for folder in run.folders
        ),
        attacks=attacks,
        weak=_weak_attacks(control, data),
        levers=levers,
        shared=shared,
        frontier=svgs["frontier"],
        svgs=svgs,
        grid=grid,
        tables=tables,
        first_rows=FIRST_ROWS,
        rate_of=rate_of,
        shown_trials=_most_telling(data),
        protected=data.people.rows,
        recovered=_recovered(focus),
        untried=[n for n in ATTACK_NAMES if n not in _names(run) and "adaptive" not in n],
        landscape=_landscape(run.folders),
        costs=data.costs,
        versions=data.versions,
        light=LIGHT,
        dark=DARK,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        embedded=packed(embedded),
    )


def _described(name: str, plotted: Sequence[PlottedTrial]) -> str:
    if name != "frontier":
        return {
            "hypervolume": "Hypervolume after each trial; its values are in report.json.",
            "importance": "Rank correlation of settings and objectives; the table below has it.",
            "settings": "Parallel coordinates of all trials; the table of all trials has them.",
            "cost": "Seconds by stage; the table below has them.",
        }[name]
    told = [trial for trial in plotted if trial.on_front or trial.role != "other"]
    told = list(plotted) if len(plotted) <= FULL_ROWS else told
    return f"Frontier plot. {'; '.join(trial.tooltip for trial in told)}."


def _attacks(records: Sequence[TrialRecord]) -> list[AttackRecord]:
    """One record of each attack, for its budget: the control's, or else the first trial's."""
    found: dict[str, AttackRecord] = {}
    for record in records:
        for attack in record.attacks:
            found.setdefault(attack.name, attack)
    return list(found.values())


def _names(run: Run) -> set[str]:
    return {attack.name for record in run.records for attack in record.attacks}


def _levers(summary: RunSummary) -> tuple[list[str], dict[str, Any]]:
    """Return the settings that were searched or differ, and those that all DCD trials share."""
    settings = [trial.settings for trial in summary.trials if trial.settings]
    names = dict.fromkeys(name for trial in settings for name in trial)
    searched = set(SpaceSpec.model_fields)
    varied = [
        name
        for name in names
        if name in searched or any(a.get(name) != b.get(name) for a, b in pairwise(settings))
    ]
    same = {name: settings[0].get(name) for name in names if name not in varied}
    return varied, {name: value for name, value in same.items() if value is not None}


def _row(summary: RunSummary, trial_id: str | None) -> TrialSummary | None:
    return next((trial for trial in summary.trials if trial.trial_id == trial_id), None)


def _weak_attacks(control: TrialRecord | None, summary: RunSummary) -> list[str]:
    """Attacks that meet the goal without any defence: they prove nothing about one."""
    return [
        attack.name
        for attack in (control.attacks if control else ())
        if attack.accuracy_at_1.value <= summary.goal.max_attack_accuracy
    ]


def _recovered(focus: TrialRecord | None) -> int:
    """Return how many people any attack got through the defence at least once."""
    hit = targets_hit(focus.attacks) if focus else None
    return hit.successes if hit else 0


def _most_telling(summary: RunSummary) -> list[TrialSummary]:
    """Return the trials that get a rich row, by index: all of few, the best of many."""

    def order(trial: TrialSummary) -> tuple[bool, bool, bool, int, int]:
        first = trial.trial_id in (summary.control, summary.recommended, summary.nearest)
        rank = trial.rank or len(summary.trials)
        return not first, not trial.on_front, trial.defense != "none", rank, trial.index

    chosen = sorted(summary.trials, key=order)[:FULL_ROWS]
    return sorted(chosen, key=lambda trial: trial.index)


def _points(run: Run, data: ReportData, grid: Grid | None) -> dict[str, Any]:
    """Return what the tooltips say of each trial: recipe, cost, and some of its pictures."""
    telling = {t.trial_id for t in _most_telling(data)[:THUMBNAILS]} if grid else set()
    points: dict[str, Any] = {}
    for trial in data.trials:
        if trial.worst_attack is None or trial.clean_accuracy is None:
            continue
        name = "control, no defence" if trial.trial_id == data.control else trial.title
        clean, attack = trial.clean_accuracy.overall, trial.worst_attack
        lines = [
            ("worst attack", f"{percent(attack.value)} ({interval(attack)})"),
            ("clean accuracy", f"{percent(clean.value)} ({interval(clean)})"),
            *((words(k), number(v)) for k, v in trial.settings.items() if v is not None),
            ("training rows", f"{number(trial.inflation or 1.0)} ×"),
            ("time", seconds(trial.seconds)),
        ]
        points[str(trial.index)] = {
            "title": name or f"trial {trial.index}",
            "lines": lines,
            "pictures": _thumbnails(run, trial.trial_id, data.people_shown)
            if trial.trial_id in telling
            else [],
        }
    return points


def _thumbnails(run: Run, trial_id: str, mark: bool) -> list[str]:
    """Return the first choices of the first attack for four people."""
    drawn = load_reconstructions(run.trial_folders(trial_id)[0])
    if not drawn:
        return []
    pictures = next(iter(drawn.values())).pictures[:4, 0]
    return [picture_uri(one, 48) for one in (watermark(pictures) if mark else pictures)]


def _landscape(folders: Sequence[Path]) -> tuple[str, str] | None:
    """Return the landscape's figure as a data URI and its sentence, where a run has them."""
    for folder in folders:
        try:
            verdict = str(json.loads((folder / "landscape.json").read_bytes())["verdict"])
            picture = base64.b64encode((folder / "landscape.png").read_bytes()).decode()
        except (OSError, ValueError, KeyError):
            continue
        return f"data:image/png;base64,{picture}", verdict
    return None
