"""Who is exposed: one row a protected person, and one a trial, as tables for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.adaptive import AdaptiveTrial
from orchestrator.data_table import DataColumn, DataTable
from orchestrator.figures import attack_name
from orchestrator.records import AttackRecord, Rate, TargetScore, TrialRecord
from orchestrator.summary import RunSummary, TrialSummary

Scores = Mapping[str, Mapping[str, TargetScore]]
"""Pseudonym -> attack -> score."""


def people_table(
    control: TrialRecord | None, focus: TrialRecord | None, adaptive: Sequence[AdaptiveTrial]
) -> DataTable:
    """Return what is known of each protected person, the most exposed first.

    Args:
        control: without a defence.
        focus: the trial that the report is about.
        adaptive: attacks by one who knows of DCD; the one on `focus` is used.
    """
    before = _scores(control.attacks if control else ())
    after = _scores(focus.attacks if focus else ())
    known = next((t for t in adaptive if focus and t.trial_id == focus.trial_id), None)
    knowing = _scores(known.attacks if known else ())
    attacks = list(dict.fromkeys(a.name for r in (control, focus) if r for a in r.attacks))
    own = {p.pseudonym: p for p in (focus.people if focus else ())}
    own_before = {p.pseudonym: p for p in (control.people if control else ())}
    names = dict.fromkeys([*after, *before, *own])
    order = sorted(
        names,
        key=lambda name: (
            -max(_highest(after.get(name, {})), _highest(knowing.get(name, {}))),
            -_highest(before.get(name, {})),
        ),
    )

    def column(title: str, group: str, rates: Sequence[Rate | None], kind: str) -> DataColumn:
        return DataColumn(
            title=title,
            group=group,
            kind="hits" if kind == "hits" else "right",
            k=tuple(None if rate is None else rate.successes for rate in rates),
            n=tuple(None if rate is None else rate.n for rate in rates),
        )

    def of(scores: Scores, attack: str) -> list[Rate | None]:
        found = [scores.get(name, {}).get(attack) for name in order]
        return [None if score is None else score.accuracy_at_1 for score in found]

    columns = [DataColumn(title="person", values=tuple(order))]
    defended = f"DCD trial {focus.index}" if focus else ""
    for attack in attacks:
        group = f"{attack_name(attack)}: shows the person"
        columns.append(column("no defence", group, of(before, attack), "hits"))
        if focus:
            columns.append(column(defended, group, of(after, attack), "hits"))
    if knowing:
        worst = [_worst(knowing.get(name, {})) for name in order]
        columns.append(column("best strategy", "attacker who knows of DCD", worst, "hits"))
    if focus:
        lent = [_most_surrogate(after.get(name, {})) for name in order]
        columns.append(column(defended, "shows the surrogate", lent, "right"))
    if own:
        earlier = [own_before.get(name) for name in order]
        now = [own.get(name) for name in order]
        group = "recognised on own test images"
        columns.append(
            column("no defence", group, [p.accuracy if p else None for p in earlier], "right")
        )
        columns.append(column(defended, group, [p.accuracy if p else None for p in now], "right"))
        paid = [p.receivers if p else None for p in now]
        columns.append(column(defended, "bystanders given wrong labels", paid, "right"))
    return DataTable(name="people", label="Protected people", columns=tuple(columns))


def trials_table(summary: RunSummary) -> DataTable:
    """Return every trial with its settings and scores, the recommended order first."""
    trials = sorted(summary.trials, key=lambda t: (t.rank or len(summary.trials) + 1, t.index))
    settings = list(dict.fromkeys(name for t in trials for name in t.settings))
    varied = [
        s for s in settings if len({str(t.settings.get(s)) for t in trials if t.settings}) > 1
    ]
    attacks = list(dict.fromkeys(name for t in trials for name in t.attacks))

    def rate(title: str, kind: str, found: Sequence[Rate | None]) -> DataColumn:
        return DataColumn(
            title=title,
            kind="hits" if kind == "hits" else "right",
            k=tuple(None if one is None else one.successes for one in found),
            n=tuple(None if one is None else one.n for one in found),
        )

    columns = [
        DataColumn(title="trial", kind="number", values=tuple(t.index for t in trials)),
        DataColumn(title="what", values=tuple(_what(t, summary) for t in trials)),
        DataColumn(title="rank", kind="number", values=tuple(t.rank for t in trials)),
        rate(
            "clean accuracy",
            "right",
            [t.clean_accuracy.overall if t.clean_accuracy else None for t in trials],
        ),
    ]
    for attack in attacks:
        found = [t.attacks.get(attack) for t in trials]
        columns.append(
            rate(attack_name(attack), "hits", [a.accuracy_at_1 if a else None for a in found])
        )
    for name in varied:
        values = [t.settings.get(name) for t in trials]
        if all(v is None or isinstance(v, int | float) for v in values):
            numbers = tuple(None if v is None else float(f"{v:.3g}") for v in values)
            columns.append(DataColumn(title=name.replace("_", " "), kind="number", values=numbers))
        else:
            texts = tuple("" if v is None else str(v) for v in values)
            columns.append(DataColumn(title=name.replace("_", " "), values=texts))
    inflations = tuple(t.inflation and float(f"{t.inflation:.3g}") for t in trials)
    columns.append(DataColumn(title="inflation", kind="number", values=inflations))
    columns.append(
        DataColumn(title="seconds", kind="number", values=tuple(round(t.seconds) for t in trials))
    )
    return DataTable(name="trials", label="All trials", columns=tuple(columns))


def _what(trial: TrialSummary, summary: RunSummary) -> str:
    words = ["control" if trial.trial_id == summary.control else trial.title or trial.defense]
    words += ["failed"] * (trial.status == "failed")
    words += ["recommended"] * (trial.trial_id == summary.recommended)
    words += ["frontier"] * trial.on_front + ["meets goals"] * trial.meets_goals
    return ", ".join(words)


def _scores(attacks: Sequence[AttackRecord]) -> dict[str, dict[str, TargetScore]]:
    scores: dict[str, dict[str, TargetScore]] = {}
    for attack in attacks:
        for score in attack.per_target:
            scores.setdefault(score.pseudonym, {})[attack.name] = score
    return scores


def _highest(scores: Mapping[str, TargetScore]) -> float:
    return max((score.accuracy_at_1.value for score in scores.values()), default=0.0)


def _worst(scores: Mapping[str, TargetScore]) -> Rate | None:
    rates = [score.accuracy_at_1 for score in scores.values()]
    return max(rates, key=lambda rate: rate.value, default=None)


def _most_surrogate(scores: Mapping[str, TargetScore]) -> Rate | None:
    rates = [score.surrogate_rate for score in scores.values()]
    return max(rates, key=lambda rate: rate.value, default=None)
