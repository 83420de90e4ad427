"""What other trainers make of the protected data of several seeds, as the table of docs/results.md.

    for seed in 0 1 2; do tar xJf benchmarks/records-builtin-faces-$seed.tar.xz; done
    python -m benchmarks.trainers runs/*

Runs whose `trainers.json` is missing are left out. Intervals are over people.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from orchestrator.finished_run import load_run
from orchestrator.records import AttackRecord, TrialRecord
from orchestrator.trainers import TrainedBy, read_trainers
from tasks.draws import Draws
from tasks.evaluation.intervals import cluster_rate

Measured = TrialRecord | TrainedBy


def main() -> None:
    """Print the table, the trainer under whom the least leaks first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders, one a seed")
    found: dict[str, list[tuple[Measured, str]]] = {}
    for path in parser.parse_args().runs:
        given = [one for one in read_trainers(path) if one.error is None]
        if not given:
            continue
        by_index = {record.index: record for record in load_run(path).records}
        own, control = by_index[given[0].index], by_index[0]
        rows = f"{own.plan.rows:,}" if own.plan is not None else ""
        found.setdefault("the run's own", []).append((own, rows))
        found.setdefault("no DCD, the run's own trainer", []).append((control, ""))
        for one in given:
            if one.index == own.index:
                used = sum(kept for _, kept in one.rows.values())
                found.setdefault(one.trainer, []).append((one, f"{used:,}"))
    most = max(len(seen) for seen in found.values())
    whole = {name: seen for name, seen in found.items() if len(seen) == most}
    names = [attack.name for attack in next(iter(whole.values()))[0][0].attacks]
    print(f"| trainer | ACC | {' | '.join(names)} | rows used |")
    print("|---" * (3 + len(names)) + "|")
    for name in sorted(whole, key=lambda name: max(_rates(whole[name], names))):
        seen = whole[name]
        accuracy = np.mean([_accuracy(one) for one, _ in seen])
        rates = _rates(seen, names)
        strongest = int(np.argmax(rates))
        cells = [f"{100 * rate:.1f}" for rate in rates]
        low, high = _interval(name, seen, names[strongest])
        cells[strongest] += f" [{100 * low:.1f}, {100 * high:.1f}]"
        rows = " / ".join(dict.fromkeys(rows for _, rows in seen))
        print(f"| {name} | {100 * accuracy:.2f} | {' | '.join(cells)} | {rows} |")
    for name in found.keys() - whole.keys():
        print(f"{name}: measured on {len(found[name])} of {most} seeds, left out")


def _accuracy(one: Measured) -> float:
    assert one.clean_accuracy is not None
    return one.clean_accuracy.overall.value


def _attack(one: Measured, name: str) -> AttackRecord:
    return next(attack for attack in one.attacks if attack.name == name)


def _rates(seen: Sequence[tuple[Measured, str]], names: Sequence[str]) -> list[float]:
    rates = []
    for name in names:
        hits = [_attack(one, name).accuracy_at_1 for one, _ in seen]
        rates.append(sum(hit.successes for hit in hits) / sum(hit.n for hit in hits))
    return rates


def _interval(
    trainer: str, seen: Sequence[tuple[Measured, str]], attack: str
) -> tuple[float, float]:
    people = [person for one, _ in seen for person in _attack(one, attack).per_target]
    hits = np.array(
        [
            [True] * person.accuracy_at_1.successes
            + [False] * (person.accuracy_at_1.n - person.accuracy_at_1.successes)
            for person in people
        ]
    )
    found = cluster_rate(hits, Draws(0, ("trainers", trainer, attack)))
    return found.low, found.high


if __name__ == "__main__":
    main()
