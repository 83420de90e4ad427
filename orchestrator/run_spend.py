"""What a run has spent so far, from its records and its ledger."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from orchestrator.ledger import device_hours, read_spend, spent_hours
from orchestrator.records import TrialRecord
from orchestrator.spec import ExperimentSpec
from tasks.spec import Spec
from tasks.workers import most_workers


class Spent(Spec):
    """What the run has cost so far, in hours of a core or a GPU."""

    unit: Literal["core", "GPU"]
    hours: float = Field(description="Everything, the trials under way included.")
    failed_hours: float = Field(description="Part of it: trials that failed.")
    lost_hours: float = Field(description="Part of it: trials that were lost or stopped.")
    shared_hours: float = Field(description="Part of it: made for all trials, or after them.")
    max_hours: float | None = Field(description="compute.max_hours, and what max_cost allows.")
    hour_price: float | None
    money: float | None


def spent_so_far(
    run: Path,
    spec: ExperimentSpec,
    records: Sequence[TrialRecord],
    running: Sequence[float],
    hour_price: float | None,
) -> Spent:
    """Return what a run has spent.

    Args:
        run: the run's folder; its ledger has what no record says.
        spec: the experiment.
        records: of all trials so far.
        running: seconds that the trials under way have taken.
        hour_price: of a core or GPU; None is the experiment's, if it has one.

    Raises:
        StoreError: the ledger cannot be read.
    """
    workers = most_workers(spec.training.workers)
    ledger = read_spend(run)
    under_way = sum(running) / 3600
    under_way *= workers if workers > 1 else ledger.share
    hours = spent_hours(records, ledger, workers) + under_way
    price = hour_price if hour_price is not None else spec.compute.hour_price
    compute = spec.compute
    allowed = [compute.max_hours] if compute.max_hours is not None else []
    allowed += [compute.max_cost / price] if compute.max_cost is not None and price else []
    return Spent(
        unit=ledger.unit,
        hours=hours,
        failed_hours=sum(
            device_hours(r, workers, ledger.share) for r in records if r.status == "failed"
        ),
        lost_hours=ledger.lost,
        shared_hours=sum(ledger.stages.values()),
        max_hours=min(allowed, default=None),
        hour_price=price,
        money=None if price is None else hours * price,
    )
