"""How a sweep looks in MLflow: the parent run, its notes, and which of its trials to use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from orchestrator.adaptive import read_adaptive
from orchestrator.mlflow_batches import LONGEST_VALUE, at_step, log_batches, milliseconds, upload
from orchestrator.mlflow_notes import experiment_note, sweep_note
from orchestrator.mlflow_runs import COMPLETE_TAG, RUN_TAG, attack_metrics, rate_metrics
from orchestrator.pareto import hypervolume_growth, point_of
from orchestrator.records import TrialRecord
from orchestrator.redaction import flat, public_settings
from orchestrator.spec import ExperimentSpec
from orchestrator.summary import REFERENCE, RunSummary, summarise

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

NOTE_WIDTH = 820
"""Pixels."""

ROLE_TAG = "dcdctl.role"
"""Of a trial: control, recommended, nearest (where no trial meets the goals), or frontier."""


def create_sweep(client: MlflowClient, experiment: str, run_dir: Path, spec: ExperimentSpec) -> Run:
    """Make the parent run, with all settings."""
    run = client.create_run(
        experiment,
        start_time=milliseconds(run_dir / "spec.json"),
        tags={
            RUN_TAG: run_dir.name,
            "mlflow.source.name": "dcdctl",
            "dcdctl.seed": str(spec.seed),
        },
        run_name=f"{spec.name} {run_dir.name}",
    )
    log_batches(client, run, flat(public_settings(spec)), {}, {})
    return run


def sync_sweep(
    client: MlflowClient,
    run: Run,
    run_dir: Path,
    spec: ExperimentSpec,
    records: Sequence[TrialRecord],
    trials: Mapping[str, Run],
    digest: str,
    *,
    series: bool,
) -> None:
    """Bring the parent run up to date; it is finished once the report is there.

    Args:
        client: of the server.
        run: the parent, as it was found or made.
        run_dir: the sweep's folder.
        spec: the experiment.
        records: of all trials so far.
        trials: MLflow's runs of them, by trial id.
        digest: hash of what is written.
        series: write how the hypervolume grew, and not its last value alone.
    """
    summary = summarise(spec, records, str(run_dir))
    metrics = {"hypervolume": summary.hypervolume, **_counts(records), **_chosen(summary)}
    points = at_step(metrics, len(records))
    if series:
        by_index = [point_of(r) for r in sorted(records, key=lambda r: r.index)]
        points["hypervolume"] = list(enumerate(hypervolume_growth(by_index, REFERENCE), 1))
    settings = flat(public_settings(spec))
    # MLflow lets no parameter change; more trials or another goal are told in a tag.
    changed = [
        f"{key}={value}"
        for key, value in settings.items()
        if key in run.data.params and run.data.params[key] != str(value)[:LONGEST_VALUE]
    ]
    tags = {
        "dcdctl.verdict": summary.verdict,
        "dcdctl.recommended": summary.recommended,
        "dcdctl.command": summary.command,
        "dcdctl.changed": ", ".join(changed) or None,
        "mlflow.note.content": sweep_note(summary, run.info.run_id, _has_figures(run_dir)),
    }
    log_batches(client, run, settings, points, tags)
    with TemporaryDirectory() as folder:
        own = Path(folder) / "spec.json"
        own.write_text(json.dumps(public_settings(spec), indent=2))
        client.log_artifact(run.info.run_id, str(own))
    if report_is_of(run_dir, records):
        _finish(client, run, run_dir, spec, summary, trials)
        client.set_terminated(run.info.run_id, "FINISHED", milliseconds(run_dir / "report.json"))
    elif run.info.status != "RUNNING":
        client.update_run(run.info.run_id, "RUNNING")  # a finished sweep that goes on
    client.set_tag(run.info.run_id, COMPLETE_TAG, digest)


def report_is_of(run_dir: Path, records: Sequence[TrialRecord]) -> bool:
    """Say whether the run's report is there and is of these trials, not of fewer before them."""
    try:
        told = json.loads((run_dir / "report.json").read_bytes())["trials"]
        return {trial["trial_id"] for trial in told} == {record.trial_id for record in records}
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _finish(
    client: MlflowClient,
    run: Run,
    run_dir: Path,
    spec: ExperimentSpec,
    summary: RunSummary,
    trials: Mapping[str, Run],
) -> None:
    """Add what only a finished sweep has: report, figures, roles, checkpoint, the last attacks."""
    # A report that shows real people stays where the data is; the other figures show none.
    private = json.loads((run_dir / "report.json").read_text())["people_shown"]
    for name in ("report.json",) if private else ("report.json", "report.html", "report.png"):
        upload(client, run, run_dir / name)
    for figure in sorted((run_dir / "figures").glob("*.*")):
        if figure.stem != "grid" or not private:
            upload(client, run, figure, "figures")
    _upload_note_picture(client, run, run_dir / "figures" / "frontier.png")
    roles = {trial_id: "frontier" for trial_id in summary.front}
    for role in ("nearest", "recommended", "control"):
        if chosen := getattr(summary, role):
            roles[chosen] = role
    for trial_id, trial in trials.items():
        if trial_id in roles:
            client.set_tag(trial.info.run_id, ROLE_TAG, roles[trial_id])
        elif ROLE_TAG in trial.data.tags:
            client.delete_tag(trial.info.run_id, ROLE_TAG)
    for measured in read_adaptive(run_dir):
        if measured.trial_id in trials:
            metrics = attack_metrics(measured.attacks)
            if measured.targets_hit is not None:
                metrics |= rate_metrics("adaptive/targets_hit", measured.targets_hit)
            log_batches(client, trials[measured.trial_id], {}, at_step(metrics), {})
    best = summary.recommended
    if spec.tracking.checkpoint and best is not None and best in trials:
        for path in sorted((run_dir / "trials" / best / "checkpoint").glob("*")):
            upload(client, trials[best], path, "checkpoint")
    note = experiment_note(summary, run.info.experiment_id, run.info.run_id, _has_figures(run_dir))
    client.set_experiment_tag(run.info.experiment_id, "mlflow.note.content", note)


def _upload_note_picture(client: MlflowClient, run: Run, path: Path) -> None:
    """Log the frontier as small as a note is wide; MLflow shows pictures there in full size."""
    from PIL import Image

    if not path.is_file():
        return
    with TemporaryDirectory() as scratch, Image.open(path) as image:
        image.thumbnail((NOTE_WIDTH, NOTE_WIDTH))
        image.save(Path(scratch) / path.name)
        client.log_artifact(run.info.run_id, str(Path(scratch) / path.name), "note")


def _counts(records: Sequence[TrialRecord]) -> dict[str, float]:
    counts = {"trials_ok": 0.0, "trials_failed": 0.0}
    for record in records:
        counts[f"trials_{record.status}"] += 1
    return counts


def _chosen(summary: RunSummary) -> dict[str, float]:
    """Return the numbers of the control and of the trial that the report is about."""
    metrics: dict[str, float] = {}
    for name, trial_id in (("control", summary.control), ("chosen", summary.focus)):
        trial = next((one for one in summary.trials if one.trial_id == trial_id), None)
        if (
            trial is not None
            and trial.clean_accuracy is not None
            and trial.worst_attack is not None
        ):
            metrics |= rate_metrics(f"{name}/clean_accuracy", trial.clean_accuracy.overall)
            metrics |= rate_metrics(f"{name}/worst_attack", trial.worst_attack)
    return metrics


def _has_figures(run_dir: Path) -> bool:
    return (run_dir / "figures" / "frontier.png").is_file()
