"""The report of a run: one HTML file that opens offline, with a PNG and a JSON beside it.

Everything on it comes from the trial records and a few files of the run's folder, so that it can be
written again at any time: `dcdctl report`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import ValidationError

from orchestrator.adaptive import AdaptiveTrial, read_adaptive, sentence, targets_hit
from orchestrator.figures import (
    attack_name,
    figure_png,
    figure_svg,
    frontier_figure,
    sheet_figure,
)
from orchestrator.frontier_plot import PlottedTrial
from orchestrator.palette import DARK, LIGHT
from orchestrator.reconstructions import Grid, reconstruction_grid
from orchestrator.records import AttackRecord, Rate, TargetScore, TrialRecord
from orchestrator.redaction import public_settings
from orchestrator.report_format import (
    command,
    interval,
    number,
    percent,
    picture_uri,
    seconds,
    words,
)
from orchestrator.spec import ExperimentSpec, SpaceSpec
from orchestrator.store import records_of, write_atomic
from orchestrator.summary import RunSummary, TrialSummary, reproduce_command, summarise
from orchestrator.trainers_section import trainers_section
from tasks.errors import StoreError


def write_report(run_dir: str | Path, show_people: bool = False) -> Path:
    """Write `report.html`, `report.png` and `report.json` into a run's folder.

    Args:
        run_dir: the folder of one run, with `spec.json` and `trials/`.
        show_people: put pictures on the page even where they may be of real people (any data but
            the built-in faces).

    Returns:
        The path of the HTML file.

    Raises:
        StoreError: the folder holds no run, or a file of it cannot be read.
    """
    run = load_run(Path(run_dir))
    nobody_real = run.spec.data.kind == "builtin"
    summary = summarise(
        run.spec,
        run.records,
        _shown_path(run.folder),
        run.evaluation,
        people_shown=show_people and not nobody_real,
    )
    grid = _grid(run, summary) if nobody_real or show_people else None
    plotted = _plotted(summary)
    sheet = sheet_figure(
        plotted,
        summary.goal,
        [*grid.columns] if grid else [],
        f"{run.spec.name}. {summary.verdict}",
    )
    page = _render(run, summary, plotted, grid)
    write_atomic(run.folder / "report.json", summary.model_dump_json(indent=2) + "\n")
    write_atomic(run.folder / "report.png", figure_png(sheet))
    write_atomic(run.folder / "report.html", page)
    return run.folder / "report.html"


@dataclass(frozen=True)
class Run:
    """What a report is made from."""

    folder: Path
    spec: ExperimentSpec
    records: Sequence[TrialRecord]
    evaluation: Rate | None
    adaptive: Sequence[AdaptiveTrial] = ()

    def record(self, trial_id: str | None) -> TrialRecord | None:
        """Return the record of a trial."""
        return next((r for r in self.records if r.trial_id == trial_id), None)


def load_run(folder: Path) -> Run:
    """Read a run's spec, records, and the evaluation classifier's own accuracy.

    Raises:
        StoreError: the folder holds no run, or a file of it cannot be read.
    """
    if not (folder / "spec.json").is_file():
        raise StoreError(
            f"{folder} holds no run: there is no spec.json in it; name a folder of "
            "<storage>/runs, which `dcdctl sweep` writes"
        )
    evaluation = None
    path = folder / "spec.json"
    try:
        spec = ExperimentSpec.model_validate_json(path.read_bytes())
        path = folder / "evaluation.json"
        if path.is_file():
            evaluation = Rate.model_validate(json.loads(path.read_bytes())["accuracy"])
    except (ValidationError, ValueError, KeyError) as error:
        raise StoreError(
            f"{path} cannot be read: it was damaged, or written by another version; "
            "resume the sweep to write it again"
        ) from error
    return Run(folder, spec, records_of(folder), evaluation, read_adaptive(folder))


def _shown_path(folder: Path) -> str:
    """The folder as one would type it from here; short, and mostly without a home folder's name."""
    folder, here = folder.absolute(), Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


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
                else "other",
                on_front=trial.on_front,
                knee=trial.trial_id == summary.knee,
                tooltip=f"{named}: clean accuracy {percent(clean.value)}, worst attack "
                f"{percent(attack.value)} ({attack.successes} of {attack.n})",
            )
        )
    return plotted


def _grid(run: Run, summary: RunSummary) -> Grid | None:
    control, focus = run.record(summary.control), run.record(summary.focus)
    trials = {}
    if control is not None:
        trials["no defence"] = control
    if focus is not None:
        trials[f"DCD trial {focus.index}"] = focus
    return reconstruction_grid(run.folder, trials)


@dataclass(frozen=True)
class TargetRow:
    """One target class: each attack's score without the defence and with it."""

    pseudonym: str
    control: Mapping[str, TargetScore]
    focus: Mapping[str, TargetScore]

    @property
    def recovered(self) -> bool:
        """Whether any attack got through the defence at least once."""
        return _highest(self.focus) > 0

    @property
    def exposure(self) -> tuple[float, float]:
        """Sorts the worst first: with the defence, then without."""
        return _highest(self.focus), _highest(self.control)


def _highest(scores: Mapping[str, TargetScore]) -> float:
    return max((score.accuracy_at_1.value for score in scores.values()), default=0.0)


def _target_rows(control: TrialRecord | None, focus: TrialRecord | None) -> list[TargetRow]:
    def by_target(record: TrialRecord | None) -> dict[str, dict[str, TargetScore]]:
        scores: dict[str, dict[str, TargetScore]] = {}
        for attack in record.attacks if record else ():
            for score in attack.per_target:
                scores.setdefault(score.pseudonym, {})[attack.name] = score
        return scores

    before, after = by_target(control), by_target(focus)
    rows = [
        TargetRow(name, before.get(name, {}), after.get(name, {})) for name in {**before, **after}
    ]
    return sorted(rows, key=lambda row: row.exposure, reverse=True)


@dataclass(frozen=True)
class StageCost:
    """Seconds that a stage took over all trials."""

    name: str
    total: float
    median: float
    share: float


def _costs(records: Sequence[TrialRecord]) -> list[StageCost]:
    seconds: dict[str, list[float]] = {}
    for record in records:
        for stage, spent in record.cost_s.items():
            seconds.setdefault(stage, []).append(spent)
    whole = sum(map(sum, seconds.values())) or 1.0
    costs = [StageCost(s, sum(t), median(t), sum(t) / whole) for s, t in seconds.items()]
    return sorted(costs, key=lambda cost: -cost.total)


def _attacks(run: Run) -> list[AttackRecord]:
    """One record of each attack, for its budget: the control's, or else the first trial's."""
    found: dict[str, AttackRecord] = {}
    for record in run.records:
        for attack in record.attacks:
            found.setdefault(attack.name, attack)
    return list(found.values())


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
    return varied, {name: settings[0].get(name) for name in names if name not in varied}


def _render(
    run: Run, summary: RunSummary, plotted: Sequence[PlottedTrial], grid: Grid | None
) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    control, focus = run.record(summary.control), run.record(summary.focus)
    attacks = _attacks(run)
    levers, shared = _levers(summary)
    frontier = ""
    if plotted:
        described = "; ".join(trial.tooltip for trial in plotted)
        figure = frontier_figure(plotted, summary.goal)
        frontier = figure_svg(figure, "frontier", f"Frontier plot. {described}.")
    environment = Environment(
        loader=PackageLoader("orchestrator"),
        autoescape=select_autoescape(["html", "html.j2", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (attack_name, command, interval, number, percent, picture_uri, seconds, words)
    environment.filters |= {function.__name__: function for function in filters}
    return environment.get_template("report.html.j2").render(
        spec=run.spec,
        settings=public_settings(run.spec),
        summary=summary,
        control=_row(summary, summary.control),
        focus=_row(summary, summary.focus),
        control_record=control,
        focus_record=focus,
        adaptive=run.adaptive,
        adaptive_sentence=sentence(run.adaptive, run.records),
        plain={r.trial_id: r.attacks for r in run.records},
        targets_hit=targets_hit,
        trainers_section=trainers_section(run.folder, run.records),
        attacks=attacks,
        weak=_weak_attacks(control, summary),
        levers=levers,
        shared=shared,
        frontier=frontier,
        grid=grid,
        targets=_target_rows(control, focus),
        costs=_costs(run.records),
        versions={k: v for record in reversed(run.records) for k, v in record.versions.items()},
        reproduce=reproduce_command(_shown_path(run.folder)),
        light=LIGHT,
        dark=DARK,
    )


def _row(summary: RunSummary, trial_id: str | None) -> TrialSummary | None:
    return next((trial for trial in summary.trials if trial.trial_id == trial_id), None)


def _weak_attacks(control: TrialRecord | None, summary: RunSummary) -> list[str]:
    """Attacks that meet the goal without any defence: they prove nothing about one."""
    return [
        attack.name
        for attack in (control.attacks if control else ())
        if attack.accuracy_at_1.value <= summary.goal.max_attack_accuracy
    ]
