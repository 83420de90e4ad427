"""A run in one page of numbers: the verdict, the recommendation, the frontier.

`summarise` is what `report.json` holds and what the command line prints; the HTML is its view.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import PurePath
from typing import Literal

from pydantic import Field

from orchestrator.pareto import (
    Point,
    Point3,
    find_control,
    hypervolume_2d,
    hypervolume_3d,
    is_shown,
    knee,
    pareto_front,
    point_of,
    ranked,
    recommend,
)
from orchestrator.records import Accuracy, Estimate, Rate, TrialRecord
from orchestrator.spec import ExperimentSpec, GoalSpec
from tasks.spec import Spec

REFERENCE = Point(clean_accuracy=0.0, attack_accuracy=1.0)
"""The worst corner, where the hypervolume is measured from; the best hypervolume is 1."""


REFERENCE_3D = Point3(clean_accuracy=0.0, attack_accuracy=1.0, inflation=10.0)
"""The same with ten times the training rows; the volume is divided by what is between 1 and 10."""


class AttackSummary(Spec):
    """What one attack reached."""

    accuracy_at_1: Rate
    accuracy_at_5: Rate
    surrogate_rate: Rate
    accuracy_interval: Estimate | None = Field(None, description="accuracy_at_1, over targets.")


class TrialSummary(Spec):
    """One trial of the run, without its details."""

    trial_id: str
    index: int
    title: str = Field("", description="In a comparison: the defence, and where on its curve.")
    defense: str
    status: Literal["ok", "failed"]
    error: str | None
    settings: dict[str, float | int | str | bool | None]
    clean_accuracy: Accuracy | None
    attacks: dict[str, AttackSummary] = Field(description="By name.")
    worst_attack: Rate | None
    inflation: float | None
    seconds: float
    on_front: bool
    meets_goals: bool
    rank: int | None = Field(None, description="Among those that meet both goals, best first.")
    goal_shown: bool = Field(False, description="The whole interval of every attack is within it.")


class RunSummary(Spec):
    """What a run found. Rates are fractions in [0, 1]."""

    version: Literal[2] = 2
    name: str
    fingerprint: str
    seed: int
    verdict: str
    recommended: str | None = Field(description="Id of the recommended trial.")
    nearest: str | None = Field(description="Where none is recommended: the nearest to the goals.")
    reason: str
    command: str | None = Field(description="What applies the recommended setting to the data.")
    control: str | None
    front: tuple[str, ...]
    knee: str | None
    hypervolume: float = Field(description="Of the front, from accuracy 0 and attack accuracy 1.")
    hypervolume_3d: float = Field(description="The same with inflation, from 10 times the rows.")
    goal: GoalSpec
    evaluation_accuracy: Rate | None = Field(description="The evaluation classifier's own.")
    people_shown: bool = Field(description="Whether the report holds pictures of real people.")
    trials: tuple[TrialSummary, ...]

    @property
    def focus(self) -> str | None:
        """The trial that the report looks at closely: recommended, or else the nearest."""
        return self.recommended or self.nearest


def summarise(
    spec: ExperimentSpec,
    records: Sequence[TrialRecord],
    run: str,
    evaluation_accuracy: Rate | None = None,
    people_shown: bool = False,
) -> RunSummary:
    """Return what `records` say, in the order of their index.

    Args:
        spec: the experiment.
        records: of all trials so far.
        run: path of the run's folder, as a command line would give it; its name is the fingerprint.
        evaluation_accuracy: of the evaluation classifier itself.
        people_shown: whether the report shows pictures of real people.
    """
    records = sorted(records, key=lambda r: r.index)
    goal = spec.sweep.goal
    by_id = {record.trial_id: record for record in records}
    points = [point_of(record) for record in records]
    front = [records[i].trial_id for i in pareto_front(points)]
    bend = knee(points)
    control = find_control(records)
    order = ranked(records, control, goal) if control else []
    good = {record.trial_id: rank for rank, record in enumerate(order, 1)}
    choice = recommend(records, goal)
    recommended = by_id[choice.trial_id] if choice.trial_id else None
    focus = recommended or (by_id[choice.nearest] if choice.nearest else None)
    return RunSummary(
        name=spec.name,
        fingerprint=PurePath(run).name,
        seed=spec.seed,
        verdict=_verdict(control, focus, recommended is not None),
        recommended=choice.trial_id,
        nearest=choice.nearest,
        reason=choice.reason,
        command=apply_command(run, spec, recommended) if recommended else None,
        control=control.trial_id if control else None,
        front=tuple(front),
        knee=None if bend is None else records[bend].trial_id,
        hypervolume=hypervolume_2d(points, REFERENCE),
        hypervolume_3d=round(
            hypervolume_3d(
                [Point3(*p, _inflation(r)) for p, r in zip(points, records, strict=True)],
                REFERENCE_3D,
            )
            / (REFERENCE_3D.inflation - 1),
            9,
        ),
        goal=goal,
        evaluation_accuracy=evaluation_accuracy,
        people_shown=people_shown,
        trials=tuple(
            TrialSummary(
                trial_id=record.trial_id,
                index=record.index,
                title=record.title,
                defense=record.defense,
                status=record.status,
                error=record.error,
                settings=record.settings,
                clean_accuracy=record.clean_accuracy,
                attacks={
                    attack.name: AttackSummary(
                        accuracy_at_1=attack.accuracy_at_1,
                        accuracy_at_5=attack.accuracy_at_5,
                        surrogate_rate=attack.surrogate_rate,
                        accuracy_interval=attack.accuracy_interval,
                    )
                    for attack in record.attacks
                },
                worst_attack=record.worst_attack,
                inflation=record.plan.inflation if record.plan else None,
                seconds=sum(record.cost_s.values()),
                on_front=record.trial_id in front,
                meets_goals=record.trial_id in good,
                rank=good.get(record.trial_id),
                goal_shown=record.status == "ok" and is_shown(record, goal),
            )
            for record in records
        ),
    )


def _inflation(record: TrialRecord) -> float:
    return max(1.0, record.plan.inflation) if record.plan else 1.0


def apply_command(run: str, spec: ExperimentSpec, record: TrialRecord) -> str:
    """Return the command line that protects the data of a run's folder with a trial's levers."""
    own = spec.dcd.public()
    levers = [
        f"--set dcd.{key}={_typed(key, value)}"
        for key, value in record.settings.items()
        if value != own.get(key)
    ]
    return " ".join([f"dcdctl augment {shlex.quote(run)}", *levers, "--out protected"])


def _typed(key: str, value: object) -> object:
    """Return a setting as it is typed; a record holds the steps as one word."""
    return shlex.quote(f"[{','.join(str(value).split('+'))}]") if key == "steps" else value


def reproduce_command(run: str) -> str:
    """Return the command line that runs the sweep of a run's folder again, in another storage."""
    return f"dcdctl sweep {shlex.quote(run)} --storage again"


def _verdict(control: TrialRecord | None, focus: TrialRecord | None, recommended: bool) -> str:
    if control is None or control.worst_attack is None or control.clean_accuracy is None:
        return (
            "There is no verdict: the control, the same pipeline without a defence, has no result."
        )
    tries, clean = _tries(control.worst_attack), _percent(control.clean_accuracy.overall)
    if focus is None or focus.worst_attack is None or focus.clean_accuracy is None:
        return (
            f"Without a defence the strongest attack recovers the target in {tries} tries, at a "
            f"clean accuracy of {clean}; no trial with a defence has finished."
        )
    lead = (
        "With the recommended setting"
        if recommended
        else "No setting met both goals; with the nearest"
    )
    return (
        f"{lead}, the strongest attack recovers the target in {_tries(focus.worst_attack)} tries "
        f"(without defence: {tries}); clean accuracy is "
        f"{_percent(focus.clean_accuracy.overall)} (without defence: {clean})."
    )


def _tries(rate: Rate) -> str:
    return f"{rate.successes} of {rate.n}"


def _percent(rate: Rate) -> str:
    return f"{100 * rate.value:.1f} %"
