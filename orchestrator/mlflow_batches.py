"""Writing to an MLflow run in few calls, such that writing the same again changes nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.mlflow_quiet import quiet_mlflow

quiet_mlflow()
from mlflow.entities import Metric, Param, RunTag  # noqa: E402

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_PARAMS_A_BATCH = 100  # MLflow's limits, mlflow.utils.validation
_METRICS_A_BATCH = 800  # of 1000 entities, params and tags among them
LONGEST_VALUE = 5000

Series = Mapping[str, Sequence[tuple[int, float]]]
"""Steps and values of a metric, by its name."""


def log_batches(
    client: MlflowClient,
    run: Run,
    params: Mapping[str, Any],
    series: Series,
    tags: Mapping[str, Any],
) -> None:
    """Write in as few calls as MLflow allows.

    The time of a metric is the run's start, so that writing it a second time changes nothing. A
    parameter that MLflow has already is left: it may not change there.

    Args:
        client: of the server.
        run: as it was found, or made.
        params: by name; those without a value are left out.
        series: metrics.
        tags: by full name; those without a value are left out.
    """
    at = run.info.start_time
    points = [Metric(name, v, at, step) for name, rows in series.items() for step, v in rows]
    settings = [
        Param(key, str(value)[:LONGEST_VALUE])
        for key, value in params.items()
        if key not in run.data.params and value is not None
    ]
    labels = [
        RunTag(key, str(value)[:LONGEST_VALUE]) for key, value in tags.items() if value is not None
    ]
    if not (points or settings or labels):
        return
    client.log_batch(run.info.run_id, points[:_METRICS_A_BATCH], settings[:_PARAMS_A_BATCH], labels)
    for i in range(_METRICS_A_BATCH, len(points), _METRICS_A_BATCH):
        client.log_batch(run.info.run_id, metrics=points[i : i + _METRICS_A_BATCH])
    for i in range(_PARAMS_A_BATCH, len(settings), _PARAMS_A_BATCH):
        client.log_batch(run.info.run_id, params=settings[i : i + _PARAMS_A_BATCH])


def at_step(metrics: Mapping[str, float], step: int = 0) -> dict[str, list[tuple[int, float]]]:
    """Return single values as series of one point."""
    return {name: [(step, value)] for name, value in metrics.items()}


def upload(client: MlflowClient, run: Run, path: Path, place: str | None = None) -> None:
    """Log a file where there is one: a trial that failed early has no recipe."""
    if path.is_file():
        client.log_artifact(run.info.run_id, str(path), place)


def milliseconds(path: Path) -> int:
    """Return when a file was written as MLflow counts time; now, where there is none."""
    return round(1000 * (path.stat().st_mtime if path.is_file() else time.time()))
