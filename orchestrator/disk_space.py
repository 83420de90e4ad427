"""Is there room for a run? Asked before it starts: a full disk in the middle costs a trial."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.spec import ExperimentSpec
from tasks.errors import DiskFullError

if TYPE_CHECKING:
    from orchestrator.selection import Selection

MARGIN = 64 * 2**20
"""Bytes for records, checkpoints and the report of a small run."""


def bytes_needed(spec: ExperimentSpec, selection: Selection) -> int:
    """Return about how much a run writes first: its decoded images, which are the most of it."""
    return int(selection.rows.num_rows) * 3 * spec.data.image_size**2 + MARGIN


def require_space(root: Path, spec: ExperimentSpec, selection: Selection) -> None:
    """Refuse to start where the disk is too full.

    Images that are there already are not written again, so a storage that holds any artefact needs
    the margin alone.

    Raises:
        DiskFullError: it is.
    """
    images = root / "artifacts" / "images"
    needed = MARGIN if images.is_dir() else bytes_needed(spec, selection)
    _require(root, needed)


def require_margin(root: Path) -> None:
    """Stop between two stages where the disk has become too full for the next.

    Raises:
        DiskFullError: it has; what was finished is kept, and the run can be resumed.
    """
    _require(root, MARGIN)


def _require(root: Path, needed: int) -> None:
    free = shutil.disk_usage(root).free
    if free < needed:
        raise DiskFullError(
            f"the storage {root} has {free / 2**20:,.0f} MiB free, and this run needs about "
            f"{needed / 2**20:,.0f}; free some and resume, or give --storage another folder"
        )
