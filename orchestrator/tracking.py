"""MLflow as a view of the run store: written from the records, and written again at will.

A parent run stands for the sweep and a nested run for each trial; tags tell which is which, so that
a second `sync` adds only what is missing. Nothing here is on the critical path: a dead tracking
server stops nothing and loses nothing, because the records stay and the next sync fills them in.
"""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from orchestrator.mlflow_quiet import quiet_mlflow
from orchestrator.records import TrialRecord
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store
from tasks.spec import fingerprint

if TYPE_CHECKING:
    from mlflow import MlflowClient


PAGES = "#/experiments{runs}?workflowType=machine_learning"
"""Of MLflow's pages. Since version 3 they show prompts and traces, whatever an experiment's kind
is, until the address or a switch in the browser asks for "Model training", whose pages list runs.
"""


def runs_page(experiment: str | None) -> str:
    """Return where MLflow's pages list the runs of an experiment, from `#` on.

    Args:
        experiment: its id; None is the list of experiments.
    """
    return PAGES.format(runs="" if experiment is None else f"/{experiment}/runs")


class Tracker(Protocol):
    """Shows a run somewhere."""

    @property
    def page(self) -> str:
        """Where its pages show the runs, from `#` on."""

    def sync(
        self,
        run_dir: Path,
        spec: ExperimentSpec,
        records: Sequence[TrialRecord],
        *,
        whole: bool = True,
    ) -> None:
        """Bring the view up to date with `records`; may raise anything, and may be repeated.

        Args:
            run_dir: the run's folder.
            spec: the experiment.
            records: all trials so far.
            whole: else the trials are enough, and what is said of the sweep may be older.
        """


@dataclass
class _Shown:
    """What MLflow has of one run, known since this process looked, so that it looks once.

    Attributes:
        experiment: its id.
        parent: the sweep's run.
        made: nothing was said of earlier trials in the parent yet.
        trials: runs by trial id.
        complete: hash of what was written in full, by trial id.
        read: the records whose hash is known; one that is not the same object is hashed again.
        digest: of the parent.
    """

    client: MlflowClient
    experiment: str
    parent: Any
    made: bool
    trials: dict[str, Any]
    complete: dict[str, str | None]
    digest: str | None
    read: dict[str, tuple[TrialRecord, str]] = field(default_factory=dict)


class MlflowTracker:
    """Shows runs in MLflow. There may be one writer for a run: the holder of the storage's lock.

    Args:
        uri: tracking server, or a database such as sqlite:////folder/mlflow.db.
        experiment: name of the MLflow experiment; made when missing.
        artifact_root: folder for artefacts of a new experiment; None leaves it to the server.
    """

    def __init__(self, uri: str, experiment: str, artifact_root: Path | None) -> None:
        self.uri = uri
        self.experiment = experiment
        self.artifact_root = artifact_root
        self._shown: dict[str, _Shown] = {}

    def sync(
        self,
        run_dir: Path,
        spec: ExperimentSpec,
        records: Sequence[TrialRecord],
        *,
        whole: bool = True,
    ) -> None:
        """Write the sweep and those of its trials that MLflow does not have in full.

        Args:
            run_dir: the run's folder; its name is the run's fingerprint.
            spec: the experiment; names of people and paths in it stay here.
            records: all trials so far.
            whole: write what is said of the sweep too, which looks at all trials.

        Raises:
            Exception: whatever MLflow raises; what was written stays, and the next call goes on.
        """
        try:
            shown = self._shown.get(run_dir.name) or self._look(run_dir, spec)
            self._sync(shown, run_dir, spec, records, whole)
        except BaseException:
            # What of it arrived is not known: the next call looks again.
            self._shown.pop(run_dir.name, None)
            raise
        self._shown[run_dir.name] = shown

    @property
    def page(self) -> str:
        """Where MLflow's pages list the runs that this process has looked at, from `#` on."""
        known = next(iter(self._shown.values()), None)
        return runs_page(None if known is None else known.experiment)

    def missing(self, run_dir: Path, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        """Return the trials that MLflow does not have in full; nothing is written there.

        Raises:
            Exception: whatever MLflow raises.
        """
        from orchestrator.mlflow_runs import COMPLETE_TAG

        client = self._client()
        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            return list(records)
        known = _known_runs(client, str(found.experiment_id), run_dir.name)
        return [
            record
            for record in records
            if record.trial_id not in known
            or known[record.trial_id].data.tags.get(COMPLETE_TAG) != record.results_hash()
        ]

    def _sync(
        self,
        shown: _Shown,
        run_dir: Path,
        spec: ExperimentSpec,
        records: Sequence[TrialRecord],
        whole: bool,
    ) -> None:
        from orchestrator.mlflow_runs import sync_trial
        from orchestrator.mlflow_sweep import sync_sweep

        parent = str(shown.parent.info.run_id)
        for record in records:
            digest = _digest(shown, record)
            if shown.complete.get(record.trial_id) == digest:
                continue
            found = shown.trials.get(record.trial_id)
            shown.trials[record.trial_id] = sync_trial(
                shown.client, shown.experiment, parent, found, run_dir, spec, record, digest
            )
            shown.complete[record.trial_id] = digest
        if not whole:
            return
        settings = spec.model_dump(mode="json", exclude={"storage", "tracking", "compute"})
        report = run_dir / "report.json"
        digest = fingerprint(
            [
                settings,
                [_digest(shown, record) for record in records],
                report.read_text() if report.is_file() else "",
            ]
        )
        if shown.digest != digest:
            sync_sweep(
                shown.client,
                shown.parent,
                run_dir,
                spec,
                records,
                shown.trials,
                digest,
                series=shown.made,
            )
            shown.digest, shown.made = digest, False

    def _look(self, run_dir: Path, spec: ExperimentSpec) -> _Shown:
        """Ask MLflow once what it has of a run; make the sweep's own run if it is missing."""
        from orchestrator.mlflow_runs import COMPLETE_TAG
        from orchestrator.mlflow_sweep import create_sweep

        client = self._client()
        experiment = self._experiment_id(client)
        known = _known_runs(client, experiment, run_dir.name)
        parent = known.pop(None, None)
        return _Shown(
            client=client,
            experiment=experiment,
            parent=parent or create_sweep(client, experiment, run_dir, spec),
            made=parent is None or "hypervolume" not in parent.data.metrics,
            trials={str(trial_id): run for trial_id, run in known.items()},
            complete={str(t): run.data.tags.get(COMPLETE_TAG) for t, run in known.items()},
            digest=None if parent is None else parent.data.tags.get(COMPLETE_TAG),
        )

    def _client(self) -> MlflowClient:
        quiet_mlflow()
        # Making a new database would print each of its migrations.
        for noisy in ("alembic", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        from mlflow import MlflowClient

        # It tells of each try to reach a database; we say once that it is away.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.ERROR)
        return MlflowClient(tracking_uri=self.uri)

    def _experiment_id(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(self.experiment)
        if found is not None:
            return str(found.experiment_id)
        place = self.artifact_root.absolute().as_uri() if self.artifact_root else None
        # For pages that heed it; those of 3.17 go by their address alone, see `runs_page`.
        kind = {"mlflow.experimentKind": "custom_model_development"}
        return str(client.create_experiment(self.experiment, artifact_location=place, tags=kind))


def _digest(shown: _Shown, record: TrialRecord) -> str:
    """Return a record's hash, which is made once for one object."""
    known = shown.read.get(record.trial_id)
    if known is None or known[0] is not record:
        known = shown.read[record.trial_id] = record, record.results_hash()
    return known[1]


def make_tracker(spec: ExperimentSpec, root: Path, uri: str | None = None) -> MlflowTracker:
    """Return the tracker that the spec asks for.

    Args:
        spec: the experiment.
        root: the storage's folder, where database and artefacts lie unless the spec names a server.
        uri: of another server than the spec's.
    """
    uri = uri or spec.tracking.uri or _default_uri(root)
    served = urlsplit(uri).scheme in ("http", "https")
    return MlflowTracker(uri, spec.tracking.experiment, None if served else root / "mlartifacts")


def ui_command(spec: ExperimentSpec, page: str) -> str:
    """Return the command line that shows the runs in a browser.

    A tracking server shows them itself: the command opens its page.

    Args:
        spec: the experiment.
        page: where the runs are listed, from `#` on.
    """
    uri = spec.tracking.uri or _default_uri(Store(spec.storage).root)
    if urlsplit(uri).scheme in ("http", "https"):
        address = f"{without_password(uri).rstrip('/')}/{page}"
        return f"python -m webbrowser {shlex.quote(address)}"
    program = "mlflow" if shutil.which("mlflow") else str(Path(sys.executable).with_name("mlflow"))
    # One worker is enough for one person, and each takes 230 MB.
    return (
        f"{shlex.quote(program)} ui --workers 1 --backend-store-uri {shlex.quote(uri)}  "
        f"# then open {LOCAL_UI}{page}"
    )


LOCAL_UI = "http://127.0.0.1:5000/"
"""Where `mlflow ui` listens unless it is told otherwise."""


def _default_uri(root: Path) -> str:
    return f"sqlite:///{root.absolute() / 'mlflow.db'}"


def _known_runs(client: MlflowClient, experiment: str, fingerprint: str) -> dict[str | None, Any]:
    """Return MLflow's runs of this sweep by trial id; the parent's is None."""
    from orchestrator.mlflow_runs import RUN_TAG, TRIAL_TAG

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


def without_password(text: str) -> str:
    """Blank the user part of URLs: a tracking URI may carry a password."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)
