"""What happened in a run, a line each: from its journal, and from its records where there is none.

The lines of a trial say more: its stages with their seconds, its losses, its error.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.progress import describe
from orchestrator.record_cache import RecordCache
from orchestrator.records import TrialRecord
from orchestrator.run_events import Event, Journal
from orchestrator.run_status import StatusReader
from tasks.errors import StoreError

SOON_S = 3.0
"""A record is there before the journal tells of it."""


class RunLog:
    """The lines of a run, as they come.

    Args:
        run: the run's folder.
        trial: index of the trial to tell of; None tells of the run.

    Raises:
        StoreError: the run holds no such trial.
    """

    def __init__(self, run: Path, trial: int | None = None) -> None:
        self.run = run
        self.trial = trial
        self._journal = Journal(run)
        self._records = RecordCache(run)
        self._told: set[str] = set()
        self._journalled: set[str] = set()
        if trial is not None:
            total = StatusReader(run).read().trials.total
            if trial >= total:
                raise StoreError(
                    f"the run {run.name} has no trial {trial}; its trials are 0 to {total - 1}"
                )

    def new(self, *, settled: bool = False) -> list[str]:
        """Return the lines since the last call, in rich's markup.

        Args:
            settled: the journal tells of all records by now.
        """
        lines = []
        for event in self._journal.new():
            line = event_line(event)
            about = event.get("index")
            if event["event"] == "trial":
                self._journalled.add(str(event.get("trial_id")))  # its line comes beside it
                continue
            if line and (self.trial is None or about == self.trial):
                lines.append(f"{_clock(event.get('at'))}{line}")
        fresh = [r for r in self._records.read() if _key(r) not in self._told]
        for record in sorted(fresh, key=lambda r: self._records.ended.get(r.trial_id, 0.0)):
            ended = self._records.ended.get(record.trial_id, 0.0)
            soon = time.time() - ended < SOON_S and not settled
            if self.trial is None and self._journal.found and soon:
                continue  # the journal is about to tell of it
            self._told.add(_key(record))
            if self.trial is None and record.trial_id not in self._journalled:
                lines.append(f"{_clock(self._records.ended.get(record.trial_id))}{_told(record)}")
            elif record.index == self.trial:
                lines += trial_lines(record, self.run / "trials" / record.trial_id)
        return lines


def follow(log: RunLog, every_s: float) -> Iterator[str]:
    """Yield lines as they come, until the run ends or the trial has its record.

    Raises:
        StoreError: the run cannot be read any more.
    """
    status = StatusReader(log.run)
    while True:
        goes_on = status.read().state == "running"
        yield from log.new()
        if not goes_on or (log.trial is not None and log.trial in _indices(log)):
            return
        time.sleep(every_s)


def event_line(event: Event) -> str:
    """Return an event in words; "" for one that is only progress."""
    from rich.markup import escape

    match event:
        case {"event": "line", "text": str(text)}:
            return escape(text.strip("\n"))
        case {"event": "stage", "name": str(name), "done": int(done), "total": int(total)}:
            return f"{escape(name)}: {total:,} done" if done >= total else ""
        case {"event": "begin", "index": int(index)}:
            return f"trial {index} begins"
        case {"event": "start"}:
            return "the sweep starts"
        case {"event": "end"}:
            return "the sweep ends"
    said = event.get("text") or event.get("error") or event.get("message")
    return f"{escape(event['event'])}: {escape(str(said))}" if said else ""


def trial_lines(record: TrialRecord, folder: Path) -> list[str]:
    """Return all that a record says of its trial."""
    from rich.markup import escape

    lines = [_told(record), f"  folder   {escape(str(folder))}"]
    lines += [f"  setting  {escape(key)} = {value}" for key, value in record.settings.items()]
    if record.plan is not None:
        counts = ", ".join(f"{n:,} {role}" for role, n in record.plan.counts.items() if n)
        lines.append(f"  plan     {record.plan.rows:,} rows: {counts}")
    if record.train_loss:
        first, last = record.train_loss[0], record.train_loss[-1]
        lines.append(
            f"  training {len(record.train_loss)} epochs, loss {first:.4g} at first, {last:.4g} "
            "at last"
        )
    for attack in record.attacks:
        lines.append(
            f"  attack   {escape(attack.name)} ({attack.access}, {attack.queries:,} queries): "
            f"@1 {attack.accuracy_at_1}, surrogate {attack.surrogate_rate.value:.3f}".replace(
                "[", "\\["
            )
        )
    lines += [f"  took     {escape(stage)} {spent:.1f} s" for stage, spent in record.cost_s.items()]
    if record.error:
        lines.append(f"  [red]error    {escape(record.error)}[/red]")
    return lines


def _told(record: TrialRecord) -> str:
    return describe(record).strip()


def _key(record: TrialRecord) -> str:
    return f"{record.trial_id} {record.status} {record.results_hash()}"


def _indices(log: RunLog) -> set[int]:
    return {record.index for record in log._records.read()}


def _clock(at: object) -> str:
    """Return the time of day in front of a line; nothing where it is not known."""
    if not isinstance(at, int | float) or at <= 0:
        return ""
    return f"[dim]{time.strftime('%H:%M:%S', time.localtime(at))}[/dim]  "
