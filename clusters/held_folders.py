"""Temporary folders that are known to be held by a living process, and the removal of all others.

A process that is killed leaves its folders behind. Each has a file `.owner` on which its process
holds a lock of the kernel: the lock ends with the process, whatever its number, its container or a
restart of the machine, so that a lock that can be had says that the owner is gone. The file gets
its name after it was locked: a folder without one is taken for one that is just being made.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "dcd-"
"""Of all folders; what comes after it says what they are for."""

OWNER = ".owner"

_looked: set[tuple[int, str]] = set()
_looking = threading.Lock()


@contextmanager
def held_folder(purpose: str, where: str | None = None) -> Iterator[Path]:
    """Have a folder of this machine for as long as the block runs; it holds `.owner` alone.

    The first one of a process removes what processes that are gone left in the same place.

    Args:
        purpose: part of its name; "" for a short one.
        where: the folder that it is made in; None is the system's.
    """
    place = where or tempfile.gettempdir()
    _once_a_process(place)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{purpose}", dir=place))
    lock = -1
    try:
        lock = _hold(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock >= 0:
            os.close(lock)


def _hold(folder: Path) -> int:
    """Lock a folder's file under a name that nobody looks at, then give it its own."""
    unnamed = folder / f"{OWNER}.new"
    lock = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(lock, f"{os.getpid()}\n".encode())
        unnamed.rename(folder / OWNER)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _once_a_process(place: str) -> None:
    with _looking:
        if (os.getpid(), place) in _looked:
            return
        _looked.add((os.getpid(), place))
    remove_stale(Path(place))


def remove_stale(place: Path) -> list[Path]:
    """Remove the folders in `place` whose processes are gone, and return them.

    Only those of this user, and only those with a lock that can be had: the living hold theirs.
    """
    removed = []
    for owner in place.glob(f"{PREFIX}*/{OWNER}"):
        with suppress(OSError):
            folder = owner.parent
            if folder.is_symlink() or folder.lstat().st_uid != os.getuid():
                continue
            lock = os.open(owner, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(folder)
            finally:
                os.close(lock)
    return removed
