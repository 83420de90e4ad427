"""What a rival's network learns at one strength or another, to see how far its curve must reach.

    python benchmarks/strengths.py --seeds 1001 --processes 2

The built-in people of each seed without DCD, as `dcdctl compare` trains its rows; test images that
are known. A curve that ends where accuracy is still whole shows its rival weaker than it is. These
seeds are none of docs/results.md, and nothing is attacked, so that curves may be chosen by them.
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
from tasks.training_spec import TrainingSpec

COCO = {"name": "bido", "measure": "coco"}
NEG = {"name": "neg-ls"}
TRAP = {"name": "trap-mid"}
STRENGTHS: tuple[dict[str, Any], ...] = (
    {"name": "none"},
    *({"name": "bido", "scale": scale} for scale in (10, 30, 100)),
    *({**COCO, "scale": scale} for scale in (0.3, 1, 3, 10, 30)),
    *({**NEG, "alpha": alpha} for alpha in (-0.3, -0.6, -1, -2)),
    *({**TRAP, "weight": weight} for weight in (0.01, 0.03, 0.1)),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1001])
    every = range(len(STRENGTHS))
    parser.add_argument("--only", type=int, nargs="+", default=list(every), choices=every)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    print(circumstances())
    print("| seed | defence | known | s |\n|---|---|---|---|")
    with ProcessPoolExecutor(args.processes, get_context("spawn")) as pool:
        for seed in args.seeds:
            world = drawn_world(seed)
            chosen = [STRENGTHS[i] for i in args.only]
            asked = [pool.submit(learn, world, defense) for defense in chosen]
            for i, defense, one in zip(args.only, chosen, asked, strict=True):
                known, seconds = one.result()
                said = ", ".join(str(value) for value in defense.values())
                print(f"| {seed} | {i}: {said} | {known} | {seconds:.0f} |", flush=True)


def learn(world: World, defense: dict[str, Any]) -> tuple[str, float]:
    """Return how many test images the network knows, and seconds of one core."""
    torch.set_num_threads(1)
    started = time.process_time()
    training = TrainingSpec.model_validate(
        load_spec(None, []).training.model_dump() | {"defense": defense}
    )
    plan = make_plan(world.rows, (), world.num_classes, DcdSpec(), world.seed)
    checkpoint = fit_here(world.images, plan, world.num_classes, training, world.seed)
    seconds = time.process_time() - started
    return str(accuracy_of(checkpoint.classifier(), world).overall), seconds


if __name__ == "__main__":
    main()
