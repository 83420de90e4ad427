"""Trial records of a run that is being written: each file is read once, and a torn one is named."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from orchestrator.records import TrialRecord


class RecordCache:
    """The records of one run, as far as they can be read.

    Args:
        run: the run's folder.

    Attributes:
        unreadable: record files that are no records, or not any more.
        ended: when each record was written, seconds since the epoch, by trial id.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.unreadable: list[Path] = []
        self.ended: dict[str, float] = {}
        self._kept: dict[Path, tuple[int, TrialRecord]] = {}

    def read(self) -> list[TrialRecord]:
        """Return all records by index; files that have not changed are not read again."""
        kept: dict[Path, tuple[int, TrialRecord]] = {}
        self.unreadable = []
        for path in self.run.glob("trials/*/record.json"):
            try:
                written = path.stat().st_mtime_ns
                known = self._kept.get(path)
                if known is None or known[0] != written:
                    known = written, TrialRecord.model_validate_json(path.read_bytes())
            except (OSError, ValidationError):
                self.unreadable.append(path)
                continue
            kept[path] = known
            self.ended[known[1].trial_id] = written / 1e9
        self._kept = kept
        return sorted((record for _, record in kept.values()), key=lambda record: record.index)
