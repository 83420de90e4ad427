"""Does the model of `benchmarks/scale.py` say what the real scheduler does, on 1, 2 and 4 nodes?

    python benchmarks/scale_real.py                    # about six minutes

Real is: `ray.cluster_utils.Cluster` on this machine, Ray Tune, the sweep's own adapter and queue;
only a trial sleeps instead of training, for a time that is known beforehand. What the model has to
be told (how long a process takes to start, and what a trial costs beside its work) is measured on
one node; two and four nodes are then predicted, and the error is printed. All nodes share the cores
of this machine, so more processes start more slowly than on nodes of their own. So a second
prediction adds the processor time of a start, measured on one node, for each process that waits for
a core; a third is told the start-up that was measured beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])
os.environ["PYTHONPATH"] = sys.path[0]
os.environ |= {"RAY_AIR_NEW_OUTPUT": "0", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}

import numpy as np
import pyarrow as pa

from benchmarks.scale import lengths_of
from benchmarks.timing import circumstances
from clusters.embedded import DRIVER_ENV
from orchestrator.config import load_spec
from orchestrator.fleet_model import Fleet, Model
from orchestrator.placement import Capacity, place
from orchestrator.records import TrialRecord
from orchestrator.trial import TrialPlan, World
from orchestrator.trial_queue import TrialQueue
from orchestrator.tune_adapter import SweepTrial, tune_queue
from tasks.types import ROW_SCHEMA

SLOTS = 2


class SleepingTrial(SweepTrial):
    """A trial that takes a known time and leaves a record without results."""

    def setup(self, config: dict[str, Any], shared: dict[str, Any]) -> None:
        """Take the lengths; no data, no judges."""
        self.start_cpu = time.process_time()  # of this process until it can work: imports
        self.lengths = shared["lengths"]
        self.halt = shared["halt"]
        self.config = config

    def run(self) -> dict[str, Any]:
        """Sleep."""
        plan: TrialPlan = self.config["plan"]
        began = time.time()
        time.sleep(self.lengths[plan.index])
        record = TrialRecord(
            trial_id=self.config["trial_id"],
            index=plan.index,
            defense="none" if plan.index == 0 else "dcd",
            status="ok",
            settings={},
            seed=0,
            cost_s={"train": time.time() - began, "began": 0.0},
            versions={"began": repr(began), "start_cpu": repr(self.start_cpu)},
        )
        return {"done": True, "record": record.model_dump_json(), "attack_accuracy": 1.0}


@dataclass
class Measured:
    """One real search: when each trial was handed out, began, and was heard of again.

    `start_cpu_s` is the processor time of a process until it can work, the mean over processes.
    """

    makespan_s: float
    given: dict[int, float]
    began: dict[int, float]
    heard: dict[int, float]
    start_cpu_s: float


@contextlib.contextmanager
def nodes(count: int) -> Iterator[None]:
    """Start a cluster of nodes of two slots each on this machine."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ |= DRIVER_ENV
    args = {"num_cpus": SLOTS, "include_dashboard": False, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=args)
    try:
        for _ in range(count - 1):
            cluster.add_node(num_cpus=SLOTS, object_store_memory=100 << 20)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def run(count: int, lengths: list[float], hours: float | None = None) -> Measured:
    """Run sleeping trials through Tune on so many nodes."""
    levels = ", ".join(f"{i / len(lengths):.4f}" for i in range(len(lengths)))
    space = "curvature_mislabel_fraction: [1], target_sigma: [0.03], surrogate_sigma: [0.003]"
    spec = load_spec(
        None,
        [
            "sweep.search=grid",
            f"sweep.space={{mislabel_fraction: [{levels}], {space}}}",
        ],
    )
    nobody = World(
        pa.Table.from_pylist([], schema=ROW_SCHEMA),
        np.empty((0, 1, 1, 3), np.uint8),
        targets=(),
        pseudonyms=(),
        num_classes=2,
        seed=0,
        digest="",
    )
    given: dict[int, float] = {}
    began: dict[int, float] = {}
    heard: dict[int, float] = {}
    start_cpu: set[float] = set()

    def finished(record: TrialRecord) -> None:
        heard[record.index] = time.time()
        began[record.index] = float(record.versions["began"])
        start_cpu.add(float(record.versions["start_cpu"]))

    with nodes(count), tempfile.TemporaryDirectory(prefix="dcd-") as folder:
        queue = TrialQueue(spec, nobody, "", Path(folder) / "run", len(lengths))
        placed = place(Capacity(count * SLOTS), workers=1, trials=len(lengths))
        started = time.time()
        tune_queue(
            {"lengths": lengths},
            queue,
            placed=placed,
            workers=1,
            scratch=Path(folder),
            begun=lambda index, _: given.update({index: time.time() - started}),
            finished=finished,
            trainable=SleepingTrial,
        )
    for times in (began, heard):
        times.update({index: at - started for index, at in times.items()})
    return Measured(max(heard.values()), given, began, heard, statistics.mean(start_cpu))


def overheads(found: Measured, lengths: list[float], slots: int) -> tuple[float, float]:
    """Return the seconds before a slot's first trial begins, and beside each later one's work."""
    order = sorted(found.began, key=lambda index: found.began[index])
    first = statistics.mean(found.began[index] for index in order[:slots])
    beside = [found.heard[i] - found.given[i] - lengths[i] for i in order[slots:]]
    return first, statistics.mean(beside)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--median-s", type=float, default=10.0)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4])
    args = parser.parse_args()
    print(circumstances())
    lengths = lengths_of(args.trials, args.median_s, 0.3)
    told: tuple[float, float] | None = None
    cores, start_cpu = float(os.cpu_count() or 1), 0.0
    for count in args.nodes:
        found = run(count, lengths)
        own = overheads(found, lengths, count * SLOTS)
        if told is None:
            told, start_cpu = own, found.start_cpu_s
        # Nodes of their own would start side by side; here their processes share the cores.
        queued = start_cpu * (max(1.0, count * SLOTS / cores) - max(1.0, SLOTS / cores))
        text = f"  {count} x {SLOTS}: real {found.makespan_s:.1f} s"
        for name, (first, beside) in (
            ("told of one node", told),
            ("and that all share these cores", (told[0] + queued, told[1])),
            ("of its own start", own),
        ):
            fleet = Fleet(count, SLOTS, first_s=first, next_s=beside, decide_s=0.0)
            model = Model(lengths, fleet).run().makespan_s
            text += f"; model {name} {model:.1f} s ({model / found.makespan_s - 1:+.1%})"
        print(
            f"{text}; a slot starts after {own[0]:.1f} s, a trial costs {own[1]:.2f} s, "
            f"a start {found.start_cpu_s:.1f} s of a core",
            flush=True,
        )


if __name__ == "__main__":
    main()
