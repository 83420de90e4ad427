"""A real Ray cluster of one node with a token, in a PID namespace of its own.

`ray stop` would end every Ray of the machine; the end of a namespace ends what is in it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests


@dataclass(frozen=True)
class LocalCluster:
    address: str
    token_file: Path

    def file(self, folder: Path) -> Path:
        """Write a cluster file that names it."""
        path = folder / "cluster.yaml"
        path.write_text(f"address: {self.address}\ntoken_file: {self.token_file}\n")
        return path


def can_start() -> bool:
    """Say whether namespaces can be made here."""
    return os.geteuid() == 0 and shutil.which("unshare") is not None


@contextmanager
def local_cluster(cpus: int = 2) -> Iterator[LocalCluster]:
    """Start it, wait until it takes jobs, and end it."""
    folder = Path(tempfile.mkdtemp(prefix="dcl-", dir="/tmp"))
    token = folder / "token"
    token.write_text(secrets.token_hex(16))
    token.chmod(0o600)
    dashboard, agent = _free_port(), _free_port()
    words = ["start", "--head", "--block", "--port=0", f"--temp-dir={folder}/ray"]
    words += [f"--num-cpus={cpus}", "--disable-usage-stats", "--dashboard-agent-grpc-port=0"]
    words += [f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "PATH": "/usr/bin:/bin"}
    # What jobs keep in the home folder of the head belongs to this cluster, and goes with it.
    (folder / "home").mkdir()
    env["HOME"] = str(folder / "home")
    env.pop("PYTHONPATH", None)
    process = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
        + [sys.executable, "-m", "ray.scripts.scripts", *words],
        cwd="/",
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        _wait(address, token, process)
        yield LocalCluster(address, token)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait(address: str, token: Path, process: subprocess.Popen[bytes]) -> None:
    headers = {"Authorization": f"Bearer {token.read_text()}"}
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            if requests.get(f"{address}/api/jobs/", headers=headers, timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.5)
    raise RuntimeError("the cluster did not start")
