"""What attempts and tasks take is counted, also when their processes were killed: on a real Ray."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.attack_tasks import HELD
from orchestrator.budget import HOUR, Budget, Lease, Limits
from orchestrator.bundle import pack, scratch
from orchestrator.ledger import Ledger, device_hours, read_spend, spent_hours
from orchestrator.placement import Placement
from orchestrator.publisher import publish, start_publisher
from orchestrator.records import TrialRecord
from orchestrator.spec import ExperimentSpec
from orchestrator.store import RECORD, records_of, write_atomic
from orchestrator.task_meter import TaskMeter, TrialMeter
from orchestrator.trial import World
from orchestrator.trial_queue import TrialQueue
from orchestrator.tune_adapter import SweepTrial, told, tune_queue
from tests.augment.test_plan import row_table, target

NAP_S = 2.0


class NappingTrial(SweepTrial):
    """A trial that sleeps; trial 1 is killed after its first nap."""

    def setup(self, config: dict[str, Any], shared: dict[str, Any]) -> None:
        self.publisher, self.halt, self.config = shared["publisher"], None, config
        self.meter, self.killed = shared["meter"], shared["killed"]

    def run(self) -> dict[str, Any]:
        out, index = Path(self.config["out"]), self.config["plan"].index
        out.mkdir(parents=True, exist_ok=True)
        cost = {"train": NAP_S}
        if self.meter is None:
            nap(out / "attempt", self.killed == index)
        else:
            meter = TrialMeter(self.meter, self.config["trial_id"], 1.0)
            cost = {"ppa": nap_in_a_task(meter, out / "attempt", self.killed == index)}
            cost[HELD] = 0.0
        record = TrialRecord(
            trial_id=self.config["trial_id"],
            index=index,
            defense="none",
            status="ok",
            settings={},
            seed=0,
            cost_s=cost,
        )
        with scratch() as folder:
            text = record.model_dump_json(indent=2) + "\n"
            write_atomic(folder / RECORD, text, durable=False)
            publish(self.publisher, out, pack(folder), RECORD)
        return told(record)


def nap(mark: Path, killed: bool) -> float:
    """Sleep; the first time be killed at the end, if so it is told."""
    time.sleep(NAP_S)
    if killed and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return NAP_S


def nap_in_a_task(meter: TrialMeter, mark: Path, killed: bool) -> float:
    """Sleep in a task that Ray runs again when it is lost, as an attack does."""
    import ray

    def metered() -> float:
        with meter.metered("ppa 0"):
            return nap(mark, killed)

    return float(ray.get(ray.remote(num_cpus=0, max_retries=2)(metered).remote()))


def swept(run: Path, *, spread: bool, killed: int | None) -> TrialQueue:
    """Run three napping trials through Tune, one at a time."""
    import ray

    run.mkdir()
    rows = row_table(4, 2)
    images = np.zeros((rows.num_rows, 8, 8, 3), dtype=np.uint8)
    world = World(rows, images, (target(0),), ("p",), 4, 0, "digest")
    spec = ExperimentSpec()
    spec = spec.model_copy(update={"sweep": spec.sweep.model_copy(update={"trials": 2})})
    queue = TrialQueue(spec, world, "judges", run, 3, ledger=Ledger(run), budget=Budget(Limits()))
    tune_queue(
        {"publisher": start_publisher(), "killed": killed, "world": ray.put(world)},
        queue,
        placed=Placement(1, {"CPU": 1.0}, {"CPU": 1.0}, False, spread),
        workers=1,
        scratch=run.parent / "tune",
        begun=lambda index, identity: None,
        finished=lambda record: None,
        trainable=NappingTrial,
    )
    return queue


@pytest.mark.usefixtures("ray")
def test_a_trial_that_was_killed_and_run_again_is_counted_twice(tmp_path: Path) -> None:
    queue = swept(tmp_path / "run", spread=False, killed=1)
    records, spend = records_of(tmp_path / "run"), read_spend(tmp_path / "run")
    assert len(records) == 3
    assert sum(device_hours(r) for r in records) * HOUR == pytest.approx(3 * NAP_S)
    assert NAP_S <= spend.lost * HOUR < 120  # the attempt, and until its end was noticed
    # What the sweep's budget says, and what a resumed one will read from the files.
    spent = queue.schedule.budget.spent_hours
    assert spent == pytest.approx(spent_hours(records, spend))
    assert spent * HOUR >= 4 * NAP_S


@pytest.mark.usefixtures("ray")
def test_a_task_that_was_killed_and_run_again_is_counted_twice(tmp_path: Path) -> None:
    queue = swept(tmp_path / "run", spread=True, killed=1)
    records, spend = records_of(tmp_path / "run"), read_spend(tmp_path / "run")
    assert sum(device_hours(r) for r in records) * HOUR == pytest.approx(3 * NAP_S)
    assert NAP_S <= spend.lost * HOUR < 120
    spent = queue.schedule.budget.spent_hours
    assert spent == pytest.approx(spent_hours(records, spend))
    assert queue.schedule.budget.beside == {}
    assert queue.schedule.budget.leases == {}


def test_the_meter_counts_what_runs_and_charges_a_lost_attempt_until_the_next() -> None:
    now = [0.0]
    meter = TaskMeter(lambda: now[0])
    meter.began("t", "ppa 0", 1)
    meter.began("t", "ppa 32", 2)
    now[0] = 10
    assert meter.spent() == {"t": 30}
    meter.ended("t", "ppa 32")
    now[0] = 25
    meter.began("t", "ppa 0", 1)  # again: the first attempt was lost, nobody knows when
    now[0] = 30
    assert meter.spent() == {"t": 20 + 25 + 5}
    meter.ended("t", "ppa 0")
    meter.ended("t", "ppa 0")
    now[0] = 99
    assert meter.spent() == {"t": 50}
    meter.forget("t")
    assert meter.spent() == {}


def test_tasks_beside_a_lease_count_before_their_trial_ends() -> None:
    budget = Budget(Limits(hours=10))
    budget.leases["1"] = Lease(1, 0.0, 2 * HOUR)
    budget.largest_hours = 2.0
    budget.beside["1"] = 0.5
    assert budget.committed_hours(HOUR) == 2.0  # it keeps what it reserved
    assert budget.live_hours(HOUR) == 1.5
    budget.beside["1"] = 10.9
    assert not budget.overdrawn(HOUR)
    budget.beside["1"] = 11.0
    assert budget.overdrawn(HOUR)
    budget.close("1", 12.0)
    assert budget.live_hours(2 * HOUR) == 12.0
