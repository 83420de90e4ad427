"""How a sweep and a trial look in MLflow: their parameters, metrics, tags and artefacts."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mlflow.entities import Metric, Param, RunTag

from orchestrator.figures import reconstructions_png
from orchestrator.reconstructions import load_reconstructions
from orchestrator.records import Rate, TrialRecord
from orchestrator.redaction import flat, public_settings
from orchestrator.spec import ExperimentSpec
from orchestrator.summary import summarise
from orchestrator.tracking import COMPLETE_TAG, RUN_TAG, TRIAL_TAG
from tasks.spec import fingerprint

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_PARAMS_A_BATCH = 100  # MLflow's limits, mlflow.utils.validation
_METRICS_A_BATCH = 1000
_LONGEST_VALUE = 5000


def sync_sweep(
    client: MlflowClient,
    experiment: str,
    found: Run | None,
    run_dir: Path,
    spec: ExperimentSpec,
    records: Sequence[TrialRecord],
) -> str:
    """Write the parent run, which is finished once the report is there; return its id."""
    summary = summarise(spec, records, str(run_dir))
    report = run_dir / "report.json"
    digest = fingerprint([r.results_hash() for r in records] + [_text(report)])
    run = found or client.create_run(
        experiment,
        start_time=_milliseconds(run_dir / "spec.json"),
        tags={RUN_TAG: run_dir.name},
        run_name=f"{spec.name} {run_dir.name}",
    )
    if run.data.tags.get(COMPLETE_TAG) == digest:
        return str(run.info.run_id)
    counts = {"trials_ok": 0.0, "trials_failed": 0.0}
    for record in records:
        counts[f"trials_{record.status}"] += 1
    _log(
        client,
        run,
        flat(public_settings(spec)),
        {"hypervolume": summary.hypervolume} | counts,
        {
            "seed": spec.seed,
            "verdict": summary.verdict,
            "recommended": summary.recommended,
        },
        step=len(records),
    )
    with TemporaryDirectory() as folder:
        settings = Path(folder) / "spec.json"
        settings.write_text(json.dumps(public_settings(spec), indent=2))
        client.log_artifact(run.info.run_id, str(settings))
    if report.is_file():
        # A report that shows real people stays where the data is.
        private = json.loads(report.read_text())["people_shown"]
        for name in ("report.json",) if private else ("report.json", "report.html", "report.png"):
            _upload(client, run, run_dir / name)
        client.set_terminated(run.info.run_id, "FINISHED", _milliseconds(report))
    client.set_tag(run.info.run_id, COMPLETE_TAG, digest)
    return str(run.info.run_id)


def sync_trial(
    client: MlflowClient,
    experiment: str,
    parent: str,
    found: Run | None,
    run_dir: Path,
    spec: ExperimentSpec,
    record: TrialRecord,
) -> None:
    """Write a nested run, unless MLflow has it in full."""
    folder = run_dir / "trials" / record.trial_id
    digest = record.results_hash()
    ended = _milliseconds(folder / "record.json")
    run = found or client.create_run(
        experiment,
        start_time=ended - round(1000 * sum(record.cost_s.values())),
        tags={
            RUN_TAG: run_dir.name,
            TRIAL_TAG: record.trial_id,
            "mlflow.parentRunId": parent,
        },
        run_name="control" if record.index == 0 else record.title or f"trial {record.index}",
    )
    if run.data.tags.get(COMPLETE_TAG) == digest:
        return
    tags = {
        "status": record.status,
        "defense": record.defense,
        "seed": record.seed,
        "index": record.index,
        "error": record.error,
    }
    settings = record.settings | {
        f"training_defense.{key}": value for key, value in record.training_defense.items()
    }
    _log(client, run, settings, metrics_of(record), tags, losses=record.train_loss)
    for name in ("recipe.parquet", "record.json"):
        _upload(client, run, folder / name)
    if spec.data.kind == "builtin":  # faces that are drawn; real people's stay with the data
        _upload_pictures(client, run, folder)
    status = "FINISHED" if record.status == "ok" else "FAILED"
    client.set_terminated(run.info.run_id, status, ended)
    client.set_tag(run.info.run_id, COMPLETE_TAG, digest)


def metrics_of(record: TrialRecord) -> dict[str, float]:
    """Return a trial's numbers by name; each rate with its n and the ends of its interval."""
    metrics = {f"cost_s/{stage}": spent for stage, spent in record.cost_s.items()}
    metrics["cost_s/total"] = sum(record.cost_s.values())
    if record.plan is not None:
        metrics["inflation"] = record.plan.inflation
    if record.clean_accuracy is not None:
        for part in ("overall", "targets", "bystanders"):
            metrics |= _rate(f"clean_accuracy/{part}", getattr(record.clean_accuracy, part))
    for attack in record.attacks:
        metrics |= _rate(f"{attack.name}/accuracy_at_1", attack.accuracy_at_1)
        metrics |= _rate(f"{attack.name}/accuracy_at_5", attack.accuracy_at_5)
        metrics |= _rate(f"{attack.name}/surrogate_rate", attack.surrogate_rate)
    if record.guarantee is not None and record.guarantee.epsilon is not None:
        metrics["epsilon"] = record.guarantee.epsilon
    if record.utility is not None and record.utility.membership_auc is not None:
        metrics["membership_auc"] = record.utility.membership_auc
    if record.worst_attack is not None:
        metrics |= _rate("worst_attack/accuracy_at_1", record.worst_attack)
    return metrics


def _rate(name: str, rate: Rate) -> dict[str, float]:
    return {
        name: rate.value,
        f"{name}/low": rate.low,
        f"{name}/high": rate.high,
        f"{name}/n": rate.n,
    }


def _log(
    client: MlflowClient,
    run: Run,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    tags: Mapping[str, Any],
    losses: Sequence[float] = (),
    step: int = 0,
) -> None:
    """Write in as few calls as MLflow allows.

    The time of a metric is the run's start, so that writing it a second time changes nothing.
    """
    at = run.info.start_time
    points = [Metric(name, value, at, step) for name, value in metrics.items()]
    points += [Metric("train_loss", loss, at, epoch) for epoch, loss in enumerate(losses)]
    settings = [Param(key, str(value)[:_LONGEST_VALUE]) for key, value in params.items()]
    labels = [
        RunTag(f"dcdctl.{key}", str(value)[:_LONGEST_VALUE])
        for key, value in tags.items()
        if value is not None
    ]
    client.log_batch(run.info.run_id, points[:_METRICS_A_BATCH], settings[:_PARAMS_A_BATCH], labels)
    for i in range(_METRICS_A_BATCH, len(points), _METRICS_A_BATCH):
        client.log_batch(run.info.run_id, metrics=points[i : i + _METRICS_A_BATCH])
    for i in range(_PARAMS_A_BATCH, len(settings), _PARAMS_A_BATCH):
        client.log_batch(run.info.run_id, params=settings[i : i + _PARAMS_A_BATCH])


def _upload(client: MlflowClient, run: Run, path: Path) -> None:
    if path.is_file():  # a trial that failed early has no recipe
        client.log_artifact(run.info.run_id, str(path))


def _upload_pictures(client: MlflowClient, run: Run, folder: Path) -> None:
    with TemporaryDirectory() as scratch:
        for attack, found in load_reconstructions(folder).items():
            (Path(scratch) / f"{attack}.png").write_bytes(reconstructions_png(found.pictures))
        client.log_artifacts(run.info.run_id, scratch, "reconstructions")


def _milliseconds(path: Path) -> int:
    return round(1000 * (path.stat().st_mtime if path.is_file() else time.time()))


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""
