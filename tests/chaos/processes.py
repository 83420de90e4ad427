"""The processes of a sweep by what they do, as /proc names them."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

ROLES = {
    "trial": re.compile(r"^ray::(ResourceTrainable|SweepTrial)\.train"),
    "publisher": re.compile(r"^ray::Publisher"),
    "judges": re.compile(r"^ray::judges_task"),
    "data worker": re.compile(r"^ray::(Map|Read|ReadArrow|FromArrow|_map_task|MapBatches)"),
    "raylet": re.compile(r"/raylet/raylet "),
    "gcs": re.compile(r"/gcs/gcs_server "),
}

_STARTED = re.compile(r"pid=(\d+)\) world_rank=(\d+)")


def children(root: int) -> list[int]:
    """Return all processes below one, however deep."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                words = (entry / "stat").read_text().rpartition(")")[2].split()
                if words[0] != "Z":
                    below.setdefault(int(words[1]), []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        for child in below.get(waiting.pop(), ()):
            found.append(child)
            waiting.append(child)
    return found


def title(pid: int) -> str:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return raw.replace(b"\0", b" ").decode(errors="replace").strip() + " "


def of_role(root: int, role: str) -> list[int]:
    """Return the processes below `root` that do a thing, oldest first."""
    return sorted(pid for pid in children(root) if ROLES[role].search(title(pid)))


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def end_all(pids: Sequence[int]) -> None:
    """Kill those of an ended driver's processes that are left; each is looked at again first."""
    for pid in pids:
        text = title(pid)
        if "ray" in text or "dcdctl" in text:
            kill(pid)


def train_groups(sessions: Path) -> Iterator[tuple[float, dict[int, int]]]:
    """Yield when each group of training processes started, and its processes by rank.

    Args:
        sessions: Ray's folder; its train controllers note every group in their logs.
    """
    for log in sorted(sessions.glob("session_2*/logs/train/ray-train-sys-controller-*.log")):
        for line in log.read_text(errors="replace").splitlines():
            if "Started training worker group" in line:
                ranks = {int(rank): int(pid) for pid, rank in _STARTED.findall(line)}
                stamp = re.search(r'"timestamp_ns": (\d+)', line)
                yield (int(stamp[1]) / 1e9 if stamp else log.stat().st_mtime), ranks
