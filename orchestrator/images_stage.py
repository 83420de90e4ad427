"""The stage that decodes images, once for every run that needs the same rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from orchestrator.receipt import refuse_forgotten
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store, stage
from tasks.datasets.spec import BuiltinData, FolderData
from tasks.spec import fingerprint
from tasks.types import Image8

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, what is done and the total."""


def images_of(
    spec: ExperimentSpec, store: Store, rows: pa.Table, name: str, progress: Progress
) -> tuple[pa.Table, Image8, str]:
    """Decode rows with Ray Data, once for these rows; return table, images and their key.

    The table has a column more: `native`, the packed size of each image in its file.
    """
    from orchestrator.ingest import ingest, load_images, load_sizes

    key = images_key(spec, rows)
    folder = store.artifact("images", f"{name}-{key}")

    def make(out: Path) -> dict[str, object]:
        refuse_forgotten(store.receipts(), store.key, rows["identity"].unique().to_pylist())
        result = ingest(
            rows,
            spec.data,
            spec.seed,
            out,
            on_progress=lambda done, total: progress(f"{name} images", done, total),
        )
        return {"rows": result.rows, "quarantined": result.quarantined}

    made = stage(folder, make)
    for reason, count in made["quarantined"].items():
        progress(f"set aside, {reason}", count, count)
    table, images = load_images(folder)
    return table.append_column("native", pa.array(load_sizes(folder))), images, key


def images_key(spec: ExperimentSpec, rows: pa.Table) -> str:
    """Return the key under which the decoded images of these rows are kept."""
    return fingerprint([spec.data.model_dump(mode="json"), _listing(spec, rows)])


def _listing(spec: ExperimentSpec, rows: pa.Table) -> str:
    """Return a hash of which rows there are and, for files, of their sizes and times."""
    parts: list[object] = [rows["row_id"].to_pylist(), rows["split"].to_pylist()]
    if isinstance(spec.data, FolderData):
        from tasks.datasets.sources import file_stamps

        parts.append(file_stamps(rows["source"].to_pylist()))
    if isinstance(spec.data, BuiltinData) or spec.protect.surrogate_pool == "builtin":
        from tasks.datasets.faces import FACE_VERSION

        parts += [spec.seed, FACE_VERSION]
    return fingerprint(parts)
