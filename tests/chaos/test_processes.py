"""Processes of a sweep that die under it: the sweep goes on by itself."""

from __future__ import annotations

import random
import socket
import time

import pytest

from tests.chaos.conftest import MakeSweep, Undisturbed
from tests.chaos.processes import kill, title, train_groups
from tests.chaos.sweeps import PAIRS, SHORT, Sweep, moments
from tests.chaos.table import Table

pytestmark = pytest.mark.chaos


def dead_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_trials_data_workers_and_writers_that_are_killed(
    make_sweep: MakeSweep, undisturbed: Undisturbed, table: Table, chance: random.Random
) -> None:
    """And MLflow is away for ever."""
    expected = undisturbed(SHORT)
    nowhere = f"http://127.0.0.1:{dead_port()}"
    sweep = make_sweep(
        "killed processes", settings=["tracking.enabled=true", f"tracking.uri={nowhere}"]
    )
    sweep.start()
    away = sweep.hit("MLflow down for ever", "nothing listens at its address", "from the start")
    for _ in range(2):
        strike_data_worker(sweep, chance)
    sweep.strike("judges' task killed", "judges", chance, "while the judges are trained")
    sweep.goes_on(away, time.monotonic())
    away.row.resume_s = 0.0  # nothing waited for it
    roles = ["trial"] * 6 + ["publisher"] * 3
    chance.shuffle(roles)
    for role, moment in zip(roles, moments(chance, len(roles), 2, 36), strict=True):
        sweep.reach(moment)
        name = "trial killed" if role == "trial" else "writer of results killed"
        sweep.strike(name, role, chance, moment)
    sweep.judge(expected, table)
    assert "--replay` shows the rest" in sweep.log.read_text(errors="replace")


def strike_data_worker(sweep: Sweep, chance: random.Random) -> None:
    """Kill a process of Ray Data that decodes images, as soon as one is seen and a little more."""
    sweep.wait("a data worker", lambda: bool(sweep.workers_now("data worker")))
    time.sleep(chance.uniform(0.0, 0.05))
    known = sweep.workers_now("data worker")
    hit = sweep.hit("data worker killed", "SIGKILL while images are decoded", "at the start")
    since = time.monotonic()
    if known:
        kill(chance.choice(known))
    sweep.wait(
        "a data worker more, or trials",
        lambda: bool(set(sweep.workers_now("data worker")) - set(known)) or bool(sweep.under_way()),
    )
    hit.row.resume_s = round(time.monotonic() - since, 1)


def test_training_processes_that_are_killed(
    make_sweep: MakeSweep, undisturbed: Undisturbed, table: Table, chance: random.Random
) -> None:
    """Rank 0 and rank 1 of two."""
    expected = undisturbed(PAIRS)
    sweep = make_sweep("two training processes", size=PAIRS)
    sweep.start()
    ranks = [0, 0, 0, 1, 1, 1]
    chance.shuffle(ranks)
    for rank, moment in zip(ranks, moments(chance, len(ranks), 1, 10), strict=True):
        sweep.reach(moment)
        strike_rank(sweep, rank, chance, f"{moment.records} records, while it trains")
    sweep.judge(expected, table)


def strike_rank(sweep: Sweep, rank: int, chance: random.Random, moment: str) -> None:
    """Kill a training process by its rank; wait until a new group trains."""
    sessions = sweep.sessions()

    def trains() -> bool:
        groups = list(train_groups(sessions))
        return bool(groups) and all(title(pid).strip() for pid in groups[-1][1].values())

    sweep.wait("a group that trains", trains)
    time.sleep(chance.uniform(0.0, 1.0))
    sweep.wait("a group that trains", trains)
    groups = list(train_groups(sessions))
    started, group = groups[-1]
    hit = sweep.hit(f"train rank {rank} killed", f"SIGKILL of rank {rank} of 2", moment)
    hit.row.wasted_s = max(0.0, hit.at - started)  # no checkpoint yet: trainings are short
    since = time.monotonic()
    kill(group[rank])
    sweep.wait("another group", lambda: len(list(train_groups(sessions))) > len(groups))
    hit.row.resume_s = round(time.monotonic() - since, 1)
