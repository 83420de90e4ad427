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

from orchestrator.budget import Budget
from orchestrator.comparison_spec import compared_points
from orchestrator.ledger import Ledger, device_hours
from orchestrator.records import TrialRecord
from orchestrator.schedule import Schedule
from orchestrator.search import known_enough, suggest
from orchestrator.spec import ExperimentSpec
from orchestrator.store import RECORD, records_of
from orchestrator.trial import TrialPlan, World
from tasks.workers import most_workers


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
        self._given: dict[int, str] = {}
        stored = {record.trial_id: record for record in records_of(run)}
        for index in range(total):
            if not self.ready(index):
                break
            plan = self.plan(index)
            record = stored.get(plan.trial_id(world, judged_by))
            if record is not None:
                self.records[index] = record
                self.schedule.knows(index, _length(record))

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
            sweep = spec.sweep
            point = compared_points(sweep.rows, sweep.strengths, spec.dcd, spec.training)[index]
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
        share = self.ledger.spend.share if self.ledger is not None else 1.0
        hours = device_hours(record, self.workers, share)
        self.schedule.finish(record.index, hours, _length(record))
        if self.ledger is not None:
            self.ledger.closed(self._given[record.index])

    def lose(self, trial_id: str, *, again: bool = False) -> None:
        """Take a trial that ended without a record; what it took is spent.

        Args:
            trial_id: of the trial.
            again: it is handed out again, first of all; else not in this sitting.
        """
        index = next(i for i, given in self._given.items() if given == trial_id)
        hours = self.schedule.budget.leases[str(index)].spent_hours(self.clock())
        self.schedule.lose(index, hours, again=again)
        if self.ledger is not None:
            self.ledger.closed(trial_id, hours)


def _length(record: TrialRecord) -> float | None:
    """Return how long a trial like this one takes, without what only the first ones wait for.

    The control trains on less than the others, and a trial that failed stopped early.
    """
    if record.index == 0 or record.status == "failed":
        return None
    return sum(s for stage, s in record.cost_s.items() if not stage.startswith("wait"))
