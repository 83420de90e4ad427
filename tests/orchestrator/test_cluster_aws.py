"""The main command on EC2 without Amazon: up, 1 to 2 workers, one taken back in the middle, down.

pytest -m hosts tests/orchestrator/test_cluster_aws.py -s      # root; about 10 minutes
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from orchestrator.config import load_spec
from orchestrator.smoke import smoke
from tests.clusters.fake_ec2 import FakeEc2, fake_ec2
from tests.clusters.hosts import can_start

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(bool(can_start()), reason=can_start() or "no reason"),
]

_LIST = """
import boto3
for one in boto3.client("s3").list_objects_v2(Bucket="results")["Contents"]:
    print(one["Key"])
"""

GRID = (
    "{mislabel_fraction: [0.2, 0.4], curvature_mislabel_fraction: [0.7, 1.0], "
    "target_sigma: [0.03], surrogate_sigma: [0.003]}"
)

PATHS = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def sweep(cloud: FakeEc2, file: Path, folder: Path, *more: str) -> subprocess.Popen[str]:
    """Start the command; what it says goes to `log` in the folder."""
    config = folder / "experiment.yaml"
    config.write_text(yaml.safe_dump(smoke(load_spec(None, [])).model_dump(mode="json")))
    words = ["dcdctl", "sweep", str(config), "--cluster", str(file), *more]
    words += ["--storage", "s3://results/sweep"]
    # Trials of some seconds, so that a node is lost under one and another comes in time.
    changes = ["compute.concurrent_trials=3", "sweep.search=grid", "tracking.enabled=false"]
    changes += ["adaptive_attacks=[]", f"sweep.space={GRID}", "training.epochs=60"]
    words += [f"--set={one}" for one in changes]
    with (folder / "log").open("w") as out:
        return subprocess.Popen(
            cloud.hosts.words(*words),
            cwd=folder,
            env=os.environ | cloud.env | {"COLUMNS": "200", "PATH": PATHS},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
        )


def test_a_sweep_on_ec2_grows_survives_a_lost_node_and_leaves_nothing(tmp_path: Path) -> None:
    with fake_ec2() as cloud:
        file, log = cloud.cluster(tmp_path, max_workers=2), tmp_path / "log"
        process = sweep(cloud, file, tmp_path, "--down")
        try:
            wait("head and two workers", lambda: len(cloud.running()) >= 3, process, log)
            wait("a first trial", lambda: "attacks@1" in log.read_text(), process, log)
            lost = cloud.terminate_a_worker()
            process.wait(timeout=900)
        finally:
            process.kill()
            print(log.read_text())
        assert process.returncode == 0
        assert cloud.instances[lost][0] == "terminated"
        assert cloud.seen >= 4, "the head, two workers, and one in the place of the lost"
        assert settled(cloud, 0)
        keys = cloud.hosts.run(sys.executable, "-c", _LIST, env=cloud.env).stdout.split()
        assert len([key for key in keys if key.endswith("record.json")]) == 5
        (run,) = (tmp_path / ".dcdctl" / "runs").iterdir()
        assert (run / "report.html").is_file()
        assert len(list(run.glob("trials/*/record.json"))) == 5


def test_a_worker_that_nobody_uses_goes_after_the_idle_timeout(tmp_path: Path) -> None:
    with fake_ec2() as cloud:
        file = cloud.cluster(tmp_path, max_workers=2, idle_timeout_minutes=1)
        process, log = sweep(cloud, file, tmp_path), tmp_path / "log"
        try:
            wait("head and two workers", lambda: len(cloud.running()) >= 3, process, log)
            process.wait(timeout=900)
        finally:
            process.kill()
            print(log.read_text())
        assert process.returncode == 0
        assert settled(cloud, 2, within_s=300), "the head and the one worker of min_workers stay"
        down = ("dcdctl", "cluster", "down", str(file))
        ended = cloud.hosts.run(*down, env=cloud.env | {"PATH": PATHS}, timeout=300)
        assert ended.returncode == 0, ended.stdout
        assert settled(cloud, 0)


def wait(what: str, holds: Callable[[], bool], process: subprocess.Popen[str], log: Path) -> None:
    """Wait for something while a command runs."""
    end = time.monotonic() + 420
    while not holds():
        said = log.read_text()
        assert process.poll() is None, f"ended before {what}: {said}"
        assert time.monotonic() < end, f"no {what}: {said}"
        time.sleep(0.5)


def settled(cloud: FakeEc2, count: int, within_s: float = 30) -> bool:
    """Say whether so many instances are left, once the watcher has seen it."""
    end = time.monotonic() + within_s
    while len(cloud.running()) != count and time.monotonic() < end:
        time.sleep(0.5)
    return len(cloud.running()) == count
