"""A command whose own Ray dies under it says so, and ends."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from clusters.lost_ray import said

DRIVER = """
import os, signal, sys, time
from clusters.embedded import embedded_ray
import ray

with embedded_ray(1):
    @ray.remote
    def slow():
        time.sleep(600)

    waited = slow.remote()
    node = ray._private.worker._global_node
    if sys.argv[1] != "none":
        (started,) = node.all_processes[sys.argv[1]]
        print("killed at", time.time(), flush=True)
        os.kill(started.process.pid, signal.SIGKILL)
        ray.get(waited)
print("went on", flush=True)
"""


def drive(kind: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", DRIVER, kind]
    return subprocess.run(words, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(("kind", "name"), [("raylet", "raylet"), ("gcs_server", "GCS")])
def test_a_driver_whose_ray_is_killed_ends_with_a_sentence(kind: str, name: str) -> None:
    done = drive(kind)
    ended = time.time()
    assert done.returncode == 7, done
    assert f"({name}) was ended by SIGKILL" in done.stderr
    assert "--resume" in done.stderr
    assert "went on" not in done.stdout
    killed = done.stdout.splitlines()[0].removeprefix("killed at ")
    assert ended - float(killed) < 20


def test_an_ordinary_end_is_none_of_its_business() -> None:
    done = drive("none")
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


def test_the_sentence_says_how_it_ended() -> None:
    assert "with exit status 1;" in said("raylet", 1)
    assert "by SIGTERM;" in said("raylet", -15)
    assert "by signal 40;" in said("raylet", -40)  # a real-time one, without a name
