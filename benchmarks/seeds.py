"""Several runs of one experiment under different seeds, as the tables of docs/results.md.

    for seed in 0 1 2; do dcdctl sweep --seed $seed --storage runs-$seed; done
    python benchmarks/seeds.py runs-*/runs/*

Runs with sweep.search=ablation give the table of single steps instead.

A mean over seeds has an interval over people: whole people are resampled, with all of their
reconstructions, since those of one person share a model and a prior. The one over seeds is
Student's: a few seeds say little, and it says so.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from orchestrator.records import Rate, TrialRecord
from orchestrator.store import records_of
from tasks.evaluation.intervals import over_seeds

RESAMPLES = 10_000
LEVERS = (
    "mislabel_fraction",
    "curvature_mislabel_fraction",
    "target_sigma",
    "surrogate_sigma",
)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, one a seed")
    runs = [records_of(path) for path in parser.parse_args().runs]
    if any("steps" in record.settings for record in runs[0]) and searched(runs[0]) == 1:
        print(steps_table(runs))
        return
    print(trials_table(runs))
    print()
    print(means_table(runs))


def trials_table(runs: Sequence[Sequence[TrialRecord]]) -> str:
    """Return every trial of every run."""
    attacks = [attack.name for attack in runs[0][0].attacks]
    lines = [
        "| seed | levers | clean accuracy | of targets | "
        + " | ".join(f"{name} @1" for name in attacks)
        + " | surrogate | core-s |",
        "|---" * (6 + len(attacks)) + "|",
    ]
    for run in runs:
        for record in run:
            assert record.clean_accuracy is not None
            shown = " / ".join(f"{a.surrogate_rate.value:.2f}" for a in record.attacks)
            cells = [
                str(record.seed),
                levers(record),
                rate(record.clean_accuracy.overall),
                f"{record.clean_accuracy.targets.value:.3f}",
                *(rate(a.accuracy_at_1) for a in record.attacks),
                shown,
                f"{sum(record.cost_s.values()):.0f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def means_table(runs: Sequence[Sequence[TrialRecord]]) -> str:
    """Return control and published recipe over all seeds: mean, interval and worst seed."""
    lines = [
        f"| mean of {len(runs)} seeds | clean accuracy | of targets | attack | mean @1 "
        "[95 %, over people] | [95 %, over seeds] | worst seed |",
        "|---|---|---|---|---|---|---|",
    ]
    for title, index in (("control", 0), ("published recipe", 1)):
        records = [next(r for r in run if r.index == index) for run in runs]
        accuracy = np.mean([r.clean_accuracy.overall.value for r in records if r.clean_accuracy])
        own = np.mean([r.clean_accuracy.targets.value for r in records if r.clean_accuracy])
        for k, attack in enumerate(records[0].attacks):
            people = np.array(
                [t.accuracy_at_1.value for r in records for t in r.attacks[k].per_target]
            )
            low, high = over_people(people)
            by_seed = [r.attacks[k].accuracy_at_1.value for r in records]
            # The worst for us: the control that is hardest to attack proves least.
            worst = min(by_seed) if index == 0 else max(by_seed)
            seeds = over_seeds(np.array(by_seed))
            lines.append(
                f"| {title} | {accuracy:.3f} | {own:.3f} | {attack.name} | "
                f"{people.mean():.3f} [{low:.3f}, {high:.3f}] | "
                f"[{seeds.low:.3f}, {seeds.high:.3f}] | {worst:.3f} |"
            )
    return "\n".join(lines)


def searched(run: Sequence[TrialRecord]) -> int:
    """Return how many settings of the four levers a run tried; an ablation tries one."""
    return len({levers(record) for record in run if record.defense != "none"})


def steps_table(runs: Sequence[Sequence[TrialRecord]]) -> str:
    """Return what each step of the recipe is worth: means over seeds, and the share of the effect.

    The share is the fall of the mean over all attacks and people, from the control, as a part of
    the fall that the whole recipe (trial 1) brings; its interval resamples people.
    """
    names = [attack.name for attack in runs[0][0].attacks]
    lines = [
        f"| mean of {len(runs)} seeds | inflation | clean accuracy | of targets | "
        + " | ".join(f"{name} @1" for name in names)
        + " | share of the effect |",
        "|---" * (5 + len(names)) + "|",
    ]
    by_index = [[next(r for r in run if r.index == i) for run in runs] for i in range(len(runs[0]))]
    control, whole = people_of(by_index[0]), people_of(by_index[1])
    for records in by_index:
        found = people_of(records)
        accuracy = [r.clean_accuracy for r in records if r.clean_accuracy]
        cells = [
            steps(records[0]),
            f"{records[0].plan.inflation:g}" if records[0].plan else "",
            f"{np.mean([a.overall.value for a in accuracy]):.3f}",
            f"{np.mean([a.targets.value for a in accuracy]):.3f}",
        ]
        for k in range(len(names)):
            low, high = over_people(found[:, k])
            cells.append(f"{found[:, k].mean():.3f} [{low:.3f}, {high:.3f}]")
        cells.append("" if records[0].index < 2 else share_of_effect(control, found, whole))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def people_of(records: Sequence[TrialRecord]) -> np.ndarray:
    """Return attack accuracy@1 of every person under every attack, (people, attacks)."""
    return np.array(
        [
            [a.per_target[i].accuracy_at_1.value for a in r.attacks]
            for r in records
            for i in range(len(r.attacks[0].per_target))
        ]
    )


def share_of_effect(control: np.ndarray, found: np.ndarray, whole: np.ndarray) -> str:
    """Return how much of the whole recipe's fall a part of it brings, with its interval."""
    rows = np.random.default_rng(0).integers(0, len(control), (RESAMPLES, len(control)))
    fall, all_of_it = (control - found).mean(1), (control - whole).mean(1)
    low, high = np.quantile(fall[rows].mean(1) / all_of_it[rows].mean(1), (0.025, 0.975))
    return f"{fall.mean() / all_of_it.mean():.2f} [{low:.2f}, {high:.2f}]"


def steps(record: TrialRecord) -> str:
    """Return which steps of the recipe a trial had."""
    if record.defense == "none":
        return "control"
    named = str(record.settings["steps"]).replace("+", " + ")
    if record.settings["target_copies"] == 0:
        return "one person alone: the surrogate and noise around it, no wrong label"
    return "all: " + named if record.index == 1 else named


def over_people(rates: np.ndarray) -> tuple[float, float]:
    """Return a 95 % interval of the mean by resampling people, seed 0."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, len(rates), (RESAMPLES, len(rates)))
    low, high = np.quantile(rates[drawn].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def levers(record: TrialRecord) -> str:
    """Return the four searched levers of a trial."""
    if record.defense == "none":
        return "control"
    values = [float(record.settings[name] or 0) for name in LEVERS]
    return "{:.2f} / {:.2f} / {:.3f} / {:.4f}".format(*values)


def rate(value: Rate) -> str:
    """Return a rate with its interval."""
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


if __name__ == "__main__":
    main()
