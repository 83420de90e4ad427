"""Take runs out of the storage's own MLflow for good: rows, artefacts, the file's free pages."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Collection
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from orchestrator.mlflow_quiet import quiet_mlflow
from tasks.errors import TrackingError

DATABASE = "mlflow.db"


def shown_runs(root: Path, fingerprints: Collection[str]) -> list[str]:
    """Return MLflow's ids of the runs that show some sweeps and their trials."""
    if not (root / DATABASE).is_file() or not fingerprints:
        return []
    base = sqlite3.connect(f"file:{root / DATABASE}?mode=ro", uri=True)
    try:
        asked = ",".join("?" * len(fingerprints))
        rows = base.execute(
            f"select run_uuid from tags where key = 'dcdctl.run' and value in ({asked})",  # noqa: S608 - placeholders
            list(fingerprints),
        )
        return sorted({str(row[0]) for row in rows})
    except sqlite3.DatabaseError:
        return []
    finally:
        base.close()


def remove_runs(root: Path, fingerprints: Collection[str]) -> int:
    """Remove the runs that show some sweeps; return how many MLflow runs that were.

    Raises:
        TrackingError: the database is in use or damaged.
    """
    ids = shown_runs(root, fingerprints)
    if not ids:
        return 0
    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    quiet_mlflow()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    place = root / "mlartifacts"
    try:
        store = SqlAlchemyStore(f"sqlite:///{root / DATABASE}", place.as_uri())
        for run_id in ids:
            run = store.get_run(run_id)
            if run.info.lifecycle_stage != "deleted":
                store.delete_run(run_id)
            _remove_artefacts(str(run.info.artifact_uri), place)
            shutil.rmtree(place / run_id, ignore_errors=True)  # of a storage that was moved
            store._hard_delete_run(run_id)
        store.engine.dispose()
        base = sqlite3.connect(root / DATABASE)
        try:
            base.execute("vacuum")  # else what was deleted stays in the file's free pages
        finally:
            base.close()
    except Exception as error:
        raise TrackingError(
            f"{root / DATABASE} does not let go of {len(ids)} runs ({str(error)[:200]}); stop "
            "`mlflow ui` on it, and give the command again"
        ) from error
    return len(ids)


def _remove_artefacts(uri: str, place: Path) -> None:
    folder = Path(url2pathname(urlsplit(uri).path) if "://" in uri else uri)
    own = folder.parent if folder.name == "artifacts" else folder
    if place in own.parents:
        shutil.rmtree(own, ignore_errors=True)
