"""What the driver writes is what `dcdctl status` reads, in a file and on standard output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.events import PREFIX, TO_STDOUT, EventLog
from orchestrator.progress import Display
from orchestrator.run_events import FILE, read_events


def test_stages_and_trials_are_read_as_they_were_written(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.write("start", slots=2, total=3, done=0)
    log.stage("private images", 0, 10, "")
    log.stage("private images", 5, 10, "")  # too soon after the first
    log.stage("private images", 10, 10, "")
    log.write("begin", index=1, trial_id="abc")
    log.write("begin", index=2, trial_id="def")
    log.write("trial", index=1, trial_id="abc", status="ok")
    found = read_events(tmp_path)
    assert found.slots == 2
    assert [(s.name, s.done, s.total) for s in found.stages] == [("private images", 10, 10)]
    assert [(b.index, b.trial_id) for b in found.begun] == [(2, "def")]
    assert len((tmp_path / FILE).read_text().splitlines()) == 6


def test_a_journal_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "not there")
    log.write("start")
    log.write("end")


def test_a_job_prints_events_and_nothing_else(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TO_STDOUT, "1")
    display = Display(Console())
    display.line("[bold]a line[/bold]")
    display.stage("images", 4, 4)
    printed = capsys.readouterr().out.splitlines()
    assert all(line.startswith(PREFIX) for line in printed)
    events = [json.loads(line.removeprefix(PREFIX)) for line in printed]
    assert [event["event"] for event in events] == ["line", "stage"]
    assert events[0]["text"] == "a line"


def test_half_a_line_that_a_crash_left_does_not_swallow_the_next(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"event": "start", "slots": 1}\n{"event": "beg')
    log = EventLog(tmp_path)
    log.write("start", slots=2)
    log.write("begin", index=1, trial_id="abc")
    found = read_events(tmp_path)
    assert found.slots == 2
    assert [one.trial_id for one in found.begun] == ["abc"]
    EventLog(tmp_path).write("end")
    assert "" not in (tmp_path / FILE).read_text().splitlines()
