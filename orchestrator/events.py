"""What a run's driver tells of its progress: one JSON object a line.

Into `<run>/events.jsonl`, which `orchestrator.run_events` reads; and, in a job on a cluster, onto
standard output, from where the machine that submitted it draws the same progress display.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.run_events import FILE

TO_STDOUT = "DCDCTL_EVENTS_TO_STDOUT"
"""Environment variable that turns a command's progress into lines of JSON."""

PREFIX = "::dcdctl:: "
"""Heads an event on standard output, where Ray and libraries write too."""

STAGE_EVERY_S = 1.0

CHUNK = 12_000
"""Characters of a file in one line: the job server cuts lines of more than 20,000."""

ROOMS = ("orchestrator", "tasks", "augment", "attacks", "clusters")
"""Whose warnings are told of."""

_WRITING = threading.Lock()


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
        self._print(line)
        if self._path is not None:
            try:
                with _WRITING, self._path.open("a") as file:
                    file.write(f"\n{line}\n" if self._torn else f"{line}\n")
                    self._torn = False
            except OSError:
                self._path = None  # the records are the truth, and a full disk is their matter

    def stage(
        self, name: str, done: int, total: int, note: str, seconds: float | None = None
    ) -> None:
        """Write how far a stage is: its start, its end, and about once a second between.

        Args:
            name: of the stage.
            done: things that are done.
            total: all things.
            note: for people.
            seconds: that it took, at its end.
        """
        now = time.monotonic()
        if done < total and now - self._told.get(name, -STAGE_EVERY_S) < STAGE_EVERY_S:
            return
        self._told[name] = now
        took = {} if seconds is None else {"seconds": round(seconds, 2)}
        self.write("stage", name=name, done=done, total=total, note=note, **took)

    def record(self, trial_id: str) -> None:
        """In a job, send a trial's record to whoever follows."""
        if self._to_stdout and self._path is not None:
            run = self._path.parent
            self.send(run.name, run / "trials" / trial_id / "record.json", run)

    def send(self, run: str, path: Path, root: Path) -> None:
        """In a job, send a file to the machine that submitted it, in parts; else do nothing.

        It is a job's output that goes back, which is kept in the cluster's logs: no names of
        people may be in it.

        Args:
            run: the run's name, "" for a file that is no run's.
            path: of the file; one that is not there is passed over.
            root: folder that its name is relative to.
        """
        if not self._to_stdout or not path.is_file():
            return
        data = base64.b64encode(path.read_bytes()).decode()
        name = path.relative_to(root).as_posix()
        for start in range(0, len(data) or 1, CHUNK):
            part = {"run": run, "path": name, "data": data[start : start + CHUNK]}
            last = start + CHUNK >= len(data)
            self._print(json.dumps({"event": "file", **part, "last": last}))

    def _print(self, line: str) -> None:
        if self._to_stdout:
            with _WRITING:
                sys.stdout.write(f"{PREFIX}{line}\n")
                sys.stdout.flush()


class _Warnings(logging.Handler):
    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._tell(record.getMessage())
        except Exception:
            self.handleError(record)


@contextmanager
def warnings_to(tell: Callable[[str], None]) -> Iterator[None]:
    """Hand what our own code warns of to a function, instead of to standard error.

    Args:
        tell: is called with the text, from any thread.
    """
    handler = _Warnings(tell)
    for room in ROOMS:
        logging.getLogger(room).addHandler(handler)
    try:
        yield
    finally:
        for room in ROOMS:
            logging.getLogger(room).removeHandler(handler)


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
