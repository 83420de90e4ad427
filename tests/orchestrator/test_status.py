"""`dcdctl status`: where a run is, read off its folder while somebody else writes in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from orchestrator.cli import app
from orchestrator.ledger import Ledger
from orchestrator.run_status import RunStatus, StatusReader
from orchestrator.spec import ComputeSpec, ExperimentSpec, SweepSpec
from orchestrator.spending import BudgetNote
from orchestrator.status_page import status_screen, watch
from orchestrator.store import Store
from orchestrator.time_left import time_left, trials_at_once
from tests.orchestrator.fake_run import GOAL, fake_record, fake_records, fake_spec, write_fake_run

DCDCTL = Path(sys.executable).with_name("dcdctl")


def command(*args: str) -> Result:
    return CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"}).invoke(app, args, prog_name="dcdctl")


def screen(status: RunStatus, width: int = 100) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as got:
        console.print(status_screen(status))
    return got.get()


@pytest.fixture
def driven(tmp_path: Path) -> Iterator[Path]:
    """A run of which four of seven trials have ended, and whose driver is this process."""
    with Store(str(tmp_path)).locked():
        yield write_fake_run(tmp_path, fake_records()[:4])


def begin(run: Path, trial_id: str, *files: str) -> None:
    folder = run / "trials" / trial_id
    for name in ("recipe.parquet", *files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_a_running_sweep_is_shown_on_one_screen(driven: Path) -> None:
    begin(driven, "one")
    begin(driven, "two", "checkpoint/meta.json")
    now = time.time() + 30
    found = StatusReader(driven, hour_price=0.5).read(now)
    assert found.state == "running"
    assert found.driver == f"process {os.getpid()} on {os.uname().nodename}"
    assert found.trials.model_dump() == {
        "total": 7, "done": 4, "failed": 0, "running": 2, "to_do": 1,
    }  # fmt: skip
    assert sorted(trial.doing for trial in found.running) == ["attacking", "training"]
    assert all(29 < trial.seconds < 35 for trial in found.running)
    assert found.best is not None
    assert found.best.recommended
    assert found.best.worst_attack.n == 64
    finished = sum(sum(record.cost_s.values()) for record in fake_records()[:4])
    assert found.spend.hours == pytest.approx((finished + 60) / 3600, rel=0.1)
    assert found.spend.money == pytest.approx(found.spend.hours * 0.5)
    assert found.time_left is not None
    assert found.time_left.low < found.time_left.seconds < found.time_left.high
    text = screen(found)
    for words in ("4 of 7, 2 running, 1 to do", "meets both goals", "at 0.5 an hour", "n=64"):
        assert words in text
    assert "90 % interval, " in text
    assert "control: 0.998" in text
    assert len(text.splitlines()) < 24


def test_failures_are_counted_named_and_paid_for(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path)
    found = StatusReader(run).read()
    assert (found.trials.done, found.trials.failed) == (6, 1)
    assert [one.index for one in found.failures] == [4]
    assert found.spend.failed_hours == pytest.approx(35.2 / 3600)
    assert "trial 4: the loss of training is not finite in epoch 3" in screen(found, 200)


def test_what_no_record_has_is_spent_too_and_the_budget_is_named(tmp_path: Path) -> None:
    compute = ComputeSpec(max_cost=1.0, hour_price=0.5)
    spec = fake_spec(tmp_path).model_copy(update={"compute": compute})
    run = write_fake_run(tmp_path, fake_records(1), spec=spec)
    before = StatusReader(run).read().spend
    assert (before.max_hours, before.money) == (2.0, before.hours * 0.5)
    ledger = Ledger(run)
    ledger.add("prior", 0.25)
    ledger.closed("lost", 0.5)
    note = BudgetNote(
        sentence="The budget ended it",
        spent_hours=1,
        limit_hours=2,
        hour_price=0.5,
        trials=2,
        total=7,
    )
    (run / "budget.json").write_text(note.model_dump_json())
    found = StatusReader(run).read()
    assert found.spend.hours == pytest.approx(before.hours + 0.75)
    assert found.budget == "The budget ended it"
    text = screen(found)
    assert "core hours of 2.00 core hours" in text
    assert "0.25 core hours for all trials together, 0.50 core hours in lost ones" in text


def test_a_finished_run_says_so(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path)
    (run / "report.json").write_text("{}")
    found = StatusReader(run).read()
    assert found.state == "finished"
    assert found.time_left is None
    assert found.stages[-1].state == "done"


def test_before_anything_has_ended_nothing_is_promised(tmp_path: Path) -> None:
    with Store(str(tmp_path)).locked():
        run = write_fake_run(tmp_path, [])
        found = StatusReader(run).read()
    assert found.time_left is None
    assert found.best is None
    assert found.trials.to_do == 7
    assert "not known before a trial has ended" in screen(found)


def test_a_driver_that_was_killed_is_gone_and_its_half_trials_are_not_running(
    tmp_path: Path,
) -> None:
    code = (
        "import sys, time; from orchestrator.store import Store\n"
        "from tests.orchestrator.fake_run import *\n"
        "with Store(sys.argv[1]).locked():\n"
        "    run = write_fake_run(Path(sys.argv[1]), fake_records()[:3])\n"
        "    print(run, flush=True); time.sleep(600)\n"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert driver.stdout is not None
        run = Path(driver.stdout.readline().strip())
        begin(run, "half")
        assert StatusReader(run).read().state == "running"
    finally:
        driver.kill()
        driver.communicate()
    found = StatusReader(run).read()
    assert found.state == "stopped"
    assert found.running == ()
    assert f"its driver, process {driver.pid} on " in found.says
    assert f"dcdctl sweep {run} --resume" in found.says


def test_a_younger_process_with_the_drivers_number_is_not_the_driver(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path, fake_records()[:3])
    lock = tmp_path / ".lock"
    lock.write_text(f"process {os.getpid()} on {os.uname().nodename}")
    long_ago = time.time() - 10_000_000
    for path in (lock, run / "spec.json"):
        os.utime(path, (long_ago, long_ago))
    assert StatusReader(run).read().state == "stopped"


def test_a_driver_elsewhere_is_known_by_its_last_sign_of_life(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("process 7 on another-host")
    run = write_fake_run(tmp_path, fake_records()[:3])
    found = StatusReader(run).read()
    assert found.state == "running"
    assert "process 7 on another-host, on another machine" in found.says
    later = StatusReader(run).read(time.time() + 700)
    assert later.state == "silent"
    assert "wrote last 12 min ago; if it is gone, go on with" in later.says


def test_a_lock_of_another_run_drives_only_that_one(tmp_path: Path) -> None:
    first = write_fake_run(tmp_path, fake_records()[:2])
    with Store(str(tmp_path)).locked():
        time.sleep(0.1)
        second = write_fake_run(
            tmp_path, [], spec=fake_spec(tmp_path).model_copy(update={"seed": 1})
        )
        assert StatusReader(first).read().state == "stopped"
        assert StatusReader(second).read().state == "running"


def test_a_torn_record_is_named_and_stops_nothing(driven: Path) -> None:
    path = driven / "trials" / fake_record(2).trial_id / "record.json"
    path.write_text(path.read_text()[:100])
    found = StatusReader(driven).read()
    assert found.trials.done == 3
    assert found.unreadable == (str(path),)


def test_looking_again_reads_only_what_is_new(
    driven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = StatusReader(driven)
    reader.read()
    read: list[Path] = []
    original = Path.read_bytes

    def spy(path: Path) -> bytes:
        read.append(path)
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", spy)
    write_fake_run(driven.parents[1], [fake_record(5)])
    found = reader.read()
    assert [p.parent.name for p in read if p.name == "record.json"] == [fake_record(5).trial_id]
    assert found.trials.done == 5


def test_a_thousand_trials_are_shown_within_seconds_and_again_at_once(tmp_path: Path) -> None:
    spec = ExperimentSpec(storage=str(tmp_path), sweep=SweepSpec(goal=GOAL, trials=999))
    run = write_fake_run(tmp_path, [fake_record(0)], spec=spec, pictures=False)
    for index in range(1, 500):
        made = fake_record(1 + index % 3)
        made = made.model_copy(update={"index": index, "trial_id": f"{index:012x}"})
        folder = run / "trials" / made.trial_id
        folder.mkdir()
        (folder / "record.json").write_text(made.model_dump_json())
    with Store(str(tmp_path)).locked():
        (run / "spec.json").write_text(spec.model_dump_json())
        reader = StatusReader(run)
        first = reader.read()
        started = time.monotonic()
        again = reader.read()
        assert time.monotonic() - started < 5  # 0.1 s on an idle machine
    assert first.trials == again.trials
    assert first.trials.to_do == 500
    assert again.time_left is not None


def test_without_a_run_the_newest_is_shown_and_all_are_listed(tmp_path: Path) -> None:
    write_fake_run(tmp_path)
    second = write_fake_run(
        tmp_path, fake_records(1), spec=fake_spec(tmp_path).model_copy(update={"seed": 1})
    )
    result = command("status", "--storage", str(tmp_path))
    assert result.exit_code == 0
    assert second.name in result.stdout.splitlines()[0]
    assert result.stdout.count("builtin-faces") == 3
    shown = command("status", "--storage", str(tmp_path), "--json")
    assert json.loads(shown.stdout)["fingerprint"] == second.name


def test_a_run_is_found_by_the_start_of_its_name(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path, fake_records(1))
    result = command("status", run.name[:4], "--storage", str(tmp_path), "--json")
    assert json.loads(result.stdout)["run"] == str(run)
    twin = run.with_name(run.name[:4] + "x")
    twin.mkdir()
    (twin / "spec.json").write_bytes((run / "spec.json").read_bytes())
    result = command("status", run.name[:4], "--storage", str(tmp_path))
    assert result.exit_code == 6
    assert "is the start of several runs" in result.stderr


def test_what_is_not_there_is_said_and_not_made(tmp_path: Path) -> None:
    for args in (["status"], ["logs"], ["trials"]):
        result = command(*args, "--storage", str(tmp_path / "none"))
        assert result.exit_code == 6
        assert "there is no run in the storage" in result.stderr
        result = command(*args, "abc", "--storage", str(tmp_path / "none"))
        assert result.exit_code == 6
        assert "there is no run 'abc'" in result.stderr
    assert not (tmp_path / "none").exists()


def test_nothing_heavy_is_needed(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path)
    code = (
        f"import sys; sys.argv = ['dcdctl', 'status', {str(run)!r}]\n"
        "from orchestrator.cli import main\n"
        "try: main()\n"
        "except SystemExit: print('\\n', *sys.modules)"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    loaded = set(output.splitlines()[-1].split())
    assert "orchestrator.run_status" in loaded
    assert not loaded & {"torch", "ray", "mlflow", "pyarrow"}


def test_watching_ends_with_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    goes_on = iter([True, True, False])
    looks = []

    def draw() -> tuple[str, bool]:
        looks.append(1)
        return f"look {len(looks)}", next(goes_on)

    watch(Console(), draw, every_s=0.01)
    assert capsys.readouterr().out.split("\n")[:3] == ["look 1", "look 2", "look 3"]


# --- the time that is left -----------------------------------------------------------------------


def test_nothing_left_takes_no_time() -> None:
    left = time_left([3.0], [], 0, 2)
    assert left is not None
    assert (left.low, left.high) == (0, 0)


def test_one_slot_takes_the_sum_and_two_take_half() -> None:
    taken = [10.0] * 40
    one, two = time_left(taken, [], 20, 1), time_left(taken, [], 20, 2)
    assert one is not None
    assert two is not None
    assert one.seconds == pytest.approx(200, rel=0.1)
    assert two.seconds == pytest.approx(100, rel=0.1)


def test_a_trial_that_runs_longer_than_any_other_is_not_over() -> None:
    left = time_left([10.0] * 10, [500.0], 0, 1)
    assert left is not None
    assert left.low > 0
    assert np.isfinite(left.high)


@pytest.mark.parametrize(("ended", "spread"), [(3, 0.15), (6, 0.4), (20, 0.3)])
def test_the_interval_holds_the_truth_as_often_as_it_says(ended: int, spread: float) -> None:
    """Sweeps of 24 trials over 3 slots, looked at when some have ended: nominal 90 %."""
    rng = np.random.default_rng(ended)
    held, rounds = 0, 200
    for _ in range(rounds):
        seconds = 60 * np.exp(spread * rng.standard_normal(24))
        begins, free = [], np.zeros(3)
        for one in seconds:
            slot = int(free.argmin())
            begins.append(free[slot])
            free[slot] += one
        ends = np.array(begins) + seconds
        now = np.sort(ends)[ended - 1]
        running = [now - b for b, e in zip(begins, ends, strict=True) if b < now < e]
        waiting = sum(b >= now for b in begins)
        left = time_left(
            [s for s, e in zip(seconds, ends, strict=True) if e <= now], running, waiting, 3
        )
        assert left is not None
        held += left.low <= ends.max() - now <= left.high
    assert held / rounds > 0.8


def test_trials_at_once_are_counted_from_when_they_ran() -> None:
    assert trials_at_once([]) == 1
    assert trials_at_once([(0, 10), (10, 20), (20, 30)]) == 1
    assert trials_at_once([(0, 10), (1, 11), (10.1, 20), (11.1, 30)]) == 2


def test_the_experiments_own_number_of_trials_at_once_counts(tmp_path: Path) -> None:
    spec = fake_spec(tmp_path).model_copy(update={"compute": ComputeSpec(concurrent_trials=3)})
    assert StatusReader(write_fake_run(tmp_path, fake_records(1), spec=spec)).read().slots == 3
