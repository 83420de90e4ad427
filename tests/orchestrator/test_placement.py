"""What runs at once is computed from the cluster, fits into it, and never waits for itself."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.placement import Capacity, Placement, Slots, like, place
from orchestrator.store import records_of
from tasks.errors import ClusterError
from tasks.workers import WorkerRange

FEW = st.integers(1, 64)


@given(
    cpus=FEW,
    gpus=st.integers(0, 8),
    workers=st.integers(1, 8),
    trials=st.integers(1, 100),
    limit=st.none() | FEW,
    share=st.sampled_from([0.25, 0.5, 0.6, 1.0, 2.0]),
)
def test_what_runs_at_once_fits_into_the_cluster(
    cpus: int, gpus: int, workers: int, trials: int, limit: int | None, share: float
) -> None:
    capacity = Capacity(cpus, gpus)
    try:
        placed = place(capacity, workers=workers, trials=trials, limit=limit, gpus_per_trial=share)
    except ClusterError:
        assert workers > cpus or (gpus and max(workers if workers > 1 else share, 0) > gpus)
        return
    assert 1 <= placed.slots <= min(trials, limit or trials)
    devices = (workers if workers > 1 else share) if gpus else 0
    assert placed.slots * workers <= cpus
    assert placed.slots * devices <= gpus
    # Beside its processes a trial of several holds nothing, or they could wait for it.
    assert placed.trial.get("CPU") == (1.0 if workers == 1 else 0.0)
    if gpus and workers == 1 and share <= 1:  # a part is of one device
        assert placed.slots <= gpus * int(1 / share)
    if not placed.judges_first:
        assert workers + 1 <= cpus
        assert not gpus


@pytest.mark.parametrize(
    ("capacity", "workers", "words"),
    [
        (Capacity(2), 4, r"training.workers=4 needs 4 cores at once, and the cluster has 2"),
        (Capacity(8, 1), 2, r"needs 2 GPUs at once, and the cluster has 1"),
        (Capacity(8, 0.5), 1, r"compute.gpus_per_trial=1 is more than the cluster's 0.5 GPUs"),
    ],
)
def test_what_can_never_run_is_said_before_anything_runs(
    capacity: Capacity, workers: int, words: str
) -> None:
    with pytest.raises(ClusterError, match=words):
        place(capacity, workers=workers, trials=7)


@pytest.mark.parametrize(
    ("capacity", "slots"),
    [
        (Capacity(1), 1),  # waits for nothing: the trial itself holds no core
        (Capacity(4), 1),
        (Capacity(9), 2),
        (Capacity(16, 2), 1),
    ],
)
def test_an_elastic_training_takes_what_is_there(capacity: Capacity, slots: int) -> None:
    placed = place(capacity, workers=WorkerRange(least=1, most=4), trials=7)
    assert (placed.slots, placed.trial["CPU"], placed.spread) == (slots, 0.0, True)


def test_an_elastic_training_waits_for_its_least() -> None:
    with pytest.raises(ClusterError, match=r"prior\.gan\.workers=3 needs 3 cores at once"):
        place(
            Capacity(2), workers=WorkerRange(least=3, most=4), trials=1, setting="prior.gan.workers"
        )


def test_what_runs_at_once_is_counted_again_while_nodes_come_and_go() -> None:
    now, cores, told = [0.0], [2.0], list[int]()

    def again() -> Placement:
        return place(Capacity(cores[0]), workers=2, trials=9)

    slots = Slots(again(), again, told.append, lambda: now[0])
    assert slots() == 1
    cores[0] = 8.0
    assert slots() == 1  # not looked at again yet
    now[0] = 6.0
    assert slots() == 4
    cores[0], now[0] = 1.0, 12.0
    assert slots() == 1  # too small for a trial: what is lost waits for nodes to come back
    cores[0], now[0] = 4.0, 18.0
    assert slots() == 2
    assert told == [4, 1, 2]


def test_a_cluster_that_began_without_gpus_is_counted_by_its_cores() -> None:
    assert like(Capacity(2), Capacity(18, 4)) == Capacity(18)
    assert like(Capacity(2, 1), Capacity(18, 4)) == Capacity(18, 4)


def test_who_lends_idle_cores() -> None:
    assert place(Capacity(4), workers=1, trials=2).lends
    assert not place(Capacity(4), workers=1, trials=2, limit=2).lends
    assert not place(Capacity(4), workers=2, trials=2).lends


def sweep(storage: Path, settings: dict[str, int]) -> subprocess.CompletedProcess[str]:
    dcdctl = str(Path(sys.executable).with_name("dcdctl"))
    words = [f"--set={key}={value}" for key, value in settings.items()]
    return subprocess.run(
        [dcdctl, "sweep", "--smoke", "--storage", str(storage), *words]
        + ["--set=adaptive_attacks=[]", "--set=tracking.enabled=false"],
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("cpus", "workers"), [(1, 1), (2, 2), (3, 2)])
def test_a_sweep_ends_on_a_cluster_that_is_just_large_enough(
    cpus: int, workers: int, tmp_path: Path
) -> None:
    ended = sweep(tmp_path, {"compute.cpus": cpus, "training.workers": workers})
    assert ended.returncode == 0, ended.stderr
    assert len(list(tmp_path.glob("runs/*/trials/*/record.json"))) == 3


@pytest.mark.slow
def test_attacks_that_are_spread_over_idle_cores_find_the_same(tmp_path: Path) -> None:
    hashes = []
    for cpus in (2, 5):
        storage = tmp_path / str(cpus)
        ended = sweep(storage, {"compute.cpus": cpus, "sweep.trials": 1})
        assert ended.returncode == 0, ended.stderr
        (run,) = (storage / "runs").iterdir()
        hashes.append([record.results_hash() for record in records_of(run)])
    assert len(hashes[0]) == 2
    assert hashes[0] == hashes[1]


SEES = """
import ast
import os
from clusters.embedded import DRIVER_ENV, WORKER_ENV
os.environ.update(DRIVER_ENV | WORKER_ENV)
import ray
ray.init(address="local", num_cpus=1, num_gpus=2, include_dashboard=False, log_to_driver=False,
         logging_level="ERROR", runtime_env={"env_vars": WORKER_ENV})
def seen():
    return os.environ.get("CUDA_VISIBLE_DEVICES")
print([ray.get(ray.remote(num_gpus=n, num_cpus=0)(seen).remote()) for n in (0, 1, 0.5)])
"""


@pytest.mark.slow
def test_a_task_sees_the_gpus_that_it_asked_for_and_no_other() -> None:
    """The devices are counted, not there: what torch would take for one is the variable."""
    ended = subprocess.run(
        [sys.executable, "-c", SEES], capture_output=True, text=True, timeout=200, check=True
    )
    nothing, whole, half = ast.literal_eval(ended.stdout.splitlines()[-1])
    assert nothing == ""
    assert whole in ("0", "1")
    assert half in ("0", "1")
