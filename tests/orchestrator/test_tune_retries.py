"""What the real Ray Tune does with trials that break: again, given up, or the end, by the cause."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.budget import Budget, Limits
from orchestrator.bundle import pack, scratch
from orchestrator.ledger import Ledger, read_spend
from orchestrator.placement import Placement
from orchestrator.publisher import publish, start_publisher
from orchestrator.records import TrialRecord
from orchestrator.retries import Lost, RetryBudget
from orchestrator.spec import ExperimentSpec
from orchestrator.store import RECORD, records_of, write_atomic
from orchestrator.trial import World
from orchestrator.trial_queue import TrialQueue
from orchestrator.tune_adapter import SweepTrial, tune_queue
from tasks.errors import ClusterError, DataError, DiskFullError
from tests.augment.test_plan import row_table, target

pytestmark = pytest.mark.usefixtures("ray")

Breaks = dict[int, list[str]]
"""By trial: what each of its attempts does, one after the other; then it ends well."""


class BreakingTrial(SweepTrial):
    """A trial that does nothing but break as it is told to."""

    def setup(self, config: dict[str, Any], shared: dict[str, Any]) -> None:
        self.publisher, self.halt, self.config = shared["publisher"], None, config
        self.breaks: Breaks = shared["breaks"]

    def run(self) -> dict[str, Any]:
        from orchestrator.tune_adapter import told

        out = Path(self.config["out"])
        index, identity = self.config["plan"].index, self.config["trial_id"]
        out.mkdir(parents=True, exist_ok=True)
        attempt = len(list(out.glob("attempt-*")))
        (out / f"attempt-{attempt}").touch()
        ways = self.breaks.get(index, [])
        match ways[attempt] if attempt < len(ways) else "":
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "connection":
                raise ConnectionResetError("gone")
            case "bug":
                raise ZeroDivisionError("a bug outside of what a record can hold")
            case "data":
                raise DataError("label 3 has no rows")
            case "full":
                raise OSError(28, "No space left on device")
        record = TrialRecord(
            trial_id=identity, index=index, defense="none", status="ok", settings={}, seed=0
        )
        with scratch() as folder:
            text = record.model_dump_json(indent=2) + "\n"
            write_atomic(folder / RECORD, text, durable=False)
            publish(self.publisher, out, pack(folder), RECORD)
        if ways == ["killed at the end"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return told(record)


def small_world() -> World:
    """Return the smallest data: no trial looks at it."""
    rows = row_table(4, 2)
    images = np.zeros((rows.num_rows, 8, 8, 3), dtype=np.uint8)
    return World(rows, images, (target(0),), ("p",), 4, 0, "digest")


class Swept:
    """A sweep of six trials on the session's Ray.

    Attributes:
        run: its folder.
        lost: what the driver was told of trials that broke.
        raised: what ended it.
    """

    def __init__(self, run: Path, breaks: Breaks, retries: RetryBudget | None = None) -> None:
        import ray

        self.run, self.lost, self.raised = run, list[Lost](), None
        run.mkdir()
        world = small_world()
        spec = ExperimentSpec()
        sweep = spec.sweep.model_copy(update={"trials": 5, "lookahead": 5})
        spec = spec.model_copy(update={"sweep": sweep})
        self.queue = TrialQueue(
            spec, world, "judges", run, 6, ledger=Ledger(run), budget=Budget(Limits())
        )
        shared = {"publisher": start_publisher(), "breaks": breaks, "world": ray.put(world)}
        self.raised = None
        try:
            tune_queue(
                shared,
                self.queue,
                placed=Placement(2, {"CPU": 1.0}, {"CPU": 1.0}, False, False),
                workers=1,
                scratch=run.parent / "tune",
                begun=lambda index, identity: None,
                finished=self.finished,
                lost=self.lost.append,
                retries=retries,
                trainable=BreakingTrial,
            )
        except Exception as error:
            self.raised = error

    raised: Exception | None

    def finished(self, record: TrialRecord) -> None:
        """Take a record, as a sweep does."""

    @property
    def attempts(self) -> dict[int, int]:
        """How often each trial was begun."""
        found = {}
        for index, identity in self.queue._given.items():
            found[index] = len(list((self.run / "trials" / identity).glob("attempt-*")))
        return found

    @property
    def told(self) -> list[tuple[int, str, str]]:
        return [(one.index, one.broken.failure, one.verdict) for one in self.lost]


def test_lost_processes_are_run_again_and_a_bug_or_bad_data_are_not(tmp_path: Path) -> None:
    breaks = {1: ["killed"], 2: ["connection", "connection"], 3: ["bug"], 4: ["data"]}
    breaks[5] = ["killed at the end"]  # its record is there, and only its answer is not
    swept = Swept(tmp_path / "run", breaks)
    assert swept.attempts == {0: 1, 1: 2, 2: 3, 3: 1, 4: 1, 5: 1}
    assert sorted(record.index for record in records_of(swept.run)) == [0, 1, 2, 5]
    assert sorted(swept.told) == [
        (1, "machines", "again"),
        (2, "machines", "again"),
        (2, "machines", "again"),
        (3, "trial", "give up"),
        (4, "data", "give up"),
    ]
    assert {one.index for one in swept.lost if one.broken.died} == {1}  # Ray's word, not a guess
    assert isinstance(swept.raised, ClusterError)
    assert "2 trials did not finish" in str(swept.raised)
    assert not read_spend(swept.run).open


def test_a_trial_that_is_lost_too_often_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    swept = Swept(tmp_path / "run", {2: ["killed"] * 5}, RetryBudget(6, each=1))
    assert swept.attempts == {0: 1, 1: 1, 2: 2, 3: 1, 4: 1, 5: 1}
    assert len(records_of(swept.run)) == 5
    assert isinstance(swept.raised, ClusterError)
    assert "its process died" in str(swept.raised)
    assert read_spend(swept.run).lost > 0


def test_a_full_disk_ends_the_sweep_and_is_never_tried_again(tmp_path: Path) -> None:
    swept = Swept(tmp_path / "run", {1: ["full"] * 3})
    assert isinstance(swept.raised, DiskFullError)
    assert swept.attempts[1] == 1
    assert sum(swept.attempts.values()) <= 4  # what ran beside it ends, and no other begins
    assert (1, "storage", "end") in swept.told


def test_the_whole_sweep_has_a_budget_too(tmp_path: Path) -> None:
    breaks = {index: ["connection"] * 2 for index in range(6)}
    swept = Swept(tmp_path / "run", breaks, RetryBudget(6, each=2, in_all=3))
    assert isinstance(swept.raised, ClusterError)
    assert "run again 3 times after trouble of the machines" in str(swept.raised)
    assert "compute.sweep_retries=3" in str(swept.raised)
    assert sum(verdict == "again" for _, _, verdict in swept.told) == 3


def test_an_error_of_the_driver_itself_is_not_taken_for_the_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Raised inside of Tune, it would have Tune run the trial again."""

    def full(self: Swept, record: TrialRecord) -> None:
        if record.index == 1:
            raise DiskFullError("no space is left")

    monkeypatch.setattr(Swept, "finished", full)
    swept = Swept(tmp_path / "run", {})
    assert isinstance(swept.raised, DiskFullError)
    assert swept.attempts[1] == 1
    assert 1 in {record.index for record in records_of(swept.run)}
