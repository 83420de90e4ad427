"""What DP-SGD learns with one schedule or another, at the same privacy.

    python benchmarks/dp_sgd.py --seeds 1001 1002 --processes 2

The built-in people of each seed without DCD, as `dcdctl compare` trains its rows; test images that
are known, at one epsilon. These seeds are none of docs/results.md, so that a schedule may be chosen
on them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.drawn import print_known

SCHEDULES: tuple[dict[str, Any], ...] = (
    {},
    {"epochs": 10},
    {"epochs": 40},
    {"epochs": 40, "learning_rate": 0.01},
    {"epochs": 40, "learning_rate": 0.03},
    {"learning_rate": 0.1},
    {"batch_size": 256, "learning_rate": 0.1},
    {"batch_size": 256, "learning_rate": 0.3},
    {"batch_size": 256},
    {"batch_size": 256, "epochs": 40},
    {"batch_size": 256, "epochs": 40, "learning_rate": 0.01},
    {"batch_size": 256, "epochs": 40, "learning_rate": 0.03},
    {"batch_size": 256, "epochs": 40, "learning_rate": 0.1},
    {"batch_size": 256, "learning_rate": 0.03},
    {"batch_size": 256, "epochs": 80, "learning_rate": 0.01},
    {"batch_size": 512, "epochs": 80},
    {"batch_size": 512, "epochs": 80, "learning_rate": 0.03},
    {
        "batch_size": 256,
        "epochs": 40,
        "learning_rate": 1.0,
        "optimiser": "sgd",
        "max_grad_norm": 0.1,
    },
)
"""Of `training.defense`; all else is as in other rows: 20 epochs, batches of 64, 0.003, AdamW."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1001, 1002])
    parser.add_argument("--epsilon", type=float, default=8.0)
    every = range(len(SCHEDULES))
    parser.add_argument("--only", type=int, nargs="+", default=list(every), choices=every)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    asked = {}
    for i in args.only:
        said = ", ".join(f"{k} {v}" for k, v in SCHEDULES[i].items()) or "the other rows'"
        asked[f"{i}: {said}"] = {"name": "dp-sgd", "epsilon": args.epsilon, **SCHEDULES[i]}
    print_known(args.seeds, asked, args.processes)


if __name__ == "__main__":
    main()
