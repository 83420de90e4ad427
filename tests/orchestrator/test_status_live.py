"""`status`, `logs` and `trials` beside a real sweep whose tracking server is down all the while."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.store import records_of

DCDCTL = str(Path(sys.executable).with_name("dcdctl"))
NOBODY = "http://127.0.0.1:9"
"""Where no tracking server listens."""

pytestmark = pytest.mark.slow


def ask(*args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    environment = os.environ | {"COLUMNS": "160", "NO_COLOR": "1"}
    done = subprocess.run(
        [DCDCTL, *args], capture_output=True, text=True, timeout=240, env=environment
    )
    assert done.returncode == code, done.stderr
    return done


def test_a_running_sweep_is_watched_from_another_process(tmp_path: Path) -> None:
    storage = ["--storage", str(tmp_path / "s")]
    changes = ["--set", f"tracking.uri={NOBODY}"]
    seen: list[dict[str, Any]] = []
    rows_by_done: dict[int, int] = {}
    with open(tmp_path / "sweep.log", "w") as log:
        sweep = subprocess.Popen(
            [DCDCTL, "sweep", "--smoke", *storage, *changes], stdout=log, stderr=log
        )
        try:
            followed = None
            deadline = time.monotonic() + 1500
            while sweep.poll() is None:
                assert time.monotonic() < deadline
                if not list(tmp_path.glob("s/runs/*/spec.json")):
                    time.sleep(0.5)
                    continue
                if followed is None:
                    followed = subprocess.Popen(
                        [DCDCTL, "logs", "--follow", *storage], stdout=subprocess.PIPE, text=True
                    )
                rows = ask("trials", "--json", *storage).stdout.splitlines()
                told = json.loads(ask("status", "--json", *storage).stdout)
                seen.append(told)
                # A trial may end between the two looks, never be lost.
                assert len(rows) <= told["trials"]["done"]
                rows_by_done[told["trials"]["done"]] = len(rows)
            assert followed is not None
            tale = followed.communicate(timeout=120)[0]
        finally:
            sweep.kill()
            sweep.wait()
    assert sweep.returncode == 0, (tmp_path / "sweep.log").read_text()

    running = [told for told in seen if told["state"] == "running"]
    assert running, "the sweep was never seen running"
    assert all(told["driver"].startswith(f"process {sweep.pid} on ") for told in running)
    done = [told["trials"]["done"] for told in running]
    assert done == sorted(done)
    assert any(told["trials"]["running"] for told in running)
    assert any(told["spend"]["hours"] > 0 for told in running)

    (run,) = tmp_path.glob("s/runs/*")
    records = records_of(run)
    ended = json.loads(ask("status", "--json", *storage).stdout)
    assert (ended["state"], ended["trials"]["done"], len(records)) == ("finished", 3, 3)
    listed = [json.loads(row) for row in ask("trials", "--json", *storage).stdout.splitlines()]
    assert [row["trial_id"] for row in listed] == [record.trial_id for record in records]
    for row, record in zip(listed, records, strict=True):
        assert record.clean_accuracy is not None
        assert row["clean_accuracy"] == record.clean_accuracy.model_dump()

    # What was followed live is what is told afterwards, the control and every trial among it.
    for text in (tale, ask("logs", *storage).stdout):
        assert all(name in text for name in ("control", "trial   1", "trial   2"))
    assert "finished" in ask("status", *storage).stdout

    # The tracking server was down, and that is said once, with what to do.
    told_off = (tmp_path / "sweep.log").read_text()
    assert told_off.count("MLflow does not show all of this run") == 1
    assert f"dcdctl track {run} --replay" in told_off.replace("\n", "")
    assert "the records are safe" in ask("track", *storage, code=6).stderr.replace("\n", " ")
    # Filled in later, elsewhere.
    elsewhere = ["--uri", f"sqlite:///{tmp_path}/mlflow.db"]
    assert "3 of 3 trials were not there, now written" in (
        ask("track", "--replay", *storage, *elsewhere).stdout
    )
    assert "all 3 trials were there" in ask("track", *storage, *elsewhere).stdout
