"""A run's folder as it is read: its experiment, records and what was measured beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from orchestrator.adaptive import AdaptiveTrial, read_adaptive
from orchestrator.records import Rate, TrialRecord
from orchestrator.spec import ExperimentSpec
from orchestrator.store import records_of
from tasks.errors import StoreError


@dataclass(frozen=True)
class Run:
    """What a report is made from.

    Attributes:
        folder: of the run; of several, the first.
        spec: the experiment.
        records: of all trials.
        evaluation: the evaluation classifier's own accuracy.
        adaptive: what an attacker who knows of DCD reached.
        folders: of all runs that are in it.
        seeds: of them, in the same order.
        members: of several runs: trial id -> where its pictures are, a trial folder for each run.
    """

    folder: Path
    spec: ExperimentSpec
    records: Sequence[TrialRecord]
    evaluation: Rate | None
    adaptive: Sequence[AdaptiveTrial] = ()
    folders: Sequence[Path] = ()
    seeds: Sequence[int] = ()
    members: Mapping[str, Sequence[Path]] = field(default_factory=dict)

    def record(self, trial_id: str | None) -> TrialRecord | None:
        """Return the record of a trial."""
        return next((r for r in self.records if r.trial_id == trial_id), None)

    def trial_folders(self, trial_id: str) -> Sequence[Path]:
        """Return the folders of a trial: one, or one of each run in which it was made."""
        return self.members.get(trial_id) or (self.folder / "trials" / trial_id,)


def load_run(folder: Path) -> Run:
    """Read a run's spec, records, and the evaluation classifier's own accuracy.

    Raises:
        StoreError: the folder holds no run, or a file of it cannot be read.
    """
    if not (folder / "spec.json").is_file():
        raise StoreError(
            f"{folder} holds no run: there is no spec.json in it; name a folder of "
            "<storage>/runs, which `dcdctl sweep` writes"
        )
    evaluation = None
    path = folder / "spec.json"
    try:
        spec = ExperimentSpec.model_validate_json(path.read_bytes())
        path = folder / "evaluation.json"
        if path.is_file():
            evaluation = Rate.model_validate(json.loads(path.read_bytes())["accuracy"])
    except (ValidationError, ValueError, KeyError) as error:
        raise StoreError(
            f"{path} cannot be read: it was damaged, or written by another version; "
            "resume the sweep to write it again"
        ) from error
    return Run(
        folder, spec, records_of(folder), evaluation, read_adaptive(folder), (folder,), (spec.seed,)
    )
