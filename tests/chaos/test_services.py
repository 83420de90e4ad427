"""What a sweep talks to breaks, its object store, MLflow, the clock: it goes on by itself."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.chaos.conftest import MakeSweep, Undisturbed
from tests.chaos.sweeps import DCDCTL, LONG, SHORT, Moment, Sweep, moments
from tests.chaos.table import Table
from tests.orchestrator.bucket import KEYS, Proxy, object_server
from tests.orchestrator.test_tracking import free_port

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

FAULTS = {
    "500": "storage answers 500",
    "503": "storage answers 503",
    "slow": "storage is slow",
    "truncated": "storage answers half",
    "cut": "storage cuts connections",
}

JUMPS_S = (86_400.0, -3_600.0, 59.0, -7.0, 600.0)
"""A day on, an hour back, and smaller ones."""


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with object_server() as server:
        between = Proxy(server)
        yield between
        between.close()


def test_an_object_store_that_breaks(
    proxy: Proxy,
    make_sweep: MakeSweep,
    undisturbed: Undisturbed,
    table: Table,
    chance: random.Random,
) -> None:
    expected = undisturbed(SHORT)
    sweep = make_sweep(
        "storage that breaks",
        storage="s3://results/chaos",
        env=KEYS | {"AWS_ENDPOINT_URL": proxy.url},
    )
    kinds = list(FAULTS) * 2 + ["500", "503"]
    chance.shuffle(kinds)
    draws = random.Random(chance.random())  # asked from the proxy's threads, in no fixed order
    sweep.start()
    for kind, moment in zip(kinds, moments(chance, len(kinds), 1, 36), strict=True):
        sweep.reach(moment)
        lasts = round(chance.uniform(2.0, 6.0), 1)
        share = chance.choice((0.5, 1.0)) if kind != "slow" else 1.0
        text = f"{100 * share:.0f} % of the requests for {lasts} s"
        hit = sweep.hit(FAULTS[kind], text, moment)
        since, before = time.monotonic(), len(proxy.faults)
        proxy.plan = lambda _m, _n, kind=kind, share=share: (  # type: ignore[misc]
            kind if draws.random() < share else None
        )
        time.sleep(lasts)
        proxy.plan = lambda _method, _number: None
        hit.row.happened += f", {len(proxy.faults) - before} were hit"
        sweep.goes_on(hit, since)
    sweep.judge(expected, table)


class TrackingServer:
    """A real MLflow server that comes and goes; its database stays."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.port = folder, free_port()
        self.running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it answers some time later."""
        words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        words += ["--port", str(self.port), "--workers", "1"]
        words += ["--backend-store-uri", f"sqlite:///{self.folder}/server.db"]
        words += ["--artifacts-destination", str(self.folder / "served")]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "log").open("ab") as log:
            self.running = subprocess.Popen(
                words, stdout=log, stderr=log, env=os.environ | quiet, start_new_session=True
            )

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        if self.running is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.running.pid, signal.SIGKILL)
            self.running.wait(20)
            self.running = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TrackingServer]:
    made = TrackingServer(tmp_path / "mlflow")
    yield made
    made.kill()


def test_mlflow_that_comes_and_goes_and_a_clock_that_jumps(
    server: TrackingServer,
    make_sweep: MakeSweep,
    undisturbed: Undisturbed,
    table: Table,
    chance: random.Random,
    tmp_path: Path,
) -> None:
    """The server is away at the start, in the middle and at the end; the clock jumps."""
    expected = undisturbed(LONG)
    clock = tmp_path / "clock"
    clock.write_text("0")
    paths = [str(Path(__file__).with_name("clock")), os.environ.get("PYTHONPATH", "")]
    sweep = make_sweep(
        "MLflow and the clock",
        size=LONG,
        settings=["tracking.enabled=true", f"tracking.uri=http://127.0.0.1:{server.port}"],
        env={"CHAOS_CLOCK": str(clock), "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    todo = [("MLflow", 0.0)] * 2 + [("clock", jump) for jump in JUMPS_S]
    chance.shuffle(todo)
    sweep.start()
    hit = sweep.hit("MLflow down at the start", "nothing listens at its address", "0 records")
    sweep.goes_on(hit, time.monotonic())
    hit.row.resume_s = 0.0  # nothing waited for it
    server.start()
    for (what, jump), moment in zip(todo, moments(chance, len(todo), 1, 12), strict=True):
        sweep.reach(moment)
        if what == "clock":
            hit, since = sweep.hit("clock jump", f"set by {jump:+.0f} s", moment), time.monotonic()
            clock.write_text(str(float(clock.read_text()) + jump))
            sweep.goes_on(hit, since)
        else:
            kill_server(sweep, server, "MLflow down in the middle", moment)
            server.start()
    (last,) = moments(chance, 1, 13, 15)
    sweep.reach(last)
    kill_server(sweep, server, "MLflow down at the end", last)
    sweep.judge(expected, table)
    server.start()
    assert shown_after_replay(sweep, server) == len(expected.hashes)


def kill_server(sweep: Sweep, server: TrackingServer, kind: str, moment: Moment) -> None:
    """Kill a server that answers; the sweep goes on."""
    sweep.wait("MLflow", server.answers)
    hit, since = sweep.hit(kind, "its processes are killed", moment), time.monotonic()
    server.kill()
    sweep.goes_on(hit, since)


def shown_after_replay(sweep: Sweep, server: TrackingServer) -> int:
    """Return how many trials MLflow shows as finished after `dcdctl track --replay`."""
    from mlflow import MlflowClient

    end = time.monotonic() + 180
    while not server.answers():
        assert time.monotonic() < end, (server.folder / "log").read_text()
        time.sleep(0.5)
    run = sweep.run()
    assert run is not None
    words = [DCDCTL, "track", str(run), "--replay"]
    subprocess.run(words, check=True, capture_output=True, timeout=300)
    client = MlflowClient(tracking_uri=f"http://127.0.0.1:{server.port}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "dcdctl"]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert {found.info.status for found in runs} == {"FINISHED"}
    return sum("mlflow.parentRunId" in found.data.tags for found in runs)
