"""Several outcomes of `dcdctl attack --json`, such as one a seed, as one table.

    dcdctl attack attacks.yaml --checkpoint control-0 --seed 0 --json > control-0.json
    python benchmarks/pooled.py control-*.json

Rates are over all reconstructions; intervals resample whole people, then reconstructions of one.
`hit` is how many people had at least one success; the last line is any of the adaptive attacks.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

import numpy as np

from orchestrator.commands import AttackOutcome
from orchestrator.records import AttackRecord
from tasks.draws import Draws
from tasks.evaluation.intervals import cluster_rate


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    files = parser.parse_args().files
    outcomes = [AttackOutcome.model_validate_json(path.read_bytes()) for path in files]
    print("| attack | @1 [95 %, over people] | n | each file | surrogate | hit | queries |")
    print("|---|---|---|---|---|---|---|")
    for name in [attack.name for attack in outcomes[0].attacks]:
        found = [next(a for a in outcome.attacks if a.name == name) for outcome in outcomes]
        print(_line(name, found))
    adaptive = [
        [a for a in outcome.attacks if a.name.startswith("adaptive-")] for outcome in outcomes
    ]
    if all(adaptive):
        print(f"| any adaptive one | | | | | {_hit_by_any(adaptive)} | |")


def _line(name: str, found: list[AttackRecord]) -> str:
    outcomes = np.stack([row for record in found for row in _rows(record)])
    pooled = cluster_rate(outcomes, Draws(0, ("pooled", name)))
    lent = sum(r.surrogate_rate.successes for r in found) / outcomes.size
    each = " / ".join(f"{r.accuracy_at_1.value:.3f}" for r in found)
    hit = int(outcomes.any(axis=1).sum())
    queries = round(sum(r.queries for r in found) / len(found))
    return (
        f"| {name} | {pooled.value:.3f} [{pooled.low:.3f}, {pooled.high:.3f}] | {outcomes.size} | "
        f"{each} | {lent:.2f} | {hit} of {len(outcomes)} | {queries:,} |"
    )


def _rows(record: AttackRecord) -> list[np.ndarray]:
    """Return a target's outcomes; which of them were the hits does not matter here."""
    counts = [(t.accuracy_at_1.successes, t.accuracy_at_1.n) for t in record.per_target]
    return [np.arange(n) < hits for hits, n in counts]


def _hit_by_any(adaptive: list[list[AttackRecord]]) -> str:
    hit = total = 0
    for records in adaptive:
        total += len(records[0].per_target)
        hit += sum(
            any(
                s.pseudonym == n and s.accuracy_at_1.successes
                for r in records
                for s in r.per_target
            )
            for n in names
        )
    return f"{hit} of {total}"


if __name__ == "__main__":
    main()
