"""A node that freezes in the middle of a trial, and wakes when another has done the trial.

All processes of the node are stopped as a broken link would have it: nobody hears of them, and they
do not know.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SWEEP = """
import json, os, signal, sys, threading, time
from pathlib import Path
from clusters.embedded import DRIVER_ENV, WORKER_ENV
os.environ.update(DRIVER_ENV | WORKER_ENV | {
    "RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000", "RAY_health_check_failure_threshold": "3",
})
import psutil, ray
from ray.cluster_utils import Cluster

folder, scratch = Path(sys.argv[1]), sys.argv[2]
cluster = Cluster(
    initialize_head=True,
    head_node_args={"num_cpus": 1, "temp_dir": scratch, "include_dashboard": False},
)
far = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False, runtime_env={"env_vars": WORKER_ENV})

from orchestrator.ledger import Ledger
from orchestrator.placement import Placement
from orchestrator.publisher import start_publisher
from orchestrator.records import TrialRecord
from orchestrator.spec import ExperimentSpec
from orchestrator.trial_queue import TrialQueue
from orchestrator.bundle import pack, scratch as empty
from orchestrator.publisher import publish
from orchestrator.store import RECORD, records_of, write_atomic
from orchestrator.tune_adapter import SweepTrial, told, tune_queue
from tests.orchestrator.test_tune_retries import small_world

class Sleeping(SweepTrial):
    def setup(self, config, shared):
        self.publisher, self.halt, self.config = shared["publisher"], None, config
    def run(self):
        out, identity = Path(self.config["out"]), self.config["trial_id"]
        out.mkdir(parents=True, exist_ok=True)
        here = ray.get_runtime_context().get_node_id()
        (out / f"attempt-{self.config['lease'].rsplit('-')[-1]}").write_text(here)
        for _ in range(120 if here == shared_far else 20):
            time.sleep(0.1)
        record = TrialRecord(
            trial_id=identity, index=self.config["plan"].index, defense="none", status="ok",
            settings={}, seed=0, title=here,
        )
        with empty() as files:
            write_atomic(files / RECORD, record.model_dump_json(), durable=False)
            publish(self.publisher, out, pack(files), RECORD, (identity, self.config["lease"]))
        return told(record)

shared_far = far.node_id
run = folder / "run"
run.mkdir(parents=True)
spec = ExperimentSpec()
sweep = spec.sweep.model_copy(update={"trials": 2, "lookahead": 3})
spec = spec.model_copy(update={"sweep": sweep})
queue = TrialQueue(spec, small_world(), "judges", run, 3, ledger=Ledger(run))

raylet = psutil.Process(far.all_processes["raylet"][0].process.pid)
frozen = []
def freeze():
    while not any(p.read_text() == shared_far for p in run.glob("trials/*/attempt-*")):
        time.sleep(0.1)
    time.sleep(3)  # some heartbeats
    for process in [raylet, *raylet.children(recursive=True)]:
        process.send_signal(signal.SIGSTOP)
        frozen.append(process)
threading.Thread(target=freeze, daemon=True).start()

lost = []
began = time.monotonic()
tune_queue(
    {"publisher": start_publisher()}, queue,
    placed=Placement(2, {"CPU": 1.0}, {"CPU": 1.0}, False, False), workers=1,
    scratch=folder / "tune", begun=lambda index, identity: None, finished=lambda record: None,
    lost=lambda one: lost.append([one.index, one.broken.failure, one.verdict,
                                  round(time.monotonic() - began, 1)]),
    trainable=Sleeping,
)
records = {r.index: r.title for r in records_of(run)}
before = {p: p.read_bytes() for p in run.glob("trials/*/record.json")}
attempts = {p.parent.name: len(list(p.parent.glob("attempt-*"))) for p in before}
for process in frozen:
    process.send_signal(signal.SIGCONT)
time.sleep(20)  # the one that wakes would have ended by now, and published
after = {p: p.read_bytes() for p in run.glob("trials/*/record.json")}
print(json.dumps({
    "far": shared_far, "records": records, "lost": lost, "attempts": sorted(attempts.values()),
    "unchanged": before == after, "frozen": len(frozen),
}))
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_frozen_node_s_trial_is_done_once_by_another(tmp_path: Path) -> None:
    short = Path(f"/tmp/un{os.getpid()}")  # noqa: S108  (a socket's path is limited)
    (tmp_path / "tmp" / "ray").mkdir(parents=True)
    ended = subprocess.run(
        [sys.executable, "-c", SWEEP, str(tmp_path / "sweep"), str(short)],
        env=os.environ | {"TMPDIR": str(tmp_path / "tmp"), "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    subprocess.run(["rm", "-rf", str(short)], check=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    told = json.loads(ended.stdout.splitlines()[-1])
    assert told["frozen"] >= 2
    assert len(told["records"]) == 3
    assert told["far"] not in told["records"].values()
    assert [(failure, verdict) for _, failure, verdict, _ in told["lost"]] == [
        ("machines", "again")
    ]
    assert told["attempts"] == [1, 1, 2]
    assert told["unchanged"]
