"""Several finished runs as one: trials with equal settings are pooled over their seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from orchestrator.comparison import FinishedRun, check_alike, once_each
from orchestrator.finished_run import Run
from orchestrator.records import (
    Accuracy,
    AttackRecord,
    Estimate,
    Rate,
    TargetScore,
    TrialRecord,
)
from tasks.draws import Draws
from tasks.spec import fingerprint

Placed = tuple[Run, TrialRecord]


def merge_runs(runs: Sequence[Run]) -> Run:
    """Return one run that holds the trials of all; the controls become its control.

    Trials that were made with equal settings in several runs are one, with the tries of all seeds.
    The others keep their own tries, and are measured against the pooled control like the rest.

    Raises:
        SpecError: the runs differ in what they attack with or who is protected.
    """
    if len(runs) == 1:
        return runs[0]
    finished = [FinishedRun(run.folder.name, run.spec, run.records) for run in runs]
    check_alike(finished)
    groups: dict[str, list[Placed]] = {}
    for run, records in zip(runs, once_each(finished), strict=True):
        for record in records:
            groups.setdefault(_key(record), []).append((run, record))
    order = sorted(groups.values(), key=lambda g: _is_rival_or_dcd(g[0][1]))
    records = [_pooled(index, group) for index, group in enumerate(order)]
    indices = {r.trial_id: new.index for new, g in zip(records, order, strict=True) for _, r in g}
    accuracies = [run.evaluation for run in runs if run.evaluation is not None]
    return Run(
        folder=runs[0].folder,
        spec=runs[0].spec,
        records=records,
        evaluation=_sum(accuracies) if accuracies else None,
        adaptive=[
            trial.model_copy(update={"index": indices[trial.trial_id]})
            for run in runs
            for trial in run.adaptive
            if trial.trial_id in indices
        ],
        folders=[run.folder for run in runs],
        seeds=[run.spec.seed for run in runs],
        members={
            new.trial_id: [_folder(run, record) for run, record in group]
            for new, group in zip(records, order, strict=True)
        },
    )


def _key(record: TrialRecord) -> str:
    if record.status == "failed":
        return record.trial_id
    return fingerprint([record.defense, record.row, record.settings, record.training_defense])


def _is_rival_or_dcd(record: TrialRecord) -> bool:
    return record.defense != "none" or bool(record.row) and record.row != "none"


def _folder(run: Run, record: TrialRecord) -> Path:
    return run.folder / "trials" / record.trial_id


def _pooled(index: int, group: Sequence[Placed]) -> TrialRecord:
    first = group[0][1]
    records = [record for _, record in group]
    seeds = ", ".join(str(record.seed) for record in records)
    title = first.title
    if not title and first.defense != "none":
        title = f"trial {first.index} of seed {first.seed}" if len(group) == 1 else f"seeds {seeds}"
    changes: dict[str, object] = {"index": index, "title": title}
    if len(group) > 1:
        stages = dict.fromkeys(stage for record in records for stage in record.cost_s)
        changes |= {
            "clean_accuracy": _accuracy(records),
            "attacks": tuple(_attack(attack.name, records) for attack in first.attacks),
            "people": tuple(person for record in records for person in record.people),
            "utility": None,
            "cost_s": {s: sum(r.cost_s.get(s, 0.0) for r in records) for s in stages},
        }
    return first.model_copy(update=changes)


def _accuracy(records: Sequence[TrialRecord]) -> Accuracy | None:
    found = [record.clean_accuracy for record in records if record.clean_accuracy is not None]
    if not found:
        return None
    return Accuracy(
        overall=_sum([one.overall for one in found]),
        targets=_sum([one.targets for one in found]),
        bystanders=_sum([one.bystanders for one in found]),
    )


def _attack(name: str, records: Sequence[TrialRecord]) -> AttackRecord:
    parts = [attack for record in records for attack in record.attacks if attack.name == name]
    people: dict[str, list[TargetScore]] = {}
    for part in parts:
        for score in part.per_target:
            people.setdefault(score.pseudonym, []).append(score)
    return AttackRecord(
        name=name,
        access=parts[0].access,
        accuracy_at_1=_sum([part.accuracy_at_1 for part in parts]),
        accuracy_at_5=_sum([part.accuracy_at_5 for part in parts]),
        surrogate_rate=_sum([part.surrogate_rate for part in parts]),
        per_target=tuple(
            TargetScore(
                pseudonym=pseudonym,
                accuracy_at_1=_sum([s.accuracy_at_1 for s in scores]),
                accuracy_at_5=_sum([s.accuracy_at_5 for s in scores]),
                surrogate_rate=_sum([s.surrogate_rate for s in scores]),
            )
            for pseudonym, scores in people.items()
        ),
        settings=parts[0].settings,
        queries=sum(part.queries for part in parts),
        accuracy_interval=_over_people(name, [s for scores in people.values() for s in scores]),
    )


def _over_people(name: str, scores: Sequence[TargetScore]) -> Estimate | None:
    from tasks.evaluation.intervals import cluster_rate

    tries = {score.accuracy_at_1.n for score in scores}
    if len(tries) != 1:
        return None
    hits = [np.arange(s.accuracy_at_1.n) < s.accuracy_at_1.successes for s in scores]
    return Estimate.of(cluster_rate(np.stack(hits), Draws(0, ("merged", name))))


def _sum(rates: Sequence[Rate]) -> Rate:
    return Rate.of(sum(rate.successes for rate in rates), sum(rate.n for rate in rates))
