"""A run's journal as it is read: the lines of events.jsonl, as they come.

The journal is one JSON object a line, written by the driver alone. A line that is not whole yet is
waited for, and one that was torn by a crash is passed over: the records are the truth.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE = "events.jsonl"

Event = dict[str, Any]


class Journal:
    """Reads a run's journal from where it stopped reading before.

    Args:
        run: the run's folder; the journal need not be there yet.

    Attributes:
        found: whether there was anything in it.
    """

    def __init__(self, run: Path) -> None:
        self.path = run / FILE
        self._offset = 0
        self.found = False

    def new(self) -> list[Event]:
        """Return the events that were written since the last call."""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self._offset:
                    self._offset = 0  # another journal under the same name
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        self.found = self.found or bool(whole)
        return [event for line in whole.splitlines() if (event := _event(line)) is not None]


def _event(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


@dataclass(frozen=True)
class BegunTrial:
    """A trial that was handed out: its index, id, and when, seconds since the epoch."""

    index: int
    trial_id: str
    at: float


@dataclass(frozen=True)
class StageCount:
    """How far a stage is."""

    name: str
    done: int
    total: int


@dataclass
class RunEvents:
    """What a journal says of where the run is. Only its newest session counts."""

    begun: list[BegunTrial] = field(default_factory=list)
    stages: list[StageCount] = field(default_factory=list)
    slots: int | None = None

    def take(self, event: Event) -> None:
        """Add one event; kinds that are not known are passed over."""
        match event:
            case {"event": "start"}:
                self.begun = []
                self.slots = event.get("slots")
            case {"event": "slots", "slots": int(slots)}:
                self.slots = slots
            case {"event": "stage", "name": str(name), "done": int(done), "total": int(total)}:
                count = StageCount(name, done, total)
                names = [stage.name for stage in self.stages]
                if name in names:
                    self.stages[names.index(name)] = count
                else:
                    self.stages.append(count)
            case {"event": "begin", "trial_id": str(trial_id), "index": int(index)}:
                self.begun = [one for one in self.begun if one.trial_id != trial_id]
                self.begun.append(BegunTrial(index, trial_id, float(event.get("at", 0.0))))
            case {"event": "trial" | "lost", "trial_id": str(trial_id)}:
                self.begun = [one for one in self.begun if one.trial_id != trial_id]
            case {"event": "end"}:
                self.begun = []


def read_events(run: Path) -> RunEvents:
    """Return what a run's journal says; empty where there is none."""
    found = RunEvents()
    for event in Journal(run).new():
        found.take(event)
    return found
