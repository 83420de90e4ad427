"""The report as data: what `report.json` holds, under a schema with a version."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import median

from pydantic import Field

from orchestrator.adaptive import sentence
from orchestrator.data_table import DataTable
from orchestrator.finished_run import Run
from orchestrator.forgotten import read_forgotten
from orchestrator.pareto import hypervolume_growth, point_of
from orchestrator.records import TrialRecord
from orchestrator.risk import people_table
from orchestrator.sensitivity import Effect, effects
from orchestrator.spending import read_note
from orchestrator.summary import REFERENCE, RunSummary, reproduce_command
from tasks.spec import Spec


class StageCost(Spec):
    """What a stage took over all trials."""

    name: str
    total: float = Field(description="Seconds, of every trial together.")
    median: float = Field(description="Seconds of the median trial.")
    share: float
    money: float | None = Field(description="At the price of an hour that was given.")


class ReportData(RunSummary):
    """Everything on the page that is a number. Rates are fractions, or counts k of n."""

    runs: tuple[str, ...] = Field(description="Fingerprints of the runs in it.")
    seeds: tuple[int, ...]
    growth: tuple[float, ...] = Field(description="Hypervolume after each trial, by index.")
    effects: tuple[Effect, ...] = Field(description="Settings against objectives.")
    costs: tuple[StageCost, ...]
    hour_price: float | None
    budget: str | None = Field(description="That a budget ended the search, and where it stood.")
    forgotten: str | None = Field(None, description="What was removed of the runs, and why.")
    people: DataTable = Field(description="A row for each protected person, worst first.")
    adaptive: str | None = Field(description="What an attacker who knows of DCD reaches.")
    versions: dict[str, str]
    reproduce: tuple[str, ...] = Field(description="Commands that run the sweeps again.")


def report_data(
    run: Run, summary: RunSummary, shown: Sequence[str], hour_price: float | None
) -> ReportData:
    """Return the report's numbers.

    Args:
        run: one run, or several merged.
        summary: of its records.
        shown: the runs' folders as a command line would give them.
        hour_price: of a core or GPU for an hour; None leaves money out.
    """
    records = sorted(run.records, key=lambda r: r.index)
    control, focus = run.record(summary.control), run.record(summary.focus)
    return ReportData(
        **dict(summary),
        runs=tuple(folder.name for folder in run.folders),
        seeds=tuple(dict.fromkeys(run.seeds)),
        growth=tuple(hypervolume_growth([point_of(r) for r in records], REFERENCE)),
        effects=tuple(effects(records)),
        costs=tuple(_costs(records, hour_price)),
        hour_price=hour_price,
        budget=" ".join(f"{note.sentence}." for note in map(read_note, run.folders) if note)
        or None,
        forgotten=" ".join(
            f"{folder.name}: {lost.sentence}."
            for folder in run.folders
            if (lost := read_forgotten(folder)) is not None
        )
        or None,
        people=people_table(control, focus, run.adaptive),
        adaptive=sentence(run.adaptive, run.records),
        versions={k: v for record in reversed(records) for k, v in record.versions.items()},
        reproduce=tuple(reproduce_command(path) for path in shown),
    )


def schema_text() -> str:
    """Return the JSON Schema of `report.json`, as it is published in the documentation."""
    return json.dumps(ReportData.model_json_schema(mode="serialization"), indent=1) + "\n"


def _costs(records: Sequence[TrialRecord], hour_price: float | None) -> list[StageCost]:
    seconds: dict[str, list[float]] = {}
    for record in records:
        for stage, spent in record.cost_s.items():
            seconds.setdefault(stage, []).append(spent)
    whole = sum(map(sum, seconds.values())) or 1.0
    costs = [
        StageCost(
            name=stage,
            total=round(sum(spent), 3),
            median=round(median(spent), 3),
            share=sum(spent) / whole,
            money=None if hour_price is None else sum(spent) / 3600 * hour_price,
        )
        for stage, spent in seconds.items()
    ]
    return sorted(costs, key=lambda cost: -cost.total)
