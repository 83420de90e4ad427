"""What a run has spent, kept beside its records: `spend.json`, in device-hours.

A trial's record says what the trial took. The ledger has what no record says: trials that were lost
or stopped, what is made for all trials and what follows them, and which leases are open. A lease
that is found open was lost with its driver, and is charged what it can have taken at the most: the
time since it was opened, and no more than it reserved.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from orchestrator.budget import HOUR
from orchestrator.records import TrialRecord
from orchestrator.store import disk_errors, write_atomic
from tasks.errors import StoreError
from tasks.spec import Spec

SPEND = "spend.json"


class OpenLease(Spec):
    """A trial that runs."""

    devices: float
    reserve_s: float | None
    opened: float = Field(description="Seconds since 1970.")


class Spend(Spec):
    """Device-hours that no trial record has."""

    version: int = 1
    unit: Literal["core", "GPU"] = "core"
    share: float = Field(1.0, description="Of a device, that a trial of one process holds.")
    open: dict[str, OpenLease] = {}
    lost: float = Field(0.0, description="By trials that were lost or stopped.")
    stages: dict[str, float] = Field({}, description="For all trials together, by what it was.")


def read_spend(run: Path) -> Spend:
    """Return a run's ledger; an empty one where it has none.

    Raises:
        StoreError: it cannot be read.
    """
    path = run / SPEND
    if not path.is_file():
        return Spend()
    try:
        return Spend.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise StoreError(
            f"{path} cannot be read ({error.error_count()} errors); delete it, and what lost "
            "trials and preparation took is forgotten"
        ) from error


def set_aside_torn(run: Path) -> Path | None:
    """Rename a ledger that cannot be read, and return its new name; None where it can.

    Only for runs without a limit: in others, what it said was spent would be spent again.
    """
    try:
        read_spend(run)
    except StoreError:
        path = run / SPEND
        with disk_errors(path):
            return path.rename(path.with_name(f"{SPEND}.torn"))
    return None


def device_hours(record: TrialRecord, workers: int = 1, share: float = 1.0) -> float:
    """Return what a trial took.

    Args:
        record: of the trial; the seconds of attacks in several tasks are added up in it.
        workers: processes that trained it, each on a device of its own where they are several.
        share: of a device, that everything else holds.
    """
    training = workers if workers > 1 else share
    held = sum(
        seconds * (training if stage == "train" else share)
        for stage, seconds in record.cost_s.items()
    )
    return held / HOUR


def spent_hours(records: Iterable[TrialRecord], spend: Spend, workers: int = 1) -> float:
    """Return everything that a run has spent, in device-hours."""
    trials = sum(device_hours(record, workers, spend.share) for record in records)
    return trials + spend.lost + sum(spend.stages.values())


class Ledger:
    """The ledger of a run that goes on; its driver is the only one who writes.

    Args:
        run: folder of the run.
        clock: seconds since 1970.
    """

    def __init__(self, run: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = run / SPEND
        self.clock = clock
        self.spend = _settled(read_spend(run), records_in(run), clock())

    def holds(self, unit: Literal["core", "GPU"], share: float) -> None:
        """Note what a trial holds."""
        if (unit, share) != (self.spend.unit, self.spend.share):
            self._write(unit=unit, share=share)

    def opened(self, trial: str, devices: float, reserve_s: float | None) -> None:
        """Note a lease before its trial starts."""
        lease = OpenLease(devices=devices, reserve_s=reserve_s, opened=self.clock())
        self._write(open=self.spend.open | {trial: lease})

    def closed(self, trial: str, lost_hours: float = 0.0) -> None:
        """Note that a lease ended; `lost_hours` are those that no record will have."""
        left = {name: lease for name, lease in self.spend.open.items() if name != trial}
        self._write(open=left, lost=self.spend.lost + max(0.0, lost_hours))

    def add(self, stage: str, hours: float) -> None:
        """Note what something for all trials took."""
        stages = dict(self.spend.stages)
        stages[stage] = round(stages.get(stage, 0.0) + max(0.0, hours), 6)
        self._write(stages=stages)

    @contextmanager
    def stage(self, name: str, devices: float = 1.0) -> Iterator[None]:
        """Note what happens inside; also when it breaks."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.add(name, devices * (time.monotonic() - started) / HOUR)

    def _write(self, **changes: object) -> None:
        self.spend = self.spend.model_copy(update=changes)
        text = json.dumps(self.spend.model_dump(mode="json"), indent=1) + "\n"
        # Twice a trial: waiting for the disk each time was a tenth of a short trial's overhead.
        write_atomic(self.path, text, durable=False)


def records_in(run: Path) -> set[str]:
    """Return the ids of the trials that have a record."""
    from orchestrator.store import RECORD

    return {path.parent.name for path in run.glob(f"trials/*/{RECORD}")}


def _settled(spend: Spend, recorded: set[str], now: float) -> Spend:
    """Charge the leases that an earlier driver left open."""
    lost = spend.lost
    for trial, lease in spend.open.items():
        if trial not in recorded:
            took = max(0.0, now - lease.opened)
            most = took if lease.reserve_s is None else min(took, lease.reserve_s)
            lost += lease.devices * most / HOUR
    return spend.model_copy(update={"open": {}, "lost": lost})
