"""What a sweep talks to breaks, its object store, MLflow, the clock: it goes on by itself."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.conftest import MakeSweep, Undisturbed
from tests.chaos.sweeps import DCDCTL, SHORT, Sweep, moments
from tests.chaos.table import Table
from tests.orchestrator.bucket import KEYS, Proxy, object_server
from tests.orchestrator.test_tracking import free_port, mlflow_server

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
    kinds = list(FAULTS) * 2 + ["503"]
    chance.shuffle(kinds)
    draws = random.Random(chance.random())  # asked from the proxy's threads, in no fixed order
    sweep.start()
    for kind, moment in zip(kinds, moments(chance, len(kinds), 1, 20), strict=True):
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


def test_mlflow_that_comes_and_goes_and_a_clock_that_jumps(
    make_sweep: MakeSweep,
    undisturbed: Undisturbed,
    table: Table,
    chance: random.Random,
    tmp_path: Path,
) -> None:
    """The server is away at the start, in the middle and at the end; the clock is set 4 times."""
    expected = undisturbed(SHORT)
    port, clock = free_port(), tmp_path / "clock"
    clock.write_text("0")
    paths = [str(Path(__file__).with_name("clock")), os.environ.get("PYTHONPATH", "")]
    sweep = make_sweep(
        "MLflow and the clock",
        settings=["tracking.enabled=true", f"tracking.uri=http://127.0.0.1:{port}"],
        env={"CHAOS_CLOCK": str(clock), "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    folder = tmp_path / "mlflow"
    folder.mkdir()
    todo = [("middle", 0.0)] * 2 + [("clock", jump) for jump in (86_400.0, -3_600.0, 59.0, -7.0)]
    chance.shuffle(todo)
    sweep.start()
    missing = sweep.hit("MLflow down at the start", "nothing listens at its address", "0 records")
    with ExitStack() as running:
        since = time.monotonic()
        sweep.goes_on(missing, since)
        running.enter_context(mlflow_server(folder, port))
        for (what, jump), moment in zip(todo, moments(chance, len(todo), 3, 18), strict=True):
            sweep.reach(moment)
            since = time.monotonic()
            if what == "clock":
                hit = sweep.hit("clock jump", f"the clock is set by {jump:+.0f} s", moment)
                clock.write_text(str(float(clock.read_text()) + jump))
                sweep.goes_on(hit, since)
                continue
            hit = sweep.hit("MLflow down in the middle", "its processes are killed", moment)
            running.close()
            sweep.goes_on(hit, since)
            running.enter_context(mlflow_server(folder, port))
        (last,) = moments(chance, 1, 20, 22)
        sweep.reach(last)
        since = time.monotonic()
        hit = sweep.hit("MLflow down at the end", "its processes are killed, and stay away", last)
        running.close()
        sweep.goes_on(hit, since)
        sweep.judge(expected, table)
        running.enter_context(mlflow_server(folder, port))
        assert shown_after_replay(sweep, port) == len(expected.hashes)


def shown_after_replay(sweep: Sweep, port: int) -> int:
    """Return how many trials MLflow shows as finished after `dcdctl track --replay`."""
    import subprocess

    from mlflow import MlflowClient

    run = sweep.run()
    assert run is not None
    words = [DCDCTL, "track", str(run), "--replay"]
    subprocess.run(words, check=True, capture_output=True, timeout=300)
    client = MlflowClient(tracking_uri=f"http://127.0.0.1:{port}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "dcdctl"]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert {found.info.status for found in runs} == {"FINISHED"}
    return sum("mlflow.parentRunId" in found.data.tags for found in runs)
