"""What a job leaves on the head, a real SSH host, comes here; nothing leads out of its place."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.clusters.hosts import can_start, lab

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(bool(can_start()), reason=can_start() or "no reason"),
]

CODE = """\
import subprocess, sys
from pathlib import Path, PurePosixPath
from clusters.cluster_file import read_cluster
from clusters.fetch import fetch_folder
from clusters.lifecycle import ssh_words

cluster = read_cluster(sys.argv[1])
head = cluster.config["provider"]["head_ip"]
def on_head(command):
    subprocess.run([*ssh_words(cluster, head), command], check=True)
place = "~/.dcdctl/results/j/result"
on_head(f"mkdir -p {place}/deep && head -c 3000000 /dev/zero > {place}/deep/weights")
fetch_folder(cluster, head, PurePosixPath(place), Path(sys.argv[2]))
for made in (f"rm -r {place}", f"mkdir -p {place} && ln -s /etc/passwd {place}/link"):
    on_head(made)
    try:
        fetch_folder(cluster, head, PurePosixPath(place), Path(sys.argv[2]) / "again")
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_a_folder_of_the_head_comes_over_ssh(tmp_path: Path) -> None:
    with lab(1, network="10.79") as hosts:
        file, out = hosts.onprem(tmp_path), tmp_path / "out"
        ended = hosts.run(sys.executable, "-c", CODE, str(file), str(out), timeout=120)
        assert ended.returncode == 0, ended.stdout
        assert (out / "deep" / "weights").stat().st_size == 3_000_000
        missing, link = ended.stdout.strip().splitlines()[-2:]
        assert missing.startswith("ClusterError ~/.dcdctl/results/j/result did not come from 10.79")
        assert link.startswith("ClusterError ~/.dcdctl/results/j/result did not come")
        assert not (out / "again" / "link").exists()
