"""Which trials of a run are still to do: recomputed from the records, never stored.

What starts when is decided in `orchestrator.schedule`; here its trials get settings, its leases are
noted in the run's ledger, and its clock is the computer's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from orchestrator.budget import HOUR, Budget
from orchestrator.comparison_spec import compared_points
from orchestrator.ledger import Ledger, device_hours
from orchestrator.records import TrialRecord
from orchestrator.schedule import Schedule
from orchestrator.search import known_enough, suggest
from orchestrator.spec import ExperimentSpec
from orchestrator.store import RECORD, records_of, set_aside_replaced
from orchestrator.task_meter import DriverMeter
from orchestrator.trial import TrialPlan, World
from tasks.workers import most_workers

LOOK_S = 1.0
"""Between two looks at what tasks beside the trials have taken."""

NOISE_S = 1.0
"""Device-seconds by which a meter and a record may differ: messages take a moment."""


class TrialQueue:
    """Which trials are still to run, and with which setting.

    Args:
        spec: the experiment.
        world: shared data.
        judged_by: key of evaluation classifier and prior, part of every trial's identity.
        run: folder of the run.
        total: trials, the control included.
        budget: the accounts, with what was spent before; None is no limit.
        ledger: notes the leases; None notes nothing.
        expected_s: 90 % quantile of a trial's length by the plan's estimate.
        devices: cores or GPUs that a trial holds.
        clock: seconds; only differences count.
    """

    def __init__(
        self,
        spec: ExperimentSpec,
        world: World,
        judged_by: str,
        run: Path,
        total: int,
        *,
        budget: Budget | None = None,
        ledger: Ledger | None = None,
        expected_s: float | None = None,
        devices: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec = spec
        self.world = world
        self.judged_by = judged_by
        self.run = run
        self.total = total
        self.records: dict[int, TrialRecord] = {}
        self.ledger = ledger
        self.clock = clock
        self.workers = most_workers(spec.training.workers)
        self.schedule = Schedule(
            total,
            lambda index, ended: index == 0 or known_enough(index, spec.sweep, ended),
            devices=devices,
            budget=budget,
            expected_s=expected_s,
        )
        self.meter: DriverMeter | None = None
        self._looked = clock()
        self._given: dict[int, str] = {}
        self._unlike = {record.trial_id: record for record in records_of(run)}
        asked = 0
        while asked < total and self.ready(asked):
            record = self._unlike.pop(self.plan(asked).trial_id(world, judged_by), None)
            if record is not None:
                self.records[asked] = record
                self.schedule.knows(asked, self._length(record))
            asked += 1
        other_control = any(record.index == 0 for record in self._unlike.values())
        self._asked = total if other_control and 0 not in self.records else asked

    def set_aside_outdated(self) -> list[TrialRecord]:
        """Rename the records in whose place other trials are to stand, and return them.

        Two records of one index would be counted as two trials. They differ where the images have
        changed since, or the program, or an earlier trial that a setting was chosen by. Where the
        control is another one, so are all.
        """
        return [self._replace(r) for r in [*self._unlike.values()] if r.index < self._asked]

    def _replace(self, record: TrialRecord) -> TrialRecord:
        set_aside_replaced(self.run, record.trial_id)
        if self.ledger is not None:  # what they took stays in the accounts
            self.ledger.add("replaced trials", device_hours(record, self.workers, self.share))
        return self._unlike.pop(record.trial_id)

    def missing(self) -> list[int]:
        """Return the indices without a record."""
        return [index for index in range(self.total) if index not in self.records]

    def ready(self, index: int) -> bool:
        """Say whether all trials that this one's setting depends on have ended."""
        return index == 0 or known_enough(index, self.spec.sweep, set(self.records))

    def plan(self, index: int) -> TrialPlan:
        """Return the trial: a function of its index and of earlier records."""
        spec = self.spec
        if spec.sweep.search == "defenses":
            point = compared_points(spec)[index]
            return TrialPlan(
                index,
                point.dcd,
                point.training,
                spec.attacks,
                point.title,
                point.row,
                point.serving,
            )
        dcd = None
        if index > 0:
            dcd = suggest(index, spec.sweep, spec.dcd, spec.seed, list(self.records.values()))
        return TrialPlan(index, dcd, spec.training, spec.attacks, serving=spec.serving)

    def take(self) -> tuple[TrialPlan, str, Path] | None | Literal["empty"]:
        """Return the next trial with its id and folder, None to wait, "empty" at the end."""
        now = self.clock()
        chosen = self.schedule.next(now)
        if chosen == "wait":
            return None
        if chosen == "ended" or chosen == "budget":
            return "empty"
        plan = self.plan(chosen.index)
        trial_id = plan.trial_id(self.world, self.judged_by)
        if self.ledger is not None:
            self.ledger.opened(trial_id, chosen.devices, chosen.reserve_s)
        self.schedule.start(chosen, now)
        self._given[chosen.index] = trial_id
        return plan, trial_id, self.run / "trials" / trial_id

    def published(self, trial_id: str) -> TrialRecord | None:
        """Return the record of a trial whose files are all in the storage; None where they are not.

        A process may die between handing over its files and saying so.
        """
        try:
            path = self.run / "trials" / trial_id / RECORD
            return TrialRecord.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None

    def put(self, record: TrialRecord) -> None:
        """Take a finished trial's record."""
        self.records[record.index] = record
        self._unlike.pop(record.trial_id, None)
        for other in [r for r in self._unlike.values() if r.index == record.index]:
            self._replace(other)
        hours = device_hours(record, self.workers, self.share)
        lost = self._lost_tasks(record)
        self.schedule.finish(record.index, hours + lost, self._length(record))
        if self.ledger is not None:
            self.ledger.closed(self._given[record.index], lost)

    def lose(self, trial_id: str, *, again: bool = False) -> None:
        """Take a trial that ended without a record; what it took is spent.

        Args:
            trial_id: of the trial.
            again: it is handed out again, first of all; else not in this sitting.
        """
        index = next(i for i, given in self._given.items() if given == trial_id)
        self.look(now=True)
        hours = self.schedule.budget.taken_hours(str(index), self.clock())
        if self.meter is not None:
            self.meter.forget(trial_id)
        self.schedule.lose(index, hours, again=again)
        if self.ledger is not None:
            self.ledger.closed(trial_id, hours)

    def look(self, *, now: bool = False) -> None:
        """Bring what tasks beside the trials have taken into the accounts.

        Args:
            now: also where that was done less than LOOK_S ago.
        """
        if self.meter is None or not (now or self.clock() >= self._looked + LOOK_S):
            return
        self._looked = self.clock()
        spent, budget = self.meter.spent(), self.schedule.budget
        for index, trial_id in self._given.items():
            if str(index) in budget.leases:
                budget.beside[str(index)] = spent.get(trial_id, 0.0) / HOUR

    @property
    def share(self) -> float:
        """Of a device, that a trial of one process holds."""
        return self.ledger.spend.share if self.ledger is not None else 1.0

    def _lost_tasks(self, record: TrialRecord) -> float:
        """Return device-hours of tasks that were lost and run again: no record has them."""
        if self.meter is None:
            return 0.0
        trial_id = self._given[record.index]
        metered = self.meter.spent().get(trial_id, 0.0) / HOUR
        self.meter.forget(trial_id)
        known = sum(record.cost_s.get(attack.label, 0.0) for attack in self.spec.attacks)
        extra = metered - known * self.share / HOUR
        return extra if extra * HOUR > NOISE_S else 0.0

    def _length(self, record: TrialRecord) -> float | None:
        """Return how long a trial like this one holds its devices, to do all that it did.

        What only the first ones wait for is left out. The control trains on less than the others,
        and a trial that failed stopped early: they say nothing.
        """
        if record.index == 0 or record.status == "failed":
            return None
        waits = {s: 0.0 for s in record.cost_s if s.startswith("wait")}
        alone = record.model_copy(update={"cost_s": record.cost_s | waits})
        hours = device_hours(alone, self.workers, self.share)
        return hours * HOUR / self.schedule.devices
