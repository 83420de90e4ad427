"""A sweep on two nodes that share no disk: spread over both, and the results of one node.

Each node's processes have a working directory and a temporary folder of their own; the storage is
one that only the driver knows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.run_events import Journal
from orchestrator.store import records_of

SWEEP = """
import functools, json, os, subprocess, sys, time
from pathlib import Path
from clusters.embedded import DRIVER_ENV, WORKER_ENV
os.environ.update(DRIVER_ENV | WORKER_ENV)
import ray
from ray.cluster_utils import Cluster
from rich.console import Console

nodes, gpus, late, drained = (int(arg) for arg in sys.argv[1:5])
storage, scratch = sys.argv[5:]
cluster = Cluster(
    initialize_head=True,
    head_node_args={"num_cpus": 2, "num_gpus": gpus, "temp_dir": scratch}
    | {"include_dashboard": False},
)
more = [cluster.add_node(num_cpus=2, num_gpus=gpus) for _ in range(nodes - 1)]
ray.init(address=cluster.address, log_to_driver=False, runtime_env={"env_vars": WORKER_ENV})

from orchestrator import tune_adapter
from orchestrator.smoke import smoke
from orchestrator.spec import ExperimentSpec
from orchestrator.sweep import run_sweep

where = []
class Traced(tune_adapter.SweepTrial):
    def step(self):
        time.sleep(20)  # longer than another process takes to start: else one does all trials
        return super().step() | {"node": ray.get_runtime_context().get_node_id()}
tune_adapter.tune_queue = functools.partial(tune_adapter.tune_queue, trainable=Traced)
ended = tune_adapter.QueueSearcher.on_trial_complete
def traced(self, trial_id, result=None, error=False):
    where.append((result or {}).get("node"))
    if len(where) == 1:
        for _ in range(late):
            cluster.add_node(num_cpus=2, num_gpus=gpus)
        for node in more[:drained]:  # as a cloud does that takes a spot machine back
            words = ["ray", "drain-node", "--address", cluster.address, "--node-id", node.node_id]
            words += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
            subprocess.run([*words, "--deadline-remaining-seconds", "3"], check=True,
                           stdout=subprocess.DEVNULL)
            time.sleep(3)
            cluster.remove_node(node, allow_graceful=False)
    ended(self, trial_id, result, error)
tune_adapter.QueueSearcher.on_trial_complete = traced

spec = smoke(ExperimentSpec())
spec = spec.model_copy(update={
    "storage": storage,
    "adaptive_attacks": spec.adaptive_attacks[:1],
    "sweep": spec.sweep.model_copy(update={"trials": 4 + 3 * late, "lookahead": 8}),
    "compute": spec.compute.model_copy(
        update={"trial_retries": 0, "sweep_retries": 0} if drained else {}
    ),
    "tracking": spec.tracking.model_copy(update={"enabled": False}),
})
outcome = run_sweep(spec, console=Console(quiet=True))
print(json.dumps({"run": outcome.run_dir, "nodes": where}))
ray.shutdown()
cluster.shutdown()
"""


def sweep(
    nodes: int, gpus: int, folder: Path, late: int = 0, drained: int = 0
) -> tuple[dict[str, Any], list[str]]:
    folder.mkdir()
    (folder / "tmp" / "ray").mkdir(parents=True)  # where Ray notes its address
    short = Path(f"/tmp/fl{os.getpid()}{nodes}{gpus}")  # noqa: S108  (a socket's path is limited)
    numbers = [str(number) for number in (nodes, gpus, late, drained)]
    ended = subprocess.run(
        [sys.executable, "-c", SWEEP, *numbers, str(folder / "store"), str(short)],
        env=os.environ
        | {"TMPDIR": str(folder / "tmp"), "RAY_USAGE_STATS_ENABLED": "0"}
        | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=570,
    )
    subprocess.run(["rm", "-rf", str(short)], check=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    told = json.loads(ended.stdout.splitlines()[-1])
    left = [path.name for path in (folder / "tmp").iterdir() if path.name.startswith("dcd-")]
    assert not left
    return told, [record.results_hash() for record in records_of(Path(told["run"]))]


@pytest.mark.slow
def test_two_nodes_share_a_sweep_and_find_what_one_finds(tmp_path: Path) -> None:
    alone, expected = sweep(1, 0, tmp_path / "one")
    spread, found = sweep(2, 0, tmp_path / "two")
    assert len(set(alone["nodes"])) == 1
    assert len(set(spread["nodes"])) == 2
    assert len(expected) == 5
    assert found == expected


@pytest.mark.slow
def test_a_node_that_joins_in_the_middle_takes_trials_and_changes_nothing(tmp_path: Path) -> None:
    grown, found = sweep(1, 0, tmp_path / "grown", late=1)
    assert len(set(grown["nodes"])) == 2
    assert found[:5] == sweep(2, 0, tmp_path / "two")[1]


@pytest.mark.slow
def test_trials_of_a_node_that_is_taken_back_with_notice_run_again_for_free(
    tmp_path: Path,
) -> None:
    told, found = sweep(2, 0, tmp_path / "drained", drained=1)
    assert found == sweep(1, 0, tmp_path / "one")[1]
    events = Journal(Path(told["run"])).new()
    lost = [(e["failure"], e["verdict"]) for e in events if e["event"] == "lost"]
    # None may be run again at the cost of a budget: both are 0.
    assert set(lost) == {("preempted", "again")}


@pytest.mark.slow
def test_a_trial_asks_for_a_gpu_where_there_are_any(tmp_path: Path) -> None:
    """The devices are only counted here: what Ray hands out is used as far as torch sees it."""
    told, hashes = sweep(2, 1, tmp_path / "gpu")
    assert len(set(told["nodes"])) == 2
    assert len(hashes) == 5
