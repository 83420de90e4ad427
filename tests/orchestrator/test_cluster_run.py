"""`--cluster` on a real cluster of one node with a token; and what travels there, and back."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from orchestrator.cluster_run import _keep, events_of
from orchestrator.config import load_spec
from orchestrator.events import PREFIX
from orchestrator.shipping import REQUEST, ROOMS, START, pack_code, pack_request
from orchestrator.store import records_of
from tasks.errors import ClusterError
from tests.clusters.local_cluster import LocalCluster, can_start, local_cluster


def test_what_is_sent_is_the_code_and_the_experiment(tmp_path: Path) -> None:
    pack_code(tmp_path)
    pack_request(tmp_path, "sweep", [load_spec(None, [])], "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*ROOMS, REQUEST, START])
    names = [p.name for p in tmp_path.rglob("*")]
    assert not [n for n in names if n.startswith((".", "test_")) or n == "__pycache__"]
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) < 10e6


def test_events_are_found_between_what_others_print() -> None:
    event = {"event": "line", "text": "hello"}
    lines = ["(raylet) noise", PREFIX + json.dumps(event), PREFIX + '{"torn', "more"]
    assert list(events_of(iter(lines))) == [event]


def test_a_job_writes_nowhere_but_into_its_run(tmp_path: Path) -> None:
    data = base64.b64encode(b"x").decode()
    _keep(tmp_path / "run", "trials/a/record.json", data)
    assert (tmp_path / "run/trials/a/record.json").read_bytes() == b"x"
    for path in ("../stolen", "/etc/stolen", "a/../../stolen"):
        with pytest.raises(ClusterError, match="outside its run"):
            _keep(tmp_path / "run", path, data)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    if not can_start():
        pytest.skip("needs root and unshare, for a PID namespace")
    with local_cluster() as found:
        yield found


def dcdctl(*words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("dcdctl")), *words]


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"COLUMNS": "200"}
    return subprocess.run(
        dcdctl(*words), cwd=cwd, env=env, capture_output=True, text=True, timeout=600
    )


def settings(storage: Path, seed: int) -> list[str]:
    return ["--smoke", "--seed", str(seed), "--storage", str(storage)] + [
        "--set=adaptive_attacks=[]",
        "--set=tracking.enabled=false",
    ]


@pytest.mark.slow
def test_a_sweep_on_a_cluster_is_the_sweep_here(cluster: LocalCluster, tmp_path: Path) -> None:
    file = cluster.file(tmp_path)
    here, there = tmp_path / "here", tmp_path / "there"
    assert run("sweep", *settings(here, 0), cwd=tmp_path).returncode == 0
    ended = run("sweep", *settings(there, 0), "--cluster", str(file), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    hashes = []
    for storage in (here, there):
        (folder,) = (storage / "runs").iterdir()
        assert (folder / "report.html").is_file()
        hashes.append([record.results_hash() for record in records_of(folder)])
    assert len(hashes[0]) == 3
    assert hashes[0] == hashes[1]
    token = cluster.token_file.read_text()
    assert token not in ended.stdout + ended.stderr


@pytest.mark.slow
def test_ctrl_c_leaves_the_job_and_attach_comes_back(cluster: LocalCluster, tmp_path: Path) -> None:
    file, storage = cluster.file(tmp_path), tmp_path / "storage"
    words = dcdctl("sweep", *settings(storage, 1), "--cluster", str(file))
    started = subprocess.Popen(
        words,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has its children ignore Ctrl-C.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert started.stdout is not None
    line = started.stdout.readline()
    while "private images" not in line:
        line = started.stdout.readline()
        assert line, "it ended before it began"
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=60)
    assert started.returncode == 130
    assert "the job goes on without you" in said
    (job,) = (path.stem for path in (storage / "jobs").iterdir())
    ended = run("attach", job, "--storage", str(storage), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert len(list(storage.glob("runs/*/trials/*/record.json"))) == 3


@pytest.mark.slow
def test_a_job_is_stopped_and_resumed(cluster: LocalCluster, tmp_path: Path) -> None:
    file, storage = cluster.file(tmp_path), tmp_path / "storage"
    more = [*settings(storage, 2), "--cluster", str(file)]
    assert run("sweep", *more, "--detach", cwd=tmp_path).returncode == 0
    (job,) = (path.stem for path in (storage / "jobs").iterdir())
    time.sleep(8)
    assert run("cancel", job, "--storage", str(storage), cwd=tmp_path).returncode == 0
    ended = run("sweep", *more, "--resume", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert len(list(storage.glob("runs/*/trials/*/record.json"))) == 3


@pytest.mark.slow
def test_a_cluster_that_does_not_let_one_in(cluster: LocalCluster, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 32)
    file = LocalCluster(cluster.address, wrong).file(tmp_path)
    refused = run("sweep", *settings(tmp_path, 0), "--cluster", str(file), cwd=tmp_path)
    assert refused.returncode == 7
    assert "refuses the token" in refused.stderr
    file = LocalCluster(cluster.address, tmp_path / "none").file(tmp_path)
    refused = run("sweep", *settings(tmp_path, 0), "--cluster", str(file), cwd=tmp_path)
    assert refused.returncode == 7
    assert "asks for a token" in refused.stderr
