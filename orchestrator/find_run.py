"""Runs of a storage by name, and who writes in them; nothing is changed or locked by looking."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.bucket import SCHEMES
from orchestrator.lease import read_lease
from orchestrator.object_store import ObjectStore, open_object_store
from orchestrator.storage_copy import OWNER, small
from tasks.errors import StoreError

DEFAULT_STORAGE = ".dcdctl"
JOB_NOTE = "job.json"
"""In a run: that a job on a cluster drives it; a sweep from here takes it away."""


def storage_root(storage: str | None) -> Path:
    """Return the folder of a storage; it is not made.

    Args:
        storage: a folder or a URI; None is the default one. Of an object store, what there is to
            look at in its runs is fetched, and the folder of the copy returned.

    Raises:
        StoreError: the URI has another scheme, or the object store cannot be read.
    """
    uri = storage or DEFAULT_STORAGE
    parts = urlsplit(uri)
    if parts.scheme in SCHEMES:
        remote = open_object_store(uri)
        remote.pull(remote.root / "runs", small)
        _note_holder(remote)
        return remote.root
    if parts.scheme not in ("", "file"):
        raise StoreError(
            f"storage {uri!r}: runs are looked at in a folder, or at a file://, s3:// or gs:// "
            "URI; give one of those"
        )
    return Path(parts.path if parts.scheme == "file" else uri).expanduser()


def _note_holder(remote: ObjectStore) -> None:
    """Write the lease of a run on another machine as the lock that `driver_of` reads."""
    lease = None if (remote.root / OWNER).exists() else read_lease(remote)
    if lease is not None and not lease.copy.endswith(f":{remote.root}"):
        lock = remote.root / ".lock"
        lock.write_text(lease.who)
        os.utime(lock, (0, 0))


def runs_of(root: Path) -> list[Path]:
    """Return the folders of a storage's runs, the one that was written last first."""
    found = [path.parent for path in root.glob("runs/*/spec.json")]
    return sorted(found, key=lambda run: (last_written(run), run.name), reverse=True)


def find_run(name: str | None, root: Path) -> Path:
    """Return a run's folder.

    Args:
        name: the folder, or its name in the storage or a start of that; None is the newest run.
        root: the storage.

    Raises:
        StoreError: there is no such run, or there are several.
    """
    if name is not None and (Path(name) / "spec.json").is_file():
        folder = Path(name)
        return folder if folder.name not in ("", "..") else folder.resolve()  # it names the run
    runs = runs_of(root)
    if name is None:
        if not runs:
            raise StoreError(
                f"there is no run in the storage {root}; name another with --storage, or start one "
                "with `dcdctl sweep`"
            )
        return next((run for run in runs if not is_aside(run)), runs[0])
    wanted = Path(name).name
    exact = [run for run in runs if run.name == wanted]
    fitting = exact or [run for run in runs if wanted and run.name.startswith(wanted)]
    if len(fitting) == 1:
        return fitting[0]
    there = ", ".join(run.name for run in (fitting or runs)[:6]) or "none"
    if fitting:
        raise StoreError(f"{name!r} is the start of several runs: {there}; write more of the name")
    raise StoreError(
        f"there is no run {name!r} in the storage {root}; runs there: {there}; name one of them, a "
        "folder, or another --storage"
    )


def is_aside(run: Path) -> bool:
    """Say whether `--fresh` set this run aside."""
    return re.search(r"\.\d{8}-\d{6}$", run.name) is not None


def last_written(run: Path) -> float:
    """Return when anything of a run was written last, seconds since the epoch."""
    names = ("spec.json", "events.jsonl", "trials", "evaluation.json", "adaptive.json")
    return max((_time(run / name) for name in (*names, "report.json")), default=0.0)


@dataclass(frozen=True)
class Driver:
    """The process that writes in a run.

    Attributes:
        alive: whether it is there; None where only its last sign of life tells, because it is on
            another machine.
        who: process and machine.
    """

    alive: bool | None
    who: str


def driver_of(run: Path) -> Driver | None:
    """Return who drives a run, None where the storage's lock is of another run or of nobody.

    The lock names its holder, and its file outlives it. It is only read: taking it, if only for a
    moment, could turn away a sweep that starts in that moment.
    """
    lock = run.parent.parent / ".lock"
    if (job := _job_of(run)) is not None:
        return None if job.ended else Driver(None, job.who)
    try:
        text, locked = lock.read_text(), lock.stat().st_mtime
    except OSError:
        return None
    # A sweep writes the lock, then its spec; both are files of one disk, so their clock is one.
    if _time(run / "spec.json") < locked - 0.05:
        return None
    others = (other for other in lock.parent.glob("runs/*/spec.json") if other.parent != run)
    if any(_time(other) > _time(run / "spec.json") for other in others):
        return None
    found = re.match(r"process (\d+) on (\S+)", text)
    if found is None:
        return None
    process, host = int(found[1]), found[2]
    who = f"process {process} on {host}"
    if host != socket.gethostname():
        return Driver(None, who)
    return Driver(_is_process(process, locked), who)


@dataclass(frozen=True)
class _Job:
    who: str
    ended: bool


def _job_of(run: Path) -> _Job | None:
    try:
        note = json.loads((run / JOB_NOTE).read_bytes())
        return _Job(f"job {note['job_id']} on {note['where']}", bool(note["ended"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_process(process: int, locked: float) -> bool:
    """Say whether a process is there, and is not a younger one with the same number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    started = _started(process)
    return started is None or started <= locked + 2


def _started(process: int) -> float | None:
    """Return when a process started; None where the system does not say."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        if fields[0] in ("Z", "X"):
            return float("inf")
        since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return time.time() - uptime + since_boot


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def age_in_words(seconds: float) -> str:
    """Return how long ago something was, "40 s ago"."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} s ago"


def newest(paths: Sequence[Path]) -> float:
    """Return the latest time of writing of files that may be missing, 0 for none."""
    return max(map(_time, paths), default=0.0)
