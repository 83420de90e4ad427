"""The paper's Table 1 from trial records: rows of defences, and how far apart they are.

Everything is read from the records of finished runs; nothing is trained here. Runs of several seeds
are pooled: a person of one seed is one draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

import numpy as np
from pydantic import Field

from orchestrator.pareto import find_control, point_of
from orchestrator.records import Estimate, Rate, TrialRecord
from tasks.defenses.spec import AnyDefense
from tasks.draws import Draws
from tasks.errors import SpecError
from tasks.spec import Spec

if TYPE_CHECKING:
    from orchestrator.spec import ExperimentSpec

SAME = ("data", "protect", "evaluation", "prior", "attacks")
"""Sections in which runs of one table must agree."""

SIGNS = 6
"""People who must all differ in one direction to be more than chance: 2 / 2**6 is below 0.05."""


class Cell(Spec):
    """One defence under one attack on one data set."""

    data: str
    attack: str
    access: str = "white-box"
    clean_accuracy: Rate = Field(description="Over all test images of all seeds.")
    attack_accuracy: Estimate = Field(description="Over people of all seeds.")


class Row(Spec):
    """One point of one defence."""

    row: str = Field(description="The defence; its points share it.")
    title: str
    strength: float | None = Field(None, description="Of the defence's main setting.")
    serving: str = Field("none", description="The output defence, which white-box attacks miss.")
    cells: tuple[Cell, ...]
    targets: Rate | None = Field(description="Clean accuracy of the protected classes.")
    bystanders: Rate | None = Field(description="Of all others.")
    receivers: Rate | None = Field(description="Of those that received wrong labels.")
    surrogate_accepts: Rate | None = Field(
        description="Lent people taken for the target, on the images that were lent."
    )
    held_out_accepts: Rate | None = Field(None, description="The same on images never lent.")
    membership_auc: float | None
    inflation: float
    core_s: float = Field(description="Mean seconds of a trial: training, attacks, judging.")
    guarantee: str
    runs: int
    failed: int = Field(description="Runs in which this trial failed; they are in no mean.")
    chosen: bool = Field(description="The point of its row that stands in Table 1.")

    @property
    def worst(self) -> float:
        """The highest attack accuracy."""
        return max(cell.attack_accuracy.value for cell in self.cells)


class Difference(Spec):
    """A row less the reference, person by person."""

    title: str
    data: str
    attack: str
    attack_accuracy: Estimate
    clean_accuracy: float
    within_noise: bool = Field(description="Whether the interval holds 0.")


class Comparison(Spec):
    """A table of defences."""

    reference: str = Field(description="What differences are taken from.")
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]
    max_accuracy_drop: float
    runs: tuple[str, ...]


@dataclass(frozen=True)
class FinishedRun:
    """A run's experiment and records."""

    name: str
    spec: ExperimentSpec
    records: Sequence[TrialRecord]


def compare(runs: Sequence[FinishedRun]) -> Comparison:
    """Put the trials of finished runs into one table.

    Raises:
        SpecError: runs of the same data differ in what they attack with or who is protected.
    """
    check_alike(runs)
    # Intervals resample people in their order, which must not be that of the command's words.
    names = list(dict.fromkeys(run.spec.name for run in runs))
    runs = sorted(runs, key=lambda run: (names.index(run.spec.name), run.spec.seed))
    once = zip(runs, once_each(runs), strict=True)
    trials = _by_title([replace(run, records=records) for run, records in once])
    drop = runs[0].spec.sweep.goal.max_accuracy_drop
    rows = [row for title, found in trials.items() if (row := _row(title, found)) is not None]
    chosen = _chosen(rows, drop)
    rows = [row.model_copy(update={"chosen": row.title in chosen}) for row in rows]
    titles = [row.title for row in rows]
    reference = next((t for t in titles if t == "dcd" or t.startswith("dcd ")), None)
    reference = reference or (titles[0] if titles else "none")
    return Comparison(
        reference=reference,
        rows=tuple(rows),
        differences=tuple(
            difference
            for title in titles
            if title != reference
            for difference in _differences(title, trials[title], trials[reference])
        ),
        max_accuracy_drop=drop,
        runs=tuple(run.name for run in runs),
    )


def once_each(runs: Sequence[FinishedRun]) -> list[list[TrialRecord]]:
    """Return the records of each run, without those that an earlier run has already.

    Equal ids are equal settings, data, seeds and judges: the same trial, run twice.
    """
    seen: set[tuple[str, int, str]] = set()
    found = []
    for run in runs:
        own = [(run.spec.name, run.spec.seed, record.trial_id) for record in run.records]
        found.append([r for r, key in zip(run.records, own, strict=True) if key not in seen])
        seen.update(own)
    return found


Trials = list[tuple[FinishedRun, TrialRecord]]


def check_alike(runs: Sequence[FinishedRun]) -> None:
    """Refuse runs that cannot stand in one table.

    Raises:
        SpecError: runs of the same data differ in what they attack with or who is protected.
    """
    first: dict[str, FinishedRun] = {}
    for run in runs:
        other = first.setdefault(run.spec.name, run)
        for section in SAME:
            if getattr(run.spec, section) != getattr(other.spec, section):
                raise SpecError(
                    f"the runs {other.name} and {run.name} are both of {run.spec.name!r} and "
                    f"differ in {section}; give one of the experiments another name, or compare "
                    "runs that agree"
                )


def _by_title(runs: Sequence[FinishedRun]) -> dict[str, Trials]:
    seen = [(run.spec.name, run.spec.seed, _title(r)) for run in runs for r in run.records]
    twice = len(set(seen)) < len(seen)
    found: dict[str, Trials] = {}
    for run in runs:
        for record in run.records:
            title = f"{_title(record)} ({run.name})" if twice else _title(record)
            found.setdefault(title, []).append((run, record))
    return found


def _title(record: TrialRecord) -> str:
    if record.title:
        return record.title
    if record.defense == "none":
        return "none"
    names = ("mislabel_fraction", "curvature_mislabel_fraction", "target_sigma", "surrogate_sigma")
    levers = "/".join(f"{record.settings[name]:.4g}" for name in names if name in record.settings)
    return f"dcd {levers} {record.settings.get('steps', '')}".strip()


def _row(title: str, trials: Trials) -> Row | None:
    """Return the mean of a trial over its runs, None where it failed in all of them."""
    good = [(run, record) for run, record in trials if record.status == "ok"]
    if not good:
        return None
    records = [record for _, record in good]
    used = [record.utility for record in records if record.utility is not None]
    aucs = [one.membership_auc for one in used if one.membership_auc is not None]
    promised = records[0].guarantee
    return Row(
        row=records[0].row or title,
        title=title,
        strength=_strength(records[0]),
        serving=str(records[0].serving.get("name", "none")),
        cells=tuple(
            Cell(
                data=data,
                attack=attack,
                access=next(a.access for a in part[0].attacks if a.name == attack),
                clean_accuracy=_pooled(
                    [r.clean_accuracy.overall for r in part if r.clean_accuracy is not None]
                ),
                attack_accuracy=_over_people(title, attack, part),
            )
            for data, part in _by_data(good).items()
            for attack in [a.name for a in part[0].attacks]
        ),
        targets=_pooled([r.clean_accuracy.targets for r in records if r.clean_accuracy]),
        bystanders=_pooled([r.clean_accuracy.bystanders for r in records if r.clean_accuracy]),
        receivers=_pooled_or_none([one.receivers for one in used]),
        surrogate_accepts=_pooled_or_none([one.surrogate_accepts for one in used]),
        held_out_accepts=_pooled_or_none([one.held_out_accepts for one in used]),
        membership_auc=round(float(np.mean(aucs)), 4) if aucs else None,
        inflation=records[0].plan.inflation if records[0].plan else 1.0,
        core_s=round(float(np.mean([sum(r.cost_s.values()) for r in records])), 1),
        guarantee="none" if promised is None else str(promised),
        runs=len(good),
        failed=len(trials) - len(good),
        chosen=False,
    )


def _strength(record: TrialRecord) -> float | None:
    """Return the value of a defence's main setting; None where it has none."""
    knobs = {kind.model_fields["name"].default: kind.knob for kind in get_args(AnyDefense)}
    value = record.training_defense.get(knobs.get(record.training_defense.get("name"), ""))
    return float(value) if isinstance(value, int | float) else None


def _by_data(trials: Trials) -> dict[str, list[TrialRecord]]:
    found: dict[str, list[TrialRecord]] = {}
    for run, record in trials:
        found.setdefault(run.spec.name, []).append(record)
    return found


def _pooled(rates: Sequence[Rate]) -> Rate:
    return Rate.of(sum(rate.successes for rate in rates), sum(rate.n for rate in rates))


def _pooled_or_none(rates: Sequence[Rate | None]) -> Rate | None:
    there = [rate for rate in rates if rate is not None]
    return _pooled(there) if there else None


def _over_people(title: str, attack: str, records: Sequence[TrialRecord]) -> Estimate:
    from tasks.evaluation.intervals import cluster_rate

    hits = [
        np.arange(score.accuracy_at_1.n) < score.accuracy_at_1.successes
        for record in records
        for one in record.attacks
        if one.name == attack
        for score in one.per_target
    ]
    return Estimate.of(cluster_rate(np.stack(hits), Draws(0, ("comparison", title, attack))))


def _chosen(rows: Sequence[Row], drop: float) -> set[str]:
    """Choose the point of each row: within the allowed drop the one that protects best.

    Where no point is within it, the most accurate one. Chosen by the very figures that are shown,
    which flatters a row with several points: a rival more than DCD, which has one.
    """
    control = next((row for row in rows if row.row == "none"), None)
    accuracy = {row.title: row.cells[0].clean_accuracy.value for row in rows}
    floor = accuracy[control.title] - drop - 1e-9 if control is not None else 0.0
    found = set()
    for name in dict.fromkeys(row.row for row in rows):
        points = [row for row in rows if row.row == name]
        near = [row for row in points if accuracy[row.title] >= floor]
        best = (
            min(near, key=lambda row: (row.worst, -accuracy[row.title]))
            if near
            else max(points, key=lambda row: accuracy[row.title])
        )
        found.add(best.title)
    return found


def _differences(title: str, trials: Trials, reference: Trials) -> list[Difference]:
    """Return a row less the reference for every attack, over the people that both have."""
    from tasks.evaluation.intervals import cluster_mean

    found = []
    ours, theirs = _people(trials), _people(reference)
    for data, attack in ours:
        here, there = ours[data, attack], theirs.get((data, attack), {})
        both = [person for person in here if person in there]
        if not both:
            continue
        fall = np.array([[here[person] - there[person]] for person in both])
        seen = Estimate.of(cluster_mean(fall, Draws(0, ("difference", title, data, attack))))
        if np.ptp(fall) == 0:
            # Equal draws say nothing of their spread; only a sign test is left.
            seen = seen.model_copy(update={"low": None, "high": None})
        if seen.low is None or seen.high is None:
            inside = seen.value == 0 or len(both) < SIGNS
        else:
            inside = seen.low <= 0 <= seen.high
        found.append(
            Difference(
                title=title,
                data=data,
                attack=attack,
                attack_accuracy=seen,
                clean_accuracy=round(_clean(trials, data) - _clean(reference, data), 6),
                within_noise=inside,
            )
        )
    return found


def _people(trials: Trials) -> Mapping[tuple[str, str], dict[tuple[int, str], float]]:
    """Return each person's rate by data and attack; a person of one seed is one."""
    found: dict[tuple[str, str], dict[tuple[int, str], float]] = {}
    for run, record in trials:
        for attack in record.attacks:
            own = found.setdefault((run.spec.name, attack.name), {})
            for score in attack.per_target:
                own[run.spec.seed, score.pseudonym] = score.accuracy_at_1.value
    return found


def _clean(trials: Trials, data: str) -> float:
    rates = [
        record.clean_accuracy.overall
        for run, record in trials
        if run.spec.name == data and record.clean_accuracy is not None
    ]
    return _pooled(rates).value


def has_control(records: Sequence[TrialRecord]) -> bool:
    """Say whether a run has the control that everything is measured against."""
    control = find_control(records)
    return control is not None and not np.isnan(point_of(control).clean_accuracy)
