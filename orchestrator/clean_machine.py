"""What commands that were killed left on this machine: scratch folders, and copies of storages."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from orchestrator.storage_copy import MARK

PREFIX = "dcd-"
"""Of every temporary folder that dcdctl makes."""


def old_scratch(before: float, place: Path | None = None) -> list[Path]:
    """Return this user's scratch folders that are old and in which no process works.

    Args:
        before: seconds since the epoch; nothing was written later.
        place: where temporary folders are; None is the system's.
    """
    places = {place} if place is not None else {Path(tempfile.gettempdir()), Path("/tmp")}  # noqa: S108
    found = [
        folder
        for top in places
        if top.is_dir()
        for folder in sorted(top.glob(f"{PREFIX}*"))
        if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid()
    ]
    old = [folder for folder in found if _last(folder) < before]
    used = "\n".join(_in_use()) if old else ""
    return [folder for folder in old if f"{folder}" not in used]


def old_copies(before: float) -> list[Path]:
    """Return the copies of object stores that are old and that no process holds."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser()
    found = (mark.parent for mark in (cache / "dcdctl" / "storages").glob(f"*/{MARK}"))
    return [copy for copy in sorted(found) if _last(copy) < before and not _is_held(copy)]


def remove_tree(folder: Path) -> None:
    """Remove a folder; what cannot be removed stays."""
    shutil.rmtree(folder, ignore_errors=True)


def _last(folder: Path) -> float:
    last = folder.stat().st_mtime
    for top, _, names in os.walk(folder):
        for name in names:
            try:
                last = max(last, os.lstat(os.path.join(top, name)).st_mtime)
            except OSError:
                continue
    return last


def _is_held(copy: Path) -> bool:
    try:
        with open(copy / ".lock", "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _in_use() -> Iterator[str]:
    """Yield command lines, working folders and open files of processes that may be looked at."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            yield str((process / "cwd").readlink())
            for link in (process / "fd").iterdir():
                yield str(link.readlink())
        except OSError:
            continue
