"""`dcdctl trials` and `dcdctl logs`: what the folder of a run says of its trials."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from orchestrator.run_events import Journal, read_events
from orchestrator.run_log import RunLog, follow
from orchestrator.store import Store
from tests.orchestrator.fake_run import (
    fake_record,
    fake_records,
    pseudonym,
    write_fake_run,
    write_fake_trial,
)
from tests.orchestrator.test_report import folder_spec
from tests.orchestrator.test_status import command


def journal(run: Path, *events: dict[str, object], torn: str = "") -> None:
    with (run / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)
        file.write(torn)


def test_every_trial_is_one_json_object_a_line(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path)
    result = command("trials", run.name, "--storage", str(tmp_path), "--json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["index"] for row in rows] == list(range(7))
    assert rows[3]["attacks"]["ppa"] == fake_record(3).attacks[0].accuracy_at_1.model_dump()
    assert rows[3]["cost_s"] == fake_record(3).cost_s
    assert rows[3]["settings"]["mislabel_fraction"] == 0.33
    assert [row["index"] for row in rows if row["recommended"]] == [5]
    assert rows[4]["status"] == "failed"
    assert rows[4]["error"].startswith("the loss of training is not finite")
    assert rows[4]["clean_accuracy"] is None


def test_the_table_has_intervals_cost_and_the_errors(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path)
    text = command("trials", str(run)).stdout
    for words in ("recommended", "rank 2", "85.9", "92.4]", "4.0x", "35 s", "failed"):
        assert words in text
    assert "trial 4 failed: the loss of training is not finite in epoch 3" in text
    only = command("trials", str(run), "--failed").stdout
    assert "recommended" not in only
    assert "trial 4 failed" in only


def test_a_record_that_cannot_be_read_is_named_and_left_out(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path, fake_records(2))
    torn = run / "trials" / fake_record(1).trial_id / "record.json"
    torn.write_text("{")
    result = command("trials", str(run), "--json")
    assert len(result.stdout.splitlines()) == 2
    assert f"{torn} cannot be read" in result.stderr


def test_real_people_have_pseudonyms_only(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path, spec=folder_spec(tmp_path))
    shown = [command(*args, str(run)) for args in (["trials"], ["trials", "--json"], ["status"])]
    shown += [command("status", str(run), "--json"), command("logs", str(run))]
    shown += [command("logs", str(run), "--trial", "3")]
    for result in shown:
        assert result.exit_code == 0
        for secret in ("Ann Smith", "Cy Young", "Di Hill", "/home/ann"):
            assert secret not in result.output
    assert pseudonym(0) != "Ann Smith"


# --- logs ----------------------------------------------------------------------------------------


def test_a_run_without_a_journal_is_told_from_its_records(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path)
    text = command("logs", str(run)).stdout
    lines = text.splitlines()
    assert len(lines) == 7
    assert "control" in lines[0]
    assert "failed" in lines[4]


def test_the_journal_is_told_in_words_and_records_once(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path, fake_records(1))
    journal(
        run,
        {"event": "line", "text": "[odd] bracket", "at": 1_700_000_000.0},
        {"event": "stage", "name": "prior", "done": 1, "total": 30},
        {"event": "stage", "name": "prior", "done": 30, "total": 30},
        {"event": "trial", "trial_id": fake_record(1).trial_id, "index": 1},
        {"event": "line", "text": "  trial   1  as the sweep told it"},
        {"event": "something new", "text": "is shown"},
        {"no": "event"},
        torn='{"event": "line", "te',
    )
    for record in run.glob("trials/*/record.json"):
        os.utime(record, (1_700_000_000, 1_700_000_000))
    text = command("logs", str(run)).stdout
    assert "[odd] bracket" in text
    assert text.count("control") == 1  # the journal has nothing of it
    assert text.count("prior") == 1
    assert text.count("trial   1") == 1
    assert "something new: is shown" in text
    assert '"te' not in text


def test_a_trial_tells_all_that_is_known_of_it(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path)
    text = command("logs", str(run), "--trial", "3").stdout
    for words in (
        "mislabel_fraction = 0.33",
        "20 epochs, loss 2.9 at first",
        "took     train 34.0",
    ):
        assert words in text
    assert "ppa (white-box, 61,920 queries): @1 0.031 [0.009, 0.107] (n=64)" in text
    assert "error    the loss" in command("logs", str(run), "--trial", "4").stdout
    result = command("logs", str(run), "--trial", "9")
    assert result.exit_code == 6
    assert "has no trial 9; its trials are 0 to 6" in result.stderr


def test_following_prints_what_comes_and_ends_with_the_run(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    lines: list[str] = []

    def listen(run: Path) -> None:
        lines.extend(follow(RunLog(run), 0.05))

    with store.locked():
        run = write_fake_run(tmp_path, fake_records(0))
        listener = threading.Thread(target=listen, args=(run,))
        listener.start()
        for index in (1, 2):
            time.sleep(0.2)
            write_fake_trial(run, fake_record(index), pictures=False)
            journal(run, {"event": "line", "text": f"after {index}"})
    for index in range(3, 7):
        write_fake_trial(run, fake_record(index), pictures=False)
    (run / "report.json").write_text("{}")
    (tmp_path / ".lock").write_text("process 1 on nowhere")
    listener.join(20)
    assert not listener.is_alive()
    assert [line for line in lines if "after" in line] == ["after 1", "after 2"]
    assert len(lines) == len(set(lines))


def test_a_journal_is_read_from_where_it_was_left(tmp_path: Path) -> None:
    reader = Journal(tmp_path)
    assert reader.new() == []
    journal(tmp_path, {"event": "line", "text": "a"}, torn='{"event": "li')
    assert [event["text"] for event in reader.new()] == ["a"]
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('ne", "text": "b"}\nnot json\n')
    assert [event["text"] for event in reader.new()] == ["b"]
    assert reader.new() == []
    (tmp_path / "events.jsonl").write_text('{"event": "line", "text": "c"}\n')
    assert [event["text"] for event in reader.new()] == ["c"]


@pytest.mark.parametrize("end", [{"event": "trial", "trial_id": "b"}, {"event": "end"}])
def test_a_trial_has_begun_until_it_ends(tmp_path: Path, end: dict[str, object]) -> None:
    begun = [{"event": "begin", "trial_id": name, "index": i} for i, name in enumerate("ab")]
    journal(tmp_path, {"event": "start", "slots": 2}, *begun, begun[0])
    found = read_events(tmp_path)
    assert found.slots == 2
    assert sorted(one.trial_id for one in found.begun) == ["a", "b"]
    journal(tmp_path, end)
    assert "b" not in [one.trial_id for one in read_events(tmp_path).begun]
