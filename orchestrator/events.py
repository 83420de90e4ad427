"""What a run's driver tells of its progress: one JSON object a line.

Into `<run>/events.jsonl`, which `orchestrator.run_events` reads; and, in a job on a cluster, onto
standard output, from where the machine that submitted it draws the same progress display.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from orchestrator.run_events import FILE

TO_STDOUT = "DCDCTL_EVENTS_TO_STDOUT"
"""Environment variable that turns a command's progress into lines of JSON."""

PREFIX = "::dcdctl:: "
"""Heads an event on standard output, where Ray and libraries write too."""

STAGE_EVERY_S = 1.0


class EventLog:
    """Writes events; a journal that cannot be written stops nothing.

    Args:
        run: the run's folder; None writes no journal.
    """

    def __init__(self, run: Path | None = None) -> None:
        self._path = None if run is None else run / FILE
        self._to_stdout = bool(os.environ.get(TO_STDOUT))
        self._told: dict[str, float] = {}
        self._torn = self._path is not None and _ends_torn(self._path)

    def write(self, event: str, **values: Any) -> None:
        """Write one event with the time, seconds since the epoch."""
        line = json.dumps({"event": event, "at": round(time.time(), 3)} | values)
        if self._to_stdout:
            sys.stdout.write(f"{PREFIX}{line}\n")
            sys.stdout.flush()
        if self._path is not None:
            try:
                with self._path.open("a") as file:
                    file.write(f"\n{line}\n" if self._torn else f"{line}\n")
                self._torn = False
            except OSError:
                self._path = None  # the records are the truth, and a full disk is their matter

    def stage(self, name: str, done: int, total: int, note: str) -> None:
        """Write how far a stage is: its start, its end, and about once a second between."""
        now = time.monotonic()
        if done < total and now - self._told.get(name, -STAGE_EVERY_S) < STAGE_EVERY_S:
            return
        self._told[name] = now
        self.write("stage", name=name, done=done, total=total, note=note)


def _ends_torn(path: Path) -> bool:
    """Say whether a crash left half a line, which would swallow the one that is written next."""
    try:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        return False


def to_stdout() -> bool:
    """Say whether progress goes to standard output as events, and nothing else does."""
    return bool(os.environ.get(TO_STDOUT))
