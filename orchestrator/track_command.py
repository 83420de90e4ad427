"""`dcdctl track`: hold MLflow against the records of runs, and write there what is missing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field
from rich.console import Console

from orchestrator.records import TrialRecord
from orchestrator.run_status import read_spec
from orchestrator.store import Store, records_of
from orchestrator.tracking import MlflowTracker, make_tracker, without_password
from tasks.errors import DcdctlError, TrackingError
from tasks.spec import Spec


class TrackedRun(Spec):
    """One run, and how much of it MLflow shows."""

    run: str
    trials: int
    missing: int = Field(description="Trials that MLflow did not have in full before.")
    written: bool


class TrackOutcome(Spec):
    """What MLflow has of runs."""

    uri: str
    runs: tuple[TrackedRun, ...]

    def render(self, console: Console) -> None:
        """Print it for people."""
        for run in self.runs:
            what = f"{run.run}: {run.missing} of {run.trials} trials were not there"
            what += ", now written" if run.written else ""
            console.print(what, highlight=False, markup=False)
        console.print(f"MLflow: {self.uri}", highlight=False, markup=False)
        if any(run.missing and not run.written for run in self.runs):
            console.print("add --replay to write them", highlight=False)


def track(runs: Sequence[Path], *, replay: bool, uri: str | None, console: Console) -> TrackOutcome:
    """Compare MLflow with the records of runs; with `replay` write what it lacks.

    Args:
        runs: folders of runs in one storage.
        replay: write. Only one process may, so the storage is held meanwhile.
        uri: of MLflow; None is what each run's experiment says.
        console: for progress.

    Raises:
        StorageLockedError: a sweep is writing, and shows its run itself.
        TrackingError: MLflow cannot be reached, or refuses.
    """
    done, shown_uri = [], ""
    for run in runs:
        spec, records = read_spec(run), records_of(run)
        store = Store(str(run.absolute().parents[1]))
        tracker = make_tracker(spec, store.root, uri)
        shown_uri = without_password(tracker.uri)
        with console.status(f"{run.name}: {len(records)} trials"):
            missing = _ask(tracker, run, records)
            if replay:
                with store.locked():
                    _write(tracker, run, records)
        done.append(TrackedRun(run=run.name, trials=len(records), missing=missing, written=replay))
    return TrackOutcome(uri=shown_uri, runs=tuple(done))


def _ask(tracker: MlflowTracker, run: Path, records: Sequence[TrialRecord]) -> int:
    try:
        return len(tracker.missing(run, records))
    except Exception as error:
        raise _refused(tracker, error) from error


def _write(tracker: MlflowTracker, run: Path, records: Sequence[TrialRecord]) -> None:
    try:
        tracker.sync(run, read_spec(run), records)
    except DcdctlError:
        raise
    except Exception as error:
        raise _refused(tracker, error) from error


def _refused(tracker: MlflowTracker, error: Exception) -> TrackingError:
    logging.getLogger(__name__).debug("MLflow", exc_info=error)
    reason = without_password(str(error).partition("\n")[0] or type(error).__name__)[:300]
    return TrackingError(
        f"MLflow at {without_password(tracker.uri)} does not take it ({reason}); the records are "
        "safe: start the server, or name another by --uri, and give the command again"
    )
