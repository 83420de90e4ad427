"""The budget of a run that goes on: what it may spend, what it spent, and that it was reached."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from orchestrator.budget import HOUR, Budget, Limits, spoken
from orchestrator.ledger import Ledger, read_spend, spent_hours
from orchestrator.placement import capacity_now
from orchestrator.prices import limits_of, running_prices
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store, records_of, write_atomic
from tasks.spec import Spec
from tasks.workers import most_workers

if TYPE_CHECKING:
    from orchestrator.selection import Selection

NOTE = "budget.json"


class BudgetNote(Spec):
    """That the budget ended a search, and where it stood."""

    sentence: str
    spent_hours: float = Field(description="Device-hours, everything included.")
    limit_hours: float
    hour_price: float | None
    trials: int = Field(description="That have a record.")
    total: int = Field(description="That the search would have.")


@dataclass
class Spending:
    """The accounts of a run, and its ledger.

    Attributes:
        budget: everything spent before is in it.
        ledger: of the run.
        elsewhere: device-hours of other runs that share the budget.
        expected_s: how long a trial is expected to take at the most.
    """

    budget: Budget
    ledger: Ledger
    elsewhere: float
    expected_s: float | None = None

    @classmethod
    def of(
        cls,
        spec: ExperimentSpec,
        run: Path,
        elsewhere: float = 0.0,
        expected_s: float | None = None,
    ) -> Spending:
        """Open the accounts of a run; Ray runs, so that its nodes can say what they cost.

        Raises:
            SpecError: money is limited, and nothing names a price.
            StoreError: the ledger cannot be read.
        """
        limits = limits_of(spec.compute, running_prices())
        ledger, gpus = Ledger(run), capacity_now().gpus
        ledger.holds("GPU" if gpus else "core", spec.compute.gpus_per_trial if gpus else 1.0)
        workers = most_workers(spec.training.workers)
        before = spent_hours(records_of(run), ledger.spend, workers)
        return cls(Budget(limits, before + elsewhere), ledger, elsewhere, expected_s)

    @classmethod
    def opened(
        cls, spec: ExperimentSpec, store: Store, selection: Selection, elsewhere: float = 0.0
    ) -> Spending:
        """Open the accounts of a run with what its plan expects of a trial, where that is known.

        Raises:
            SpecError, StoreError: as `of`.
        """
        from orchestrator.plan_costs import expected_trial_hours
        from orchestrator.sweep import run_fingerprint

        spending = cls.of(spec, store.run(run_fingerprint(spec, selection)), elsewhere)
        if spending.budget.limited:
            hours = expected_trial_hours(spec, store, selection)
            if hours is not None:
                spending.expected_s = hours * HOUR / spending.devices(spec)
        return spending

    def count(self, spec: ExperimentSpec, run: Path) -> None:
        """Bring what was prepared meanwhile into the accounts."""
        spent = spent_hours(records_of(run), self.ledger.spend, most_workers(spec.training.workers))
        self.budget.spent_hours = spent + self.elsewhere

    def devices(self, spec: ExperimentSpec) -> float:
        """Return what a trial holds while it trains: cores or GPUs."""
        workers = most_workers(spec.training.workers)
        return workers if workers > 1 else self.ledger.spend.share

    @property
    def left(self) -> bool:
        """Whether anything may still be spent."""
        return self.budget.spent_hours < self.budget.limits.device_hours

    def note(self, run: Path, total: int) -> BudgetNote:
        """Keep that the budget ended the search."""
        limits, spent = self.budget.limits, self.budget.spent_hours
        done = len(records_of(run))
        note = BudgetNote(
            sentence=_sentence(limits, spent, done, total, self.ledger.spend.unit),
            spent_hours=round(spent, 6),
            limit_hours=limits.device_hours,
            hour_price=limits.hour_price,
            trials=done,
            total=total,
        )
        write_atomic(run / NOTE, note.model_dump_json(indent=2) + "\n")
        return note


def read_note(run: Path) -> BudgetNote | None:
    """Return the note that the budget ended the search; None where it did not, or is unreadable."""
    try:
        return BudgetNote.model_validate_json((run / NOTE).read_bytes())
    except (OSError, ValidationError):
        return None


def run_spent(run: Path, spec: ExperimentSpec) -> float:
    """Return the device-hours that a run has spent, everything included."""
    return spent_hours(records_of(run), read_spend(run), most_workers(spec.training.workers))


def _sentence(limits: Limits, spent: float, done: int, total: int, unit: str) -> str:
    asked = []
    if limits.hours is not None:
        asked.append(f"{limits.hours:g} {unit}-hours")
    if limits.cost is not None:
        asked.append(f"{limits.cost:g} at {limits.hour_price:g} an hour")
    what = (
        f"{total - done} of {total} trials were not run"
        if done < total
        else "all trials were run, and what follows them was not"
    )
    return (
        f"The budget of {' and '.join(asked)} ended the search: {spoken(spent, limits, unit)} were "
        f"spent, and {what}"
    )
