"""MLflow's settings, which it reads when it is imported: call this before it.

Its telemetry client starts with the import; one that is switched off later has been on.
"""

from __future__ import annotations

import os

SETTINGS = {
    # MLflow's own retries block for minutes when the server is down; ours is the next sync.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def quiet_mlflow() -> None:
    """Set what MLflow reads when it is imported."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # whatever the environment says
