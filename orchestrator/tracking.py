"""MLflow as a view of the run store: written from the records, and written again at will.

A parent run stands for the sweep and a nested run for each trial; tags tell which is which, so that
a second `sync` adds only what is missing. Nothing here is on the critical path: a dead tracking
server stops nothing and loses nothing, because the records stay and the next sync fills them in.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from orchestrator.records import TrialRecord
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

RUN_TAG = "dcdctl.run"
TRIAL_TAG = "dcdctl.trial"
COMPLETE_TAG = "dcdctl.complete"
"""Set last, to a hash of what was written: a run without it, or with another hash, is finished."""

_ENVIRONMENT = {
    # MLflow's own retries block for minutes when the server is down; ours is the next sync.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Tracker(Protocol):
    """Shows a run somewhere."""

    def sync(self, run_dir: Path, spec: ExperimentSpec, records: Sequence[TrialRecord]) -> None:
        """Bring the view up to date with `records`; may raise anything, and may be repeated."""


class MlflowTracker:
    """Shows runs in MLflow.

    Args:
        uri: tracking server, or a database such as sqlite:////folder/mlflow.db.
        experiment: name of the MLflow experiment; made when missing.
        artifact_root: folder for artefacts of a new experiment; None leaves it to the server.
    """

    def __init__(self, uri: str, experiment: str, artifact_root: Path | None) -> None:
        self.uri = uri
        self.experiment = experiment
        self.artifact_root = artifact_root

    def sync(self, run_dir: Path, spec: ExperimentSpec, records: Sequence[TrialRecord]) -> None:
        """Write the sweep and those of its trials that MLflow does not have in full.

        Args:
            run_dir: the run's folder; its name is the run's fingerprint.
            spec: the experiment; names of people and paths in it stay here.
            records: all trials so far.

        Raises:
            Exception: whatever MLflow raises; what was written stays, and the next call goes on.
        """
        from orchestrator.mlflow_runs import sync_sweep, sync_trial

        client = self._client()
        experiment = self._experiment_id(client)
        known = _known_runs(client, experiment, run_dir.name)
        parent = sync_sweep(client, experiment, known.get(None), run_dir, spec, records)
        for record in records:
            found = known.get(record.trial_id)
            sync_trial(client, experiment, parent, found, run_dir, spec, record)

    def _client(self) -> MlflowClient:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # Making a new database would print each of its migrations.
        for noisy in ("alembic", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri)

    def _experiment_id(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(self.experiment)
        if found is not None:
            return str(found.experiment_id)
        place = self.artifact_root.absolute().as_uri() if self.artifact_root else None
        return str(client.create_experiment(self.experiment, artifact_location=place))


class BackgroundTracker:
    """Keeps a tracker up to date from a thread of its own, so that the sweep never waits for it.

    Only the newest records wait to be shown: they include all earlier ones.

    Args:
        tracker: shows the run.
        run_dir: the run's folder.
        spec: the experiment.
    """

    def __init__(self, tracker: Tracker, run_dir: Path, spec: ExperimentSpec) -> None:
        self._tracker = tracker
        self._run_dir = run_dir
        self._spec = spec
        self._changed = threading.Condition()
        self._waiting: tuple[TrialRecord, ...] | None = None
        self._closing = False
        self._delivered = True
        self._warned = False
        # A daemon, so that a server that hangs cannot keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def submit(self, records: Sequence[TrialRecord]) -> None:
        """Have these records shown soon; returns at once and never raises."""
        with self._changed:
            self._waiting = tuple(records)
            self._delivered = False
            self._changed.notify()

    def close(self, deadline_s: float) -> bool:
        """Wait until the newest records are shown, at the most until the deadline.

        Args:
            deadline_s: seconds.

        Returns:
            Whether the view is complete. If not, a warning was logged, and the next sync of this
            run makes it so.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(deadline_s)
        if self._thread.is_alive():
            self._warn(f"still not done after {deadline_s:g} s")
        return self._delivered

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._waiting is not None)
                records, self._waiting = self._waiting, None
            if records is None:
                return
            try:
                self._tracker.sync(self._run_dir, self._spec, records)
            except Exception as error:  # whatever MLflow raises, the sweep is not its business
                self._warn(str(error).partition("\n")[0] or type(error).__name__)
            else:
                with self._changed:
                    self._delivered = self._waiting is None

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "MLflow does not show all of this run (%s); nothing is lost: "
                "`dcdctl sweep --resume` shows the rest",
                _without_password(reason)[:300],
            )


def make_tracker(spec: ExperimentSpec, root: Path) -> MlflowTracker:
    """Return the tracker that the spec asks for.

    Args:
        spec: the experiment.
        root: the storage's folder, where database and artefacts lie unless the spec names a server.
    """
    uri = spec.tracking.uri or _default_uri(root)
    served = urlsplit(uri).scheme in ("http", "https")
    return MlflowTracker(uri, spec.tracking.experiment, None if served else root / "mlartifacts")


def ui_command(spec: ExperimentSpec) -> str:
    """Return the command line that shows the runs in a browser.

    A tracking server shows them itself: the command opens its page.
    """
    uri = spec.tracking.uri or _default_uri(Store(spec.storage).root)
    if urlsplit(uri).scheme in ("http", "https"):
        return f"python -m webbrowser {shlex.quote(_without_password(uri))}"
    program = "mlflow" if shutil.which("mlflow") else str(Path(sys.executable).with_name("mlflow"))
    # One worker is enough for one person, and each takes 230 MB.
    return f"{shlex.quote(program)} ui --workers 1 --backend-store-uri {shlex.quote(uri)}"


def _default_uri(root: Path) -> str:
    return f"sqlite:///{root.absolute() / 'mlflow.db'}"


def _known_runs(client: MlflowClient, experiment: str, fingerprint: str) -> dict[str | None, Any]:
    """Return MLflow's runs of this sweep by trial id; the parent's is None."""
    found: dict[str | None, Any] = {}
    token = None
    while True:
        page = client.search_runs(
            [experiment],
            f"tags.`{RUN_TAG}` = '{fingerprint}'",
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        for run in page:
            found.setdefault(run.data.tags.get(TRIAL_TAG), run)
        token = page.token
        if not token:
            return found


def _without_password(text: str) -> str:
    """Blank the user part of URLs: a tracking URI may carry a password."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)
