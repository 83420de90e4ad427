"""The rendered Slurm script under a real Slurm: a controller and two nodes, hosts in namespaces.

pytest -m hosts tests/clusters/test_slurm.py      # root; apt-get install slurm-wlm munge; 2 minutes
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.store import records_of
from tests.clusters.hosts import Lab, can_start, lab

MISSING = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if not shutil.which(name)]

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(bool(can_start()), reason=can_start() or "no reason"),
    pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}"),
]

_CONF = """\
ClusterName=lab
SlurmctldHost=node1
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={lab}/munge/sock
CredType=cred/munge
StateSaveLocation={lab}/state
SlurmdSpoolDir={lab}/spool-%n
SlurmctldPidFile={lab}/ctld.pid
SlurmdPidFile={lab}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
NodeName=node1 NodeAddr={network}.0.11 CPUs=2 State=UNKNOWN
NodeName=node2 NodeAddr={network}.0.12 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
# slurmd looks for control groups also where it uses none.
_GROUPS = (
    "mount -t tmpfs tmpfs /sys/fs/cgroup && cd /sys/fs/cgroup && "
    "mkdir freezer memory cpuset devices cpu,cpuacct"
)


@contextmanager
def slurm(hosts: Lab, network: str) -> Iterator[dict[str, str]]:
    """Start it on two hosts, and end it; yield the environment in which its commands find it."""
    folder = hosts.folder
    (folder / "munge").mkdir(mode=0o755)
    (folder / "state").mkdir()
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    (folder / "slurm.conf").write_text(_CONF.format(lab=folder, network=network))
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\n")
    env = {"SLURM_CONF": str(folder / "slurm.conf")}
    names = {"key": "key", "socket": "sock", "pid": "pid", "log": "log", "seed": "seed"}
    kinds = {"socket": "socket", "key": "key-file", "pid": "pid-file", "log": "log-file"}
    munge = [f"--{kinds.get(k, 'seed-file')}={folder}/munge/{v}" for k, v in names.items()]
    lines = [["munged", "--foreground", "--force", *munge]]
    for name in ("node1", "node2"):
        done = hosts.run("sh", "-c", _GROUPS, on=name)
        assert done.returncode == 0, done.stdout
        lines.append(hosts.words("slurmd", "-D", "-N", name, on=name))
    lines.append(hosts.words("slurmctld", "-D", on="node1"))
    started = []
    try:
        for words in lines:
            with (folder / "slurm.log").open("ab") as log:
                started.append(
                    subprocess.Popen(words, env=os.environ | env, stdout=log, stderr=log)
                )
            time.sleep(1)
        end = time.monotonic() + 60
        while hosts.run("sinfo", "-h", "-o", "%T", on="node1", env=env).stdout != "idle\n":
            assert time.monotonic() < end, (folder / "slurm.log").read_text()
            time.sleep(1)
        yield env
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_the_script_runs_a_sweep_on_two_nodes(tmp_path: Path) -> None:
    network = "10.86"
    with lab(2, network=network) as hosts, slurm(hosts, network) as env:
        home = tmp_path / "home"  # nodes of a Slurm cluster share it
        home.mkdir()
        config = tmp_path / "experiment.yaml"
        config.write_text("adaptive_attacks: []\ntracking: {enabled: false}\n")
        values = [f"storage={tmp_path}/results", f"experiment={config}", "cpus=1", "hours=1"]
        sets = [word for value in values for word in ("--set", value)]
        rendered = hosts.run("dcdctl", "cluster", "render", "slurm.sh.j2", *sets, on="node1")
        assert rendered.returncode == 0, rendered.stdout
        script = tmp_path / "sweep.sh"
        script.write_text(rendered.stdout.replace("dcdctl sweep", "dcdctl sweep --smoke"))
        words = ["sbatch", "--wait", f"--output={tmp_path}/out", str(script)]
        whose = env | {"HOME": str(home)}
        ended = hosts.run(*words, on="node1", env=whose, cwd=tmp_path, timeout=570)
        said = (tmp_path / "out").read_text()
        assert ended.returncode == 0, said
        assert "2 of 2 nodes are there" in said
        (run,) = (tmp_path / "results" / "runs").iterdir()
        assert [record.status for record in records_of(run)] == ["ok"] * 3
        token = home / ".ray" / "auth_token"
        assert token.stat().st_mode & 0o777 == 0o600
        assert token.read_text() not in said
        hosts.wait_without_ray("node1", "node2", seconds=60)
