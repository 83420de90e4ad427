"""Hosts and their cables: a cluster of SSH hosts in namespaces, with results in a bucket.

The sweep is sent with `--cluster`; a lost head ends it, and the same command with --resume goes on
on a new one.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chaos.conftest import SEED, Undisturbed
from tests.chaos.sweeps import DCDCTL, LONG, Hit, Moment, Sweep, moments
from tests.chaos.table import Table
from tests.clusters.hosts import OPERATOR, Lab, can_start, lab

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(bool(can_start()), reason=can_start() or "no reason"),
]

NETWORK = "10.76"
HEAD, WORKERS = "node1", ("node2", "node3")

_READ = """
import boto3, json, sys
s3, found = boto3.client("s3"), {}
for page in s3.get_paginator("list_objects_v2").paginate(Bucket="results"):
    for one in page.get("Contents", []):
        key = one["Key"]
        if key.endswith(("record.json", "events.jsonl")):
            body = s3.get_object(Bucket="results", Key=key)["Body"].read().decode()
            found[key] = [int(one["LastModified"].timestamp()), body]
print(json.dumps(found))
"""


class HostSweep(Sweep):
    """A sweep that runs on hosts; what it has done is read from its bucket."""

    def on(self, hosts: Lab, env: dict[str, str], file: Path) -> None:
        """Say where it runs."""
        self.hosts, self.env, self.file = hosts, env, file

    def start(self) -> None:
        """Send it; every time but the first with --resume."""
        words = [DCDCTL, "sweep", str(self.config), "--cluster", str(self.file)]
        words += ["--storage", self.storage, *(["--resume"] if self.begun else [])]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.hosts.words(*words),
                cwd=self.folder,
                env={k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
                | self.env
                | {"COLUMNS": "200", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.begun = True

    def bucket(self) -> dict[str, Any]:
        done = self.hosts.run(sys.executable, "-c", _READ, env=self.env)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def records(self) -> dict[Path, tuple[int, bytes]]:
        return {
            Path(key): (stamp, text.encode())
            for key, (stamp, text) in self.bucket().items()
            if key.endswith("record.json")
        }

    def events(self) -> list[dict[str, Any]]:
        lines = [
            line
            for key, (_, text) in self.bucket().items()
            if key.endswith("events.jsonl")
            for line in text.splitlines()
        ]
        return [json.loads(line) for line in lines if line.endswith("}")]

    def told(self) -> int:
        """Return how many trials the operator was told of, by all drivers together."""
        return self.log.read_bytes().count(b"attacks@1")

    def reach(self, moment: Moment) -> None:
        self.wait(f"{moment.records} records", lambda: self.told() >= moment.records)
        time.sleep(moment.pause_s)

    def goes_on(self, hit: Hit, since: float) -> None:
        before = self.told()
        self.wait(f"a record after {hit.row.kind}", lambda: self.told() > before)
        hit.row.resume_s = round(time.monotonic() - since, 1)

    def workers_now(self, role: str = "trial") -> list[int]:
        return []

    def enter(self, expected: Any, table: Table, after: dict[Path, tuple[int, bytes]]) -> None:
        """Say which trials ran at each fault, now that the whole journal is in the bucket."""
        events = self.events()
        for hit in self.hits:
            hit.under_way = {}
            for event in events:
                if event["at"] <= hit.at and event["event"] in ("start", "begin", "trial"):
                    if event["event"] == "start":
                        hit.under_way = {}
                    elif event["event"] == "begin":
                        hit.under_way[event["trial_id"]] = event["at"]
                    else:
                        hit.under_way.pop(event["trial_id"], None)
            again = [
                event["at"] - hit.at
                for event in events
                if event["at"] > hit.at and event["event"] == "lost" and event["verdict"] == "again"
            ]
            if again and hit.lost_attempts:
                hit.row.happened += f"; its trial began again after {min(again):.0f} s"
        super().enter(expected, table, after)


def start_ray(hosts: Lab, name: str, env: dict[str, str]) -> None:
    """Start Ray on a host, with one core; node1 is the head."""
    head = hosts.hosts[HEAD].address
    words = f"ray start --address={head}:6379"
    if name == HEAD:
        words = "ray start --head --port=6379 --dashboard-host=0.0.0.0 --dashboard-port=8265"
    words += " --num-cpus=1 --disable-usage-stats"
    log = hosts.folder / f"{name}.ray"
    done = hosts.run("sh", "-c", f"{words} >>{log} 2>&1 </dev/null", on=name, env=env)
    assert done.returncode == 0, log.read_text()


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[Lab, dict[str, str], Path]]:
    """Start a bucket and three hosts with Ray and a token."""
    with lab(3, network=NETWORK) as hosts:
        address = hosts.hosts[OPERATOR].address
        token = hosts.folder / "token"
        token.write_text("0123456789abcdef0123456789abcdef")
        token.chmod(0o600)
        env = {
            "AWS_ENDPOINT_URL": f"http://{address}:5000",
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_health_check_timeout_ms": "6000",  # as our cluster files have it
        }
        words = [sys.executable, "-m", "moto.server", "-H", address, "-p", "5000"]
        with (hosts.folder / "moto.log").open("wb") as log:
            server = subprocess.Popen(
                hosts.words(*words), env=os.environ | env, stdout=log, stderr=log
            )
        try:
            make = "import boto3; boto3.client('s3').create_bucket(Bucket='results')"
            end = time.monotonic() + 90
            while hosts.run(sys.executable, "-c", make, env=env).returncode != 0:
                assert time.monotonic() < end, "no bucket"
            for name in (HEAD, *WORKERS):
                start_ray(hosts, name, env)
            file = folder / "cluster.yaml"
            head = hosts.hosts[HEAD].address
            file.write_text(
                yaml.safe_dump({"address": f"http://{head}:8265", "token_file": str(token)})
            )
            yield hosts, env, file
        finally:
            server.kill()
            server.wait()


def raylet_of(hosts: Lab, name: str) -> int:
    """Return a host's raylet, as the host itself numbers it."""
    found = hosts.run("ps", "-eo", "pid,args", "--no-headers", on=name).stdout.splitlines()
    (pid,) = [int(line.split()[0]) for line in found if "/raylet/raylet " in line]
    return pid


def break_host(
    sweep: HostSweep, kind: str, chance: random.Random, moment: Moment, env: dict[str, str]
) -> None:
    """Break one thing."""
    hosts, name = sweep.hosts, chance.choice(WORKERS)
    address = hosts.hosts[name].address
    if kind == "raylet of a host killed":
        hit = sweep.hit(kind, f"SIGKILL of the raylet of {name}, started again", moment)
        since = time.monotonic()
        hosts.run("kill", "-9", str(raylet_of(hosts, name)), on=name)
        hit.lost_attempts = 1
        start_ray(hosts, name, env)
    elif kind == "host unplugged":
        hit = sweep.hit(kind, f"{name} is gone with all its processes; one like it joins", moment)
        since = time.monotonic()
        hosts.unplug(name)
        hit.lost_attempts = 1
        hosts.add(name, address)
        start_ray(hosts, name, env)
    elif kind == "link down for 30 s":
        hit = sweep.hit(kind, f"the cable of {name} is out for 30 s", moment)
        since = time.monotonic()
        hosts.link(name, up=False)
        sweep.goes_on(hit, since)
        time.sleep(max(0.0, since + 30 - time.monotonic()))
        hosts.link(name, up=True)
        return
    elif kind == "link down for good":
        hit = sweep.hit(kind, f"the cable of {name} is out and stays so", moment)
        since = time.monotonic()
        hosts.link(name, up=False)
        hit.lost_attempts = 1
    else:
        hit = sweep.hit(kind, "the head is unplugged; resumed on a new cluster", moment)
        hosts.unplug(HEAD)
        hit.at = time.time()
        os.killpg(sweep.driver.pid, signal.SIGKILL)  # who watched; nothing runs any more
        sweep.driver.wait()
        hosts.add(HEAD, f"{NETWORK}.0.11")
        for each in WORKERS:
            hosts.run("ray", "stop", "--force", on=each, env=env)
        for each in (HEAD, *WORKERS):
            start_ray(hosts, each, env)
        hit.lost_attempts = 3
        since = time.monotonic()
        sweep.start()
        sweep.wait("a trial on the new cluster", lambda: trial_runs(hosts))
        hit.row.resume_s = round(time.monotonic() - since, 1)
        return
    sweep.goes_on(hit, since)


def trial_runs(hosts: Lab) -> bool:
    return any(
        "ResourceTrainable.train" in line
        for name in (HEAD, *WORKERS)
        for line in hosts.processes(name)
    )


def test_hosts_and_cables(
    undisturbed: Undisturbed, table: Table, chance: random.Random, tmp_path: Path
) -> None:
    expected = undisturbed(LONG)
    kinds = ["raylet of a host killed", "link down for 30 s", "host unplugged", "head lost"]
    chance.shuffle(kinds)
    kinds.append("link down for good")  # the last: that host does nothing any more
    with cluster(tmp_path) as (hosts, env, file):
        where = "s3://results/chaos"
        sweep = HostSweep("three hosts", tmp_path / "sweep", SEED, size=LONG, storage=where)
        sweep.on(hosts, env, file)
        try:
            sweep.start()
            for kind, moment in zip(kinds, moments(chance, len(kinds), 1, 14), strict=True):
                sweep.reach(moment)
                break_host(sweep, kind, chance, moment, env)
            assert sweep.driver.wait(400) == 0, sweep.said()
            sweep.enter(expected, table, sweep.records())
        finally:
            print(sweep.said())
            sweep.close()
