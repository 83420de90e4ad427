"""What a job on a cluster tells and sends, kept as runs of a storage here."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.events import PREFIX
from orchestrator.find_run import JOB_NOTE
from orchestrator.job_request import OUTCOME, RESULT, Command, SentJob
from orchestrator.run_events import FILE, Event
from orchestrator.spec import ExperimentSpec
from orchestrator.store import write_atomic
from tasks.errors import ClusterError

_RUN = re.compile(r"[0-9a-f]{12}")
"""A run's name is its fingerprint; a path in its place could lead anywhere on this machine."""

_NOT_KEPT = ("job", "run", "outcome", "done")
"""Events that are about the job, and not about the run under way."""


class JobMirror:
    """Keeps what a job tells and sends.

    Args:
        root: storage of this machine.
        job_id: the job.
        where: the cluster, for people.
        sent: what was asked, where this machine knows it; else the job's own word is taken.

    Attributes:
        command: of the job, once it told.
        folders: of its runs, here.
        outcome: of a single step, as JSON.
        values: what is known of the outcome of a sweep.
        stages: of a single step, by name: done, total, seconds.
        error: the job's sentence and exit code, where it failed.
        ended: it said its last word.
        fetched: what it wrote is here.
    """

    def __init__(self, root: Path, job_id: str, where: str, sent: SentJob | None = None) -> None:
        self.root, self.job_id, self.where = root, job_id, where
        self._sent = sent
        self._parts: dict[tuple[str, str], list[str]] = {}
        self.command: Command | None = None if sent is None else sent.command
        self.folders: list[Path] = []
        self.outcome: str | None = None
        self.values: dict[str, Any] = {}
        self.stages: dict[str, Event] = {}
        self.error: tuple[str, int] | None = None
        self.ended = False
        self.fetched = False

    def take(self, event: Event) -> None:
        """Keep one event.

        Raises:
            ClusterError: the job is not honest: it names a place outside its runs.
        """
        match event:
            case {"event": "job", "command": "sweep" | "compare" | "augment" | "train" | "attack"}:
                self.command = event["command"]
            case {"event": "run", "run": str(run), "number": int(number)}:
                self._begin(run, number, event.get("spec"))
            case {"event": "file", "run": str(run), "path": str(path), "data": str(data)}:
                self._parts.setdefault((run, path), []).append(data)
                if event.get("last"):
                    self._file(run, path, "".join(self._parts.pop((run, path))))
            case {"event": "outcome"}:
                self.values = {k: v for k, v in event.items() if k not in ("event", "at")}
            case {"event": "failed", "text": str(text), "code": int(code)}:
                self.error = (text, code)
            case {"event": "stage", "name": str(name)} if not self.folders:
                self.stages[name] = event
        if event["event"] in ("failed", "done"):
            self._end()
        if self.folders and event["event"] not in (*_NOT_KEPT, "file"):
            with (self.folders[-1] / FILE).open("a") as file:
                file.write(json.dumps(event) + "\n")

    def _begin(self, run: str, number: int, shown: Any) -> None:
        if not _RUN.fullmatch(run):
            raise ClusterError(
                f"the job sent a file for a run {run[:80]!r}, which is no run's name; nothing was "
                "written"
            )
        folder = self.root / "runs" / run
        spec = self._spec(number, shown).model_copy(update={"storage": str(self.root)})
        write_atomic(folder / "spec.json", spec.model_dump_json(indent=2) + "\n")
        write_atomic(folder / FILE, b"")
        self._note(folder, ended=False)
        if folder not in self.folders:
            self.folders.append(folder)

    def _spec(self, number: int, shown: Any) -> ExperimentSpec:
        if self._sent is not None and number in range(len(self._sent.specs)):
            spec = self._sent.specs[number]
            if self._sent.command == "compare":
                from orchestrator.compare import comparing

                return comparing(spec, spec.seed)
            return spec
        try:
            return ExperimentSpec.model_validate(shown)
        except ValidationError as error:
            raise ClusterError(
                f"the job {self.job_id} was sent by another version of dcdctl, whose experiment "
                "this one does not understand; look at it with that version"
            ) from error

    def _file(self, run: str, path: str, data: str) -> None:
        if run:
            if not _RUN.fullmatch(run):
                raise ClusterError(
                    f"the job sent a file for a run {run[:80]!r}, which is no run's name; nothing "
                    "was written"
                )
            keep(self.root / "runs" / run, path, data)
        elif path == OUTCOME:
            self.outcome = base64.b64decode(data).decode()
        elif self._sent is not None and self._sent.out and path.startswith(f"{RESULT}/"):
            keep(Path(self._sent.out), path.removeprefix(f"{RESULT}/"), data)

    def _end(self) -> None:
        self.ended = True
        for folder in self.folders:
            self._note(folder, ended=True)

    def _note(self, folder: Path, *, ended: bool) -> None:
        note = {"job_id": self.job_id, "where": self.where, "ended": ended}
        write_atomic(folder / JOB_NOTE, json.dumps(note) + "\n")


def events_of(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events among a job's lines; what Ray and libraries print is passed over."""
    for line in lines:
        if line.startswith(PREFIX):
            try:
                event = json.loads(line.removeprefix(PREFIX))
            except ValueError:
                continue
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                yield event


def keep(folder: Path, path: str, data: str) -> None:
    """Write a file that a job sent.

    Args:
        folder: that it may write into.
        path: inside of it, as the job says.
        data: in base 64.

    Raises:
        ClusterError: the path leads out of the folder.
    """
    place = (folder / path).resolve()
    if not place.is_relative_to(folder.resolve()):
        raise ClusterError(
            f"the job sent a file for {path!r}, outside its run; nothing was written"
        )
    write_atomic(place, base64.b64decode(data))
