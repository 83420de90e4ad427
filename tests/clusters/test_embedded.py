"""The embedded Ray listens to nobody else, and ends without taking the process along."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.orchestrator.canaries import MARK, is_loopback

GARBAGE_ON_ANOTHER_THREAD = """
import threading, time
from clusters.embedded import embedded_ray

class Cycle:
    pass

def litter(references):
    while references:
        cycle = Cycle()
        cycle.itself, cycle.reference = cycle, references.pop()

with embedded_ray(1):
    import ray
    kept = [ray.put(i) for i in range(50)]
    references = [type(kept[0])(kept[i % 50].binary()) for i in range(400_000)]
    threading.Thread(target=litter, args=(references,), daemon=True).start()
    time.sleep(0.01)
print("still here")
"""


def test_garbage_that_holds_references_does_not_end_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GARBAGE_ON_ANOTHER_THREAD],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "still here\n"


LISTENS = """
import json, os, sys, time
from pathlib import Path
from clusters.embedded import CLUSTERS, embedded_ray

with embedded_ray(2):
    import ray
    from ray._private import ray_constants
    from tests.orchestrator.canaries import Watch

    work = ray.remote(lambda: time.sleep(3) or os.environ.get("MLFLOW_TRACKING_TOKEN"))
    begun = work.remote()
    time.sleep(2)
    watch = Watch(sys.argv[1], Path(sys.argv[2]))
    watch.look()
    token = ray.get(begun)
    found = [[one.program, one.address] for one in watch.listeners]
    after = [os.environ.get(CLUSTERS), ray_constants.ENABLE_RAY_CLUSTER]
    print(json.dumps({"listeners": found, "token": token, "after": after}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_nothing_listens_but_on_the_loopback_address(tmp_path: Path) -> None:
    mark = f"loopback-{os.getpid()}-{time.time_ns()}"
    env = {key: value for key, value in os.environ.items() if key != "RAY_AUTH_MODE"}
    env |= {MARK: mark, "MLFLOW_TRACKING_TOKEN": "secret", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", LISTENS, mark, str(tmp_path)],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"gcs_server", "raylet"} <= {program for program, _ in found["listeners"]}
    assert [one for one in found["listeners"] if not is_loopback(one[1])] == []
    assert not found["token"]
    assert found["after"] == [None, True]
    token = tmp_path / ".ray" / "auth_token"
    assert (token.stat().st_mode & 0o777) == 0o600
