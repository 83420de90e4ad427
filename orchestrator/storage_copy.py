"""The copy of an object store in a folder here: whose it is, and which of its files are in step.

A file that is in step has a modification time of a whole second: the store's own, rounded up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MARK, OWNER, LEASE = ".remote.json", ".owner", ".lease.json"
"""In the copy: whose copy it is, and who writes; in the object store: who writes, with a beat."""

LAST = ("record.json", "manifest.json")
"""Files whose presence says that all others of their folder are there."""

NOT_MIRRORED = ("mlflow.db", "mlartifacts", "outbox")
"""Views of the records, made anew at will."""

SMALL = 4 << 20
"""Bytes of a file that is fetched to look at a run."""


@dataclass(frozen=True)
class Stamp:
    """An object's size in bytes, and when it was written: seconds since the epoch."""

    size: int
    seconds: int


def small(name: str, size: int) -> bool:
    """Say whether an object is fetched to look at a run: texts and numbers, no weights."""
    return size <= SMALL and PurePosixPath(name).suffix in (".json", ".jsonl", ".html")


def is_mirrored(root: Path, path: Path) -> bool:
    """Say whether a file of the copy is one of the storage's own, and no view or note of ours."""
    names = path.relative_to(root).parts
    return not any(name.startswith(".") or name in NOT_MIRRORED for name in names)


def set_in_step(path: Path, stamp: Stamp) -> None:
    """Note that a file of the copy is what the object store has."""
    whole = (stamp.seconds + 1) * 10**9
    os.utime(path, ns=(whole, whole))


def is_in_step(path: Path) -> bool:
    """Say whether a file of the copy is what the object store had when it was last looked at."""
    return path.stat().st_mtime_ns % 10**9 == 0


def is_stale(path: Path, stamp: Stamp) -> bool:
    """Say whether the object store has something else, or newer, than the copy."""
    try:
        own = path.stat()
    except OSError:
        return True
    if own.st_mtime_ns % 10**9:  # written here and not uploaded yet: it stays where it is newer
        return own.st_mtime < stamp.seconds
    return own.st_size != stamp.size or own.st_mtime_ns // 10**9 != stamp.seconds + 1


def files_below(folder: Path) -> Iterator[Path]:
    """Return the files of a folder and of its subfolders, sorted."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
