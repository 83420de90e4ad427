"""Planted names and secrets are found nowhere; who listens; nothing calls home.

    pytest -m slow tests/orchestrator/test_canaries.py

takes some minutes: two sweeps on a folder of photos, with a bucket and a tracking server of this
machine, one of them with trials that fail, and the commands that look at them.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.deep_search import Hit, Search
from tests.orchestrator.bucket import KEYS, object_server
from tests.orchestrator.canaries import (
    MARK,
    Canaries,
    Stage,
    Watch,
    is_loopback,
    stage,
    write_photos,
)
from tests.orchestrator.test_tracking import free_port, mlflow_server

pytestmark = pytest.mark.slow

DATA = re.compile(
    r"artifacts/(images|listing|typicality|pixels)/[^/]+/(rows|quarantine|listing|embedding|manifest)"
    r"|runs/[^/]+/spec\.json|outputs/[^/]+\.json"
)
"""The data store itself: who is on which image, and the experiment as it was asked for."""

ELSEWHERE = {"ray"}
"""Programs that may listen on other addresses than the loopback one: the store by which processes
that train together find each other (torch's TCPStore), with `training.workers` above 1 alone."""


@dataclass
class Evidence:
    """What was left of the commands, and seen while they ran."""

    stage: Stage
    watch: Watch
    bucket: Path


@pytest.fixture(scope="module")
def seen() -> Iterator[Evidence]:
    planted, tmp = Canaries(), Path(tempfile.mkdtemp(prefix="cny-", dir="/tmp"))
    try:
        with object_server() as bucket:
            served = tmp / "served"
            served.mkdir()
            port = free_port()
            extra = KEYS | {"AWS_ENDPOINT_URL": bucket}
            with stage(tmp, planted, extra) as place, mlflow_server(served, port):
                with Watch(place.env[MARK], tmp / "sessions") as watch:
                    _work(place, f"http://127.0.0.1:{port}")
                _fetch(place, tmp / "bucket")
                yield Evidence(place, watch, tmp / "bucket")
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def _work(place: Stage, server: str) -> None:
    config = str(write_photos(place.root, place.planted))
    uri, local = "s3://results/canary", str(place.root / "local")
    run = ("--debug", "sweep", config, "--smoke", "--set", "sweep.trials=1")
    place.dcdctl(*run, "--storage", uri, "--set", f"tracking.uri={server}")
    changes = ("training.learning_rate=1e38", "adaptive_attacks=[]", "training.workers=2")
    broken = tuple(word for change in changes for word in ("--set", change))
    place.dcdctl(*run, *broken, "--storage", local, codes=(8,))
    for storage in (uri, local):
        place.dcdctl("status", "--storage", storage, "--json")
        place.dcdctl("logs", "--storage", storage)
        place.dcdctl("trials", "--storage", storage, "--json")
        place.dcdctl("clean", "--older-than", "1d", "--storage", storage)
    runs = [str(path.parent) for path in place.root.glob("local/runs/*/spec.json")]
    place.dcdctl("report", *runs)
    place.dcdctl("track", "--replay", "--storage", local)
    place.dcdctl("doctor", "--json", "--storage", local, codes=(0, 1))
    place.dcdctl("validate", "--json")
    place.dcdctl("cluster", "render", "aws.yaml")
    place.dcdctl("cluster", "render", "slurm.sh.j2", "--set", "nodes=2")
    forgotten = f"{place.planted.person} 1\n"
    place.dcdctl("forget", "-", "--storage", local, stdin=forgotten)
    place.dcdctl("forget", "-", "--storage", uri, "--yes", stdin=forgotten)


def _fetch(place: Stage, to: Path) -> None:
    """Write the bucket's objects as files."""
    import os

    import pyarrow.fs as pafs

    keys = {key: place.env[key] for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    os.environ.update(keys)
    try:
        there = pafs.S3FileSystem(
            endpoint_override=place.env["AWS_ENDPOINT_URL"], region="us-east-1"
        )
        pafs.copy_files("results/canary", str(to), source_filesystem=there)
    finally:
        for key in keys:
            del os.environ[key]


def hits(seen: Evidence, words: list[str]) -> set[Hit]:
    """Return where words stand that are not where they belong."""
    root, search, found = seen.stage.root, Search(words, in_base64=True), set()
    album = root / seen.stage.planted.folder
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_relative_to(album) or name in ("experiment.yaml", "home/.ray/auth_token"):
            continue
        if path.is_file() and not path.is_symlink():
            found |= search.path(path, name)
        else:
            found |= search.data(name.encode(), f"name of {name}", deep=False)
    return {hit for hit in found if not DATA.search(hit.where)}


def test_names_are_nowhere_but_in_the_data_store(seen: Evidence) -> None:
    assert hits(seen, seen.stage.planted.names) == set()


def test_secrets_are_nowhere(seen: Evidence) -> None:
    assert hits(seen, [*seen.stage.planted.secrets, seen.stage.planted.access_key]) == set()


def test_the_search_would_have_found_them(seen: Evidence) -> None:
    album = seen.stage.root / seen.stage.planted.folder
    assert Search(seen.stage.planted.names).folder(album)
    listed = {path.name for path in seen.stage.root.glob("local/artifacts/images/*")}
    assert len(listed) >= 3
    rows = seen.stage.root / "local"
    assert {h.word for h in Search(seen.stage.planted.names).folder(rows)} == set(
        seen.stage.planted.names
    )
    sessions = list((seen.stage.root / "sessions").glob("session_*/logs/*"))
    assert len(sessions) > 10
    assert (seen.stage.root / "served" / "server.db").stat().st_size > 100_000
    assert (seen.stage.root / "local" / "mlflow.db").stat().st_size > 100_000
    assert any(path.name == "report.html" for path in seen.bucket.rglob("*"))


def test_no_process_is_told_of_them_on_its_command_line(seen: Evidence) -> None:
    planted = seen.stage.planted
    lines = b"\n".join(seen.watch.command_lines)
    assert len(seen.watch.command_lines) > 10
    assert not Search([*planted.names, *planted.secrets, planted.access_key]).data(lines, "lines")


def test_workers_are_not_given_the_trackers_secret(seen: Evidence) -> None:
    planted = seen.stage.planted
    everything = b"\n".join(seen.watch.environments.values())
    assert not Search(planted.names).data(everything, "environments")
    workers = [
        environment
        for line, environment in seen.watch.environments.items()
        if line.startswith(b"ray::") and not re.match(rb"ray::(IDLE|\w*Agent)", line)
    ]
    assert workers
    assert not Search([planted.tracking_token]).data(b"\n".join(workers), "environments")
    # Storage credentials stay in them: data may lie in a bucket, and workers read it.


def test_who_listens(seen: Evidence) -> None:
    """docs/security.md lists them, and why each is where it is."""
    elsewhere = {one.program for one in seen.watch.listeners if not is_loopback(one.address)}
    text = Path("docs/security.md").read_text()
    for one in sorted(seen.watch.listeners, key=str):
        print(one)
        assert f"`{one.program}`" in text, one
    assert elsewhere <= ELSEWHERE


def test_nothing_calls_home(seen: Evidence) -> None:
    for environment in seen.watch.environments.values():
        if b"RAY_" in environment:
            assert b"RAY_USAGE_STATS_ENABLED=1" not in environment
    stats = list((seen.stage.root / "sessions").rglob("usage_stats.json"))
    assert not stats
