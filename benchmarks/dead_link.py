"""How long until Ray gives a node up that does not answer, as behind a dead link?

    python benchmarks/dead_link.py       # a minute or two each: Ray's default, and ours

The node's raylet is stopped (SIGSTOP), so that it is there and answers nobody; the time runs until
Ray's table calls the node dead. Ours is what the head's commands in clusters/ set.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

from benchmarks.timing import circumstances

PROGRAM = """
import os, signal, time
import ray
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
far = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False)
time.sleep(15)  # the first look at a node comes some seconds after it joined
(raylet,) = far.all_processes["raylet"]
os.kill(raylet.process.pid, signal.SIGSTOP)
began = time.monotonic()
while all(node["Alive"] for node in ray.nodes()) and time.monotonic() < began + 300:
    time.sleep(0.2)
print(f"\\ngiven up after {time.monotonic() - began:.0f} s", flush=True)
os.kill(raylet.process.pid, signal.SIGKILL)
ray.shutdown()
cluster.shutdown()
"""


def main() -> None:
    """Print both."""
    print(circumstances())
    for timeout_ms in (None, "6000"):
        env = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
        if timeout_ms is not None:
            env["RAY_health_check_timeout_ms"] = timeout_ms
        words = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
        (said,) = [line for line in done.stdout.splitlines() if line.startswith("given up")]
        print(f"timeout {timeout_ms or 'as Ray has it'}: {said}", flush=True)


if __name__ == "__main__":
    main()
