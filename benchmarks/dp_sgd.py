"""What DP-SGD learns with one schedule or another, at the same privacy.

    python benchmarks/dp_sgd.py --seeds 1001 1002 --processes 2

The built-in people of each seed without DCD, as `dcdctl compare` trains its rows; test images that
are known, at one epsilon. These seeds are none of docs/results.md, so that a schedule may be chosen
on them.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import torch

from augment.plan import make_plan
from augment.spec import DcdSpec
from benchmarks.drawn import drawn_world
from benchmarks.timing import circumstances
from orchestrator.config import load_spec
from orchestrator.trial import World, accuracy_of, fit_here
from tasks.defenses.spec import DpSgdSpec

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
    print(circumstances())
    print("| seed | schedule | known | s |\n|---|---|---|---|")
    with ProcessPoolExecutor(args.processes, get_context("spawn")) as pool:
        for seed in args.seeds:
            world = drawn_world(seed)
            chosen = [SCHEDULES[i] for i in args.only]
            asked = [pool.submit(learn, world, schedule, args.epsilon) for schedule in chosen]
            for i, schedule, one in zip(args.only, chosen, asked, strict=True):
                known, seconds = one.result()
                said = ", ".join(f"{k} {v}" for k, v in schedule.items()) or "the other rows'"
                print(f"| {seed} | {i}: {said} | {known} | {seconds:.0f} |", flush=True)


def learn(world: World, schedule: dict[str, Any], epsilon: float) -> tuple[str, float]:
    """Return how many test images one schedule's network knows, and seconds of one core."""
    torch.set_num_threads(1)
    started = time.process_time()
    defense = DpSgdSpec(epsilon=epsilon, **schedule)
    training = load_spec(None, []).training.model_copy(update={"defense": defense})
    plan = make_plan(world.rows, (), world.num_classes, DcdSpec(), world.seed)
    checkpoint = fit_here(world.images, plan, world.num_classes, training, world.seed)
    seconds = time.process_time() - started
    return str(accuracy_of(checkpoint.classifier(), world).overall), seconds


if __name__ == "__main__":
    main()
