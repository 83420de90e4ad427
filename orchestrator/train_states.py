"""Checkpoints of a training under way: written, verified, then published.

A state is a folder named after its step. Its files are written beside it under a name that nobody
reads, read back and held against their SHA-256, and renamed: a state that has its name is whole.
One that was torn later, by a disk or a hand, is seen by the same digests, and the one before it is
taken.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

from orchestrator.bundle import Bundle, pack, unpack
from orchestrator.store import disk_errors, write_atomic
from tasks.errors import StoreError

log = logging.getLogger(__name__)

DIGESTS = "digests.json"
ROWS = "rows-at-once.json"
KEPT = 2
"""The newest, and the one to fall back to."""


def keep_state(folder: Path, step: int, state: Bundle) -> None:
    """Write a state, verify it, publish it, and remove those that are too old.

    Args:
        folder: of one training.
        step: of the state; a state of the same step is replaced.
        state: its files.

    Raises:
        DiskFullError: no space is left.
        StoreError: the folder cannot be written, or the disk gives other bytes than it was given.
    """
    target = folder / f"{step:09d}"
    partial = folder / f".{target.name}.partial"
    with disk_errors(folder):
        shutil.rmtree(partial, ignore_errors=True)
        digests = {name: _digest(data) for name, data in state.files.items()}
        listed = json.dumps(digests, sort_keys=True).encode()
        unpack(Bundle(state.files | {DIGESTS: listed}), partial, DIGESTS)
        if read_state(partial) is None:
            raise StoreError(
                f"the checkpoint {partial} does not read as it was written; check the disk, and "
                "resume to go on from the checkpoint before it"
            )
        if target.exists():
            shutil.rmtree(target)
        os.replace(partial, target)
    for old in _states(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def newest_state(folder: Path) -> tuple[int, Bundle] | None:
    """Return the newest whole state with its step; torn ones are passed over, and logged."""
    for state in _states(folder):
        found = read_state(state)
        if found is not None:
            return int(state.name), found
        log.warning("the checkpoint %s is torn; going on from the one before it", state)
    return None


def note_rows(folder: Path, rows: int) -> None:
    """Keep how many rows of a batch fit into memory, for whoever goes on with a training."""
    write_atomic(folder / ROWS, json.dumps(rows))


def noted_rows(folder: Path) -> int | None:
    """Return how many rows of a batch fit into memory; None where all did so far."""
    try:
        return int(json.loads((folder / ROWS).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def read_state(folder: Path) -> Bundle | None:
    """Return the files of a state, None if any is missing or not what was written."""
    try:
        files = dict(pack(folder).files)
        digests = json.loads(files.pop(DIGESTS))
    except (OSError, KeyError, ValueError):
        return None
    whole = digests == {name: _digest(data) for name, data in files.items()}
    return Bundle(files) if whole else None


def forget_states(folder: Path) -> None:
    """Remove all states of a training: its result is where it belongs."""
    shutil.rmtree(folder, ignore_errors=True)


def _states(folder: Path) -> list[Path]:
    """Return the published states, newest first."""
    found = [path for path in folder.glob("*") if path.name.isdecimal() and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name), reverse=True)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
