"""Which trials of a run are still to do: recomputed from the records, never stored."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from orchestrator.comparison_spec import compared_points
from orchestrator.records import TrialRecord
from orchestrator.search import known_enough, suggest
from orchestrator.spec import ExperimentSpec
from orchestrator.store import records_of
from orchestrator.trial import TrialPlan, World


class TrialQueue:
    """Which trials are still to run, and with which setting.

    Args:
        spec: the experiment.
        world: shared data.
        judged_by: key of evaluation classifier and prior, part of every trial's identity.
        run: folder of the run.
        total: trials, the control included.
    """

    def __init__(
        self, spec: ExperimentSpec, world: World, judged_by: str, run: Path, total: int
    ) -> None:
        self.spec = spec
        self.world = world
        self.judged_by = judged_by
        self.run = run
        self.total = total
        self.records: dict[int, TrialRecord] = {}
        self.given: set[int] = set()
        stored = {record.trial_id: record for record in records_of(run)}
        for index in range(total):
            if not self.ready(index):
                break
            plan = self.plan(index)
            record = stored.get(plan.trial_id(world, judged_by))
            if record is not None:
                self.records[index] = record

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
        left = [index for index in self.missing() if index not in self.given]
        if not left:
            return "empty"
        if not self.ready(left[0]):
            return None
        self.given.add(left[0])
        plan = self.plan(left[0])
        trial_id = plan.trial_id(self.world, self.judged_by)
        return plan, trial_id, self.run / "trials" / trial_id

    def put(self, record: TrialRecord) -> None:
        """Take a finished trial's record."""
        self.records[record.index] = record
