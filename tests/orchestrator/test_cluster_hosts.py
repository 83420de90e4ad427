"""The main command on three machines: SSH hosts in namespaces, brought up, used and taken down.

pytest -m hosts tests/orchestrator/test_cluster_hosts.py -s      # root; about 7 minutes
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.store import records_of
from tests.clusters.hosts import can_start, lab

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(bool(can_start()), reason=can_start() or "no reason"),
]


def test_a_sweep_on_three_hosts_with_two_training_workers_on_two(tmp_path: Path) -> None:
    with lab(3, network="10.78") as hosts:
        file = hosts.onprem(tmp_path)
        # A core a machine, so that two training processes are on two machines.
        text = file.read_text()
        text = text.replace("ray start --head", "ray start --head --num-cpus=1")
        text = text.replace("ray start --address", "ray start --num-cpus=1 --address")
        file.write_text(text)
        storage = tmp_path / "storage"
        words = ["dcdctl", "sweep", "--smoke", "--cluster", str(file), "--storage", str(storage)]
        more = ["training.workers=2", "adaptive_attacks=[]", "tracking.enabled=false"]
        sets = [f"--set={one}" for one in more]
        ended = hosts.run(*words, *sets, "--down", timeout=900)
        print(ended.stdout)
        assert ended.returncode == 0, ended.stdout
        (run,) = (storage / "runs").iterdir()
        assert (run / "report.html").is_file()
        records = records_of(run)
        assert [record.status for record in records] == ["ok"] * 3
        for name in ("node1", "node2", "node3"):
            assert hosts.ray(name) == [], name
        assert json.loads((run / "evaluation.json").read_text())["accuracy"]["n"] > 0


def test_hosts_that_were_forgotten_end_at_their_maximum_lifetime(tmp_path: Path) -> None:
    with lab(2, network="10.78") as hosts:
        file = hosts.onprem(tmp_path)
        text = file.read_text()
        assert text.count("sleep 43200") == 2  # 12 hours, of the head and of the others
        file.write_text(text.replace("sleep 43200", "sleep 60"))
        ended = hosts.run("dcdctl", "cluster", "up", str(file), timeout=400)
        assert ended.returncode == 0, ended.stdout
        assert all(hosts.ray(name) for name in ("node1", "node2"))
        hosts.wait_without_ray("node1", "node2", seconds=150)
