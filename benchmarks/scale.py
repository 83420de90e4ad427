"""A thousand nodes without a cluster: the sweep's own scheduler under a simulated clock.

    python benchmarks/scale.py                 # the table of docs/scale.md, about a minute
    python benchmarks/scale.py --nodes 1000 --trials 20000 --preempt-h 6  # one case

The model is `orchestrator/fleet_model.py`, which `dcdctl plan` uses too;
`benchmarks/scale_real.py` holds it against the real thing.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])

import numpy as np

from benchmarks.timing import circumstances
from orchestrator.budget import HOUR
from orchestrator.fleet_model import Fleet, Model


def lengths_of(count: int, median_s: float, spread: float, seed: int = 0) -> list[float]:
    """Return lengths of trials, log-normal about a median."""
    rng = np.random.default_rng([seed, count])
    return [float(s) for s in median_s * np.exp(spread * rng.standard_normal(count))]


MIXED = (0.7, 1.0, 1.0, 1.6)
SPOT: dict[str, Any] = {"start_s": (60.0, 240.0), "notice_s": 60.0}

SCENARIOS: dict[str, tuple[int, Fleet, dict[str, float]]] = {
    "equal nodes": (20_000, Fleet(1000), {}),
    "start-up, 4 speeds": (20_000, Fleet(1000, speeds=MIXED, **SPOT), {}),
    "and preempted, 12 h": (20_000, Fleet(1000, speeds=MIXED, preempt_s=12 * HOUR, **SPOT), {}),
    "and preempted, 4 h": (20_000, Fleet(1000, speeds=MIXED, preempt_s=4 * HOUR, **SPOT), {}),
    "and 1 % lost": (
        20_000,
        Fleet(1000, speeds=MIXED, preempt_s=12 * HOUR, lost=0.01, **SPOT),
        {},
    ),
    "8 slots a node": (20_000, Fleet(125, 8, MIXED, preempt_s=12 * HOUR, **SPOT), {}),
    "40 trials a slot": (40_000, Fleet(1000, speeds=MIXED, preempt_s=12 * HOUR, **SPOT), {}),
    "10 trials a slot": (10_000, Fleet(1000, speeds=MIXED, preempt_s=12 * HOUR, **SPOT), {}),
    "5 trials a slot": (5_000, Fleet(1000, speeds=MIXED, preempt_s=12 * HOUR, **SPOT), {}),
    "2 trials a slot": (2_000, Fleet(1000, speeds=MIXED, preempt_s=12 * HOUR, **SPOT), {}),
    "search, lookahead 64": (1_000, Fleet(64), {"lookahead": 64}),
    "search, lookahead 4": (200, Fleet(1000), {"lookahead": 4}),
    "budget of 1 000 h": (
        20_000,
        Fleet(1000, speeds=MIXED, preempt_s=12 * HOUR, **SPOT),
        {"limit_hours": 1000, "expected_s": 1200},
    ),
    "budget, nothing known": (
        2_000,
        Fleet(100, speeds=MIXED, preempt_s=4 * HOUR, lost=0.01, **SPOT),
        {"limit_hours": 100},
    ),
}
"""Trials, the fleet, and what else is asked; every trial takes 600 s in the median."""


def row(name: str, trials: int, fleet: Fleet, asked: dict[str, float], seed: int) -> str:
    """Simulate once and return a line of the table."""
    started = time.perf_counter()
    found = Model(lengths_of(trials, 600, 0.3, seed), fleet, seed=seed, **asked).run()  # type: ignore[arg-type]
    took = time.perf_counter() - started
    text = f"| {name} | {fleet.nodes} x {fleet.slots} | {found.ended:,} of {trials:,} | "
    text += f"{found.lost:,} | {found.makespan_s / HOUR:.2f} h | "
    if "limit_hours" in asked:
        over = found.spent_hours - asked["limit_hours"]
        text += f"limit {asked['limit_hours']:g} h, spent {found.spent_hours:.1f} h, "
        text += f"over by {max(0.0, over) / found.largest_hours if over > 0 else 0:.2f} of a lease"
    else:
        kind = "work" if found.work_s >= found.chain_s else "chain"
        text += f"{found.bound_s / HOUR:.2f} h ({kind}) | **{found.ratio:.3f}**"
    return f"{text} | {took:.1f} s |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=int, help="one case of your own instead of the table")
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--preempt-h", type=float, default=math.inf)
    parser.add_argument("--limit-h", type=float)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(circumstances())
    print(
        "| case | nodes x slots | trials | lost | makespan | lower bound | ratio | simulated in |"
    )
    if args.nodes:
        fleet = Fleet(args.nodes, args.slots, MIXED, preempt_s=args.preempt_h * HOUR, **SPOT)
        asked = {"limit_hours": args.limit_h} if args.limit_h else {}
        print(row("own", args.trials, fleet, asked, args.seed))
        return
    for name, (trials, fleet, asked) in SCENARIOS.items():
        print(row(name, trials, fleet, asked, args.seed), flush=True)


if __name__ == "__main__":
    main()
