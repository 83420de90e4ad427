"""A program: train on a cluster of one machine that grows to two and loses the second again.

    python tests/orchestrator/elastic_training.py FOLDER

Prints one JSON object: how many processes each start had, and how far the weights are from those of
a training in one process.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.cluster_utils import Cluster

from augment.plan import make_plan
from augment.spec import DcdSpec
from orchestrator import train_group
from orchestrator.distributed import decode_state, train_loop
from orchestrator.publisher import start_publisher
from orchestrator.train_group import Member, StateKeeper
from orchestrator.trial import fit_here
from tasks.training_spec import TrainingSpec
from tasks.workers import WorkerRange
from tests.augment.test_plan import row_table, target

DEADLINE_S = 400
SPEC = TrainingSpec(width=4, epochs=600, batch_size=16, precision="float32", learning_rate=1e-3)


def noted(member: Member, config: dict[str, Any]) -> None:
    """Train as always, and note how many processes there are."""
    if member.rank == 0:
        with Path(config["notes"]).open("a") as file:
            file.write(f"{member.world}\n")
    train_loop(member, config)


def change(cluster: Cluster, notes: Path, states: Path) -> None:
    """Add a machine when there is a checkpoint, and unplug it when two have trained for a while."""

    def wait_until(count: int) -> None:
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            done = notes.read_text().split() if notes.is_file() else []
            if len(done) >= count and any(states.glob("0*")):
                return
            time.sleep(0.2)

    wait_until(1)
    second = cluster.add_node(num_cpus=1)
    wait_until(2)
    time.sleep(8)
    cluster.remove_node(second, allow_graceful=False)


def main() -> None:
    """Run it."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    train_group.RESIZE_EVERY_S = 3.0
    rows = row_table(4, 12)
    shape = (rows.num_rows, 16, 16, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    plan = make_plan(rows, [target(0)], 4, DcdSpec(), 0)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    notes, states = folder / "notes", folder / "states"
    config = {
        "images": ray.put(images),
        "recipe": ray.put(plan),
        "num_classes": 4,
        "spec": SPEC.model_dump(mode="json"),
        "seed": 0,
        "notes": str(notes),
    }
    keeper = StateKeeper(start_publisher(), states, every_s=1.0)
    # Ray starts machines in the main thread alone.
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(
            train_group.train_group,
            noted,
            config,
            WorkerRange(least=1, most=2),
            keeper,
            SPEC.epochs,
            what="the classifier",
        )
        change(cluster, notes, states)
        last, _ = training.result()
    ray.shutdown()
    cluster.shutdown()
    alone = fit_here(images, plan, 4, SPEC, 0)
    state = decode_state(last)
    gap = np.abs(np.subtract(state.losses, alone.meta.losses)).max()
    print(json.dumps({"starts": [int(n) for n in notes.read_text().split()], "gap": float(gap)}))


if __name__ == "__main__":
    main()
