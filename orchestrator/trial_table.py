"""All trials of a run: a JSON object a line for scripts, a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from orchestrator.records import Accuracy, Rate, TrialRecord
from orchestrator.spec import ExperimentSpec
from orchestrator.status_page import duration
from orchestrator.summary import summarise
from tasks.spec import Spec

SETTING_WIDTH = 13
"""Columns of a terminal that two of the levers take: they are what one reads the table for."""


class TrialRow(Spec):
    """One trial. Rates are {successes, n, value, low, high}, fractions with a 95 % interval."""

    run: str
    index: int = Field(description="0 is the control.")
    trial_id: str
    title: str
    defense: str
    status: Literal["ok", "failed"]
    error: str | None
    settings: dict[str, float | int | str | bool | None]
    seed: int
    clean_accuracy: Accuracy | None
    attacks: dict[str, Rate] = Field(description="Accuracy@1 by attack.")
    surrogate_rate: dict[str, Rate]
    worst_attack: Rate | None
    inflation: float | None
    seconds: float
    cost_s: dict[str, float] = Field(description="Seconds by stage.")
    on_front: bool
    meets_goals: bool
    rank: int | None = Field(description="Among those that meet both goals, best first.")
    recommended: bool


def trial_rows(run: str, spec: ExperimentSpec, records: Sequence[TrialRecord]) -> list[TrialRow]:
    """Return a run's trials by index.

    Args:
        run: name of the run.
        spec: the experiment.
        records: of its trials.
    """
    found = summarise(spec, records, run)
    by_id = {record.trial_id: record for record in records}
    rows = []
    for trial in found.trials:
        record = by_id[trial.trial_id]
        rows.append(
            TrialRow(
                run=run,
                index=trial.index,
                trial_id=trial.trial_id,
                title=trial.title,
                defense=trial.defense,
                status=trial.status,
                error=trial.error,
                settings=trial.settings,
                seed=record.seed,
                clean_accuracy=trial.clean_accuracy,
                attacks={name: attack.accuracy_at_1 for name, attack in trial.attacks.items()},
                surrogate_rate={name: a.surrogate_rate for name, a in trial.attacks.items()},
                worst_attack=trial.worst_attack,
                inflation=trial.inflation,
                seconds=round(trial.seconds, 3),
                cost_s=record.cost_s,
                on_front=trial.on_front,
                meets_goals=trial.meets_goals,
                rank=trial.rank,
                recommended=trial.trial_id == found.recommended,
            )
        )
    return rows


def trials_table(rows: Sequence[TrialRow]) -> RenderableType:
    """Return the trials as a table, rates in percent with their intervals, and what failed why."""
    names = list(dict.fromkeys(name for row in rows for name in row.attacks))
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("trial", no_wrap=True)
    table.add_column("setting", min_width=SETTING_WIDTH, overflow="fold")
    table.add_column("accuracy %")
    for name in names:
        table.add_column(f"{name} @1 %")
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("status", overflow="fold")
    for row in rows:
        name = "control" if row.index == 0 else str(row.index)
        cells = [name, escape(row.title) or ("" if row.index == 0 else _levers(row))]
        if row.clean_accuracy is None:
            cells += [""] * (len(names) + 2)
        else:
            cells.append(_rate(row.clean_accuracy.overall))
            cells += [_rate(row.attacks[one]) if one in row.attacks else "" for one in names]
            cells.append(f"{row.inflation:.1f}x" if row.inflation is not None else "")
        table.add_row(*cells, duration(row.seconds), _standing(row))
    errors = [
        Text(f"trial {row.index} failed: {row.error}", style="red")
        for row in rows
        if row.status == "failed"
    ]
    return Group(table, *errors)


def _standing(row: TrialRow) -> str:
    if row.status == "failed":
        return "[red]failed[/]"
    if row.recommended:
        return "[green]recommended[/]"
    if row.meets_goals:
        return f"rank {row.rank}"
    return "frontier" if row.on_front else "ok"


def _levers(row: TrialRow) -> str:
    own = row.settings
    pairs = (
        ("mislabel_fraction", "curvature_mislabel_fraction"),
        ("target_sigma", "surrogate_sigma"),
    )
    return " ".join(
        "/".join(f"{own[name]:.2g}" for name in pair if isinstance(own.get(name), float | int))
        for pair in pairs
    )


def _rate(rate: Rate) -> str:
    low, high = 100 * rate.low, 100 * rate.high
    return f"{100 * rate.value:.1f} \\[{low:.1f}, {high:.1f}]"
