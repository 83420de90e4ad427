"""How a trial looks in MLflow: a nested run with its parameters, metrics, curves and artefacts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from orchestrator.figures import reconstructions_png
from orchestrator.mlflow_batches import Series, at_step, log_batches, milliseconds, upload
from orchestrator.reconstructions import load_reconstructions
from orchestrator.records import AttackRecord, Rate, TrialRecord
from orchestrator.spec import ExperimentSpec

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RUN_TAG = "dcdctl.run"
TRIAL_TAG = "dcdctl.trial"
COMPLETE_TAG = "dcdctl.complete"
"""Set last, to a hash of what was written: a run without it, or with another hash, is finished."""


def sync_trial(
    client: MlflowClient,
    experiment: str,
    parent: str,
    found: Run | None,
    run_dir: Path,
    spec: ExperimentSpec,
    record: TrialRecord,
    digest: str,
) -> Run:
    """Write a nested run, unless MLflow has it in full; return it as it was before.

    Args:
        client: of the server.
        experiment: MLflow's id of the experiment.
        parent: MLflow's id of the sweep's run.
        found: what MLflow has of the trial.
        run_dir: the sweep's folder.
        spec: the experiment.
        record: the trial.
        digest: hash of its results.
    """
    folder = run_dir / "trials" / record.trial_id
    ended = milliseconds(folder / "record.json")
    run = found or client.create_run(
        experiment,
        start_time=ended - round(1000 * sum(record.cost_s.values())),
        tags={
            RUN_TAG: run_dir.name,
            TRIAL_TAG: record.trial_id,
            "mlflow.parentRunId": parent,
            "mlflow.source.name": "dcdctl",
        },
        run_name="control" if record.index == 0 else record.title or f"trial {record.index}",
    )
    if run.data.tags.get(COMPLETE_TAG) == digest:
        return run
    tags = {
        "dcdctl.status": record.status,
        "dcdctl.defense": record.defense,
        "dcdctl.seed": record.seed,
        "dcdctl.index": record.index,
        "dcdctl.error": record.error,
        "mlflow.note.content": f"**failed:** {record.error}" if record.error else None,
    }
    settings = record.settings | {
        f"training_defense.{key}": value for key, value in record.training_defense.items()
    }
    log_batches(client, run, settings, series_of(record), tags)
    for name in ("recipe.parquet", "record.json"):
        upload(client, run, folder / name)
    if spec.data.kind == "builtin":  # faces that are drawn; real people's stay with the data
        _upload_pictures(client, run, folder)
    status = "FINISHED" if record.status == "ok" else "FAILED"
    client.set_terminated(run.info.run_id, status, ended)
    client.set_tag(run.info.run_id, COMPLETE_TAG, digest)
    return run


def series_of(record: TrialRecord) -> Series:
    """Return all metrics of a trial: single numbers, the loss by epoch, each attack's by step."""
    found = dict(at_step(metrics_of(record)))
    if record.train_loss:
        found["train_loss"] = list(enumerate(record.train_loss))
    for attack in record.attacks:
        if attack.curve.steps:
            steps = zip(attack.curve.steps, attack.curve.values, strict=True)
            found[f"{attack.name}/search"] = list(steps)
    return found


def metrics_of(record: TrialRecord) -> dict[str, float]:
    """Return a trial's numbers by name; each rate with its n and the ends of its interval."""
    metrics = {f"cost_s/{stage}": spent for stage, spent in record.cost_s.items()}
    metrics["cost_s/total"] = sum(record.cost_s.values())
    if record.plan is not None:
        metrics["inflation"] = record.plan.inflation
    if record.clean_accuracy is not None:
        for part in ("overall", "targets", "bystanders"):
            metrics |= rate_metrics(f"clean_accuracy/{part}", getattr(record.clean_accuracy, part))
    metrics |= attack_metrics(record.attacks)
    if record.guarantee is not None and record.guarantee.epsilon is not None:
        metrics["epsilon"] = record.guarantee.epsilon
    if record.utility is not None and record.utility.membership_auc is not None:
        metrics["membership_auc"] = record.utility.membership_auc
    if record.worst_attack is not None:
        metrics |= rate_metrics("worst_attack/accuracy_at_1", record.worst_attack)
    return metrics


def attack_metrics(attacks: Sequence[AttackRecord]) -> dict[str, float]:
    """Return what attacks reached, by name."""
    metrics: dict[str, float] = {}
    for attack in attacks:
        metrics |= rate_metrics(f"{attack.name}/accuracy_at_1", attack.accuracy_at_1)
        metrics |= rate_metrics(f"{attack.name}/accuracy_at_5", attack.accuracy_at_5)
        metrics |= rate_metrics(f"{attack.name}/surrogate_rate", attack.surrogate_rate)
        metrics[f"{attack.name}/queries"] = attack.queries
    return metrics


def rate_metrics(name: str, rate: Rate) -> dict[str, float]:
    """Return a rate as four numbers, which MLflow's charts put into one section."""
    return {
        name: rate.value,
        f"{name}_low": rate.low,
        f"{name}_high": rate.high,
        f"{name}_n": rate.n,
    }


def _upload_pictures(client: MlflowClient, run: Run, folder: Path) -> None:
    found = load_reconstructions(folder)
    if not found:
        return
    with TemporaryDirectory() as scratch:
        for attack, pictures in found.items():
            (Path(scratch) / f"{attack}.png").write_bytes(reconstructions_png(pictures.pictures))
        client.log_artifacts(run.info.run_id, scratch, "reconstructions")
