"""MLflow as its users like it: notes, roles, the checkpoint; and whole after any outage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import background_tracker
from orchestrator.background_tracker import BackgroundTracker
from orchestrator.mlflow_batches import log_batches
from orchestrator.records import TrialRecord
from orchestrator.report import write_report
from orchestrator.spec import ExperimentSpec, SweepSpec, TrackingSpec
from orchestrator.store import Store
from orchestrator.tracking import MlflowTracker, make_tracker
from tests.orchestrator.fake_run import (
    GOAL,
    fake_record,
    fake_records,
    fake_spec,
    write_fake_run,
    write_fake_trial,
)
from tests.orchestrator.test_status import command
from tests.orchestrator.test_tracking import (
    Recorder,
    artifacts,
    empty_database,
    free_port,
    mlflow_server,
    storage,
    view,
)

__all__ = ["empty_database", "storage"]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def with_checkpoint(run: Path, record: TrialRecord) -> None:
    folder = run / "trials" / record.trial_id / "checkpoint"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "meta.json").write_text("{}")


def test_the_recommended_trial_is_tagged_and_its_checkpoint_is_a_plain_artefact(
    storage: Path,
) -> None:
    run = write_fake_run(storage)
    for index in (0, 3, 5):
        with_checkpoint(run, fake_record(index))
    write_report(run)
    tracker = make_tracker(fake_spec(storage), storage)
    tracker.sync(run, fake_spec(storage), fake_records())
    shown = view(fake_spec(storage), tracker.uri)
    roles = {
        shown[r.trial_id].data.tags.get("dcdctl.role"): r.index for r in reversed(fake_records())
    }
    assert (roles["control"], roles["recommended"]) == (0, 5)
    assert "dcdctl.role" not in shown[fake_record(6).trial_id].data.tags
    best = shown[fake_record(5).trial_id]
    assert artifacts(best, tracker.uri, "checkpoint") == {
        "checkpoint/model.safetensors",
        "checkpoint/meta.json",
    }
    assert "checkpoint" not in artifacts(shown[fake_record(3).trial_id], tracker.uri)
    assert not list((storage / "mlartifacts").rglob("MLmodel"))
    assert not list((storage / "mlartifacts").rglob("*.pkl"))


def test_the_checkpoint_stays_where_the_experiment_says_so(storage: Path) -> None:
    spec = fake_spec(storage).model_copy(update={"tracking": TrackingSpec(checkpoint=False)})
    run = write_fake_run(storage, spec=spec)
    with_checkpoint(run, fake_record(5))
    write_report(run)
    tracker = make_tracker(spec, storage)
    tracker.sync(run, spec, fake_records())
    best = view(spec, tracker.uri)[fake_record(5).trial_id]
    assert "checkpoint" not in artifacts(best, tracker.uri)


def test_notes_tell_the_verdict_and_show_the_frontier(storage: Path) -> None:
    from mlflow import MlflowClient

    run = write_fake_run(storage)
    write_report(run)
    spec = fake_spec(storage)
    tracker = make_tracker(spec, storage)
    tracker.sync(run, spec, fake_records())
    shown = view(spec, tracker.uri)
    parent = shown[None]
    note = parent.data.tags["mlflow.note.content"]
    picture = f"get-artifact?path=note%2Ffrontier.png&run_uuid={parent.info.run_id}"
    assert picture in note
    assert "1 of 64 tries" in note
    assert (
        "| trial 5 | 97.8 % (95.8 to 98.8, n=400) | 1.6 % (0.3 to 8.3, n=64) | recommended |"
        in note
    )
    assert f"dcdctl augment {run}" in note
    assert "figures/frontier.svg" in artifacts(parent, tracker.uri, "figures")
    assert "note/frontier.png" in artifacts(parent, tracker.uri, "note")
    experiment = MlflowClient(tracking_uri=tracker.uri).get_experiment_by_name("dcdctl")
    assert picture in experiment.tags["mlflow.note.content"]
    failed = shown[fake_record(4).trial_id].data.tags
    assert failed["mlflow.note.content"].startswith("**failed:** the loss of training")


def test_a_finished_sweep_that_goes_on_with_more_trials_is_shown_in_full(storage: Path) -> None:
    """MLflow lets no parameter change, and the number of trials is one."""
    first = ExperimentSpec(storage=str(storage), sweep=SweepSpec(goal=GOAL, trials=3))
    run = write_fake_run(storage, fake_records(3), spec=first)
    write_report(run)
    tracker = make_tracker(first, storage)
    tracker.sync(run, first, fake_records(3))
    assert view(first, tracker.uri)[None].info.status == "FINISHED"

    more = ExperimentSpec(storage=str(storage), sweep=SweepSpec(goal=GOAL, trials=6))
    assert write_fake_run(storage, fake_records(5), spec=more) == run
    again = make_tracker(more, storage)
    again.sync(run, more, fake_records(5))
    parent = view(more, tracker.uri)[None]
    assert parent.info.status == "RUNNING"
    assert parent.data.tags["dcdctl.changed"] == "sweep.trials=6"
    assert parent.data.params["sweep.trials"] == "3"

    write_fake_trial(run, fake_record(6))
    write_report(run)
    again.sync(run, more, fake_records(6))
    assert view(more, tracker.uri)[None].info.status == "FINISHED"


def test_an_old_run_that_is_replayed_shows_how_the_hypervolume_grew(storage: Path) -> None:
    from mlflow import MlflowClient

    run = write_fake_run(storage)
    tracker = make_tracker(fake_spec(storage), storage)
    tracker.sync(run, fake_spec(storage), fake_records())
    parent = view(fake_spec(storage), tracker.uri)[None]
    client = MlflowClient(tracking_uri=tracker.uri)
    history = client.get_metric_history(parent.info.run_id, "hypervolume")
    assert [point.step for point in history] == list(range(1, 8))
    values = [point.value for point in history]
    assert values == sorted(values)


# --- outages ------------------------------------------------------------------------------------


class Cable(ConnectionError):
    """Pulled."""


def calls_until(monkeypatch: pytest.MonkeyPatch, last: int, when: str) -> Callable[[], int]:
    """Let every call of MLflow's client from number `last` on fail, before or after it worked."""
    from mlflow import MlflowClient

    count = 0

    def broken(name: str) -> None:
        original = getattr(MlflowClient, name)

        def call(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count > last or (count == last and when == "before"):
                raise Cable
            found = original(*args, **options)
            if count == last:
                raise Cable  # it arrived, and the answer did not
            return found

        monkeypatch.setattr(MlflowClient, name, call)

    for name in ("create_run", "log_batch", "log_artifact", "log_artifacts", "set_terminated"):
        broken(name)
    for name in ("set_tag", "search_runs", "set_experiment_tag", "update_run"):
        broken(name)
    return lambda: count


def whole_view(spec: ExperimentSpec, uri: str) -> dict[Any, Any]:
    """All that MLflow shows of a run but its own ids, times and where artefacts are."""
    from mlflow import MlflowClient

    client, found = MlflowClient(tracking_uri=uri), {}
    for trial_id, run in view(spec, uri).items():
        tags = {k: v for k, v in run.data.tags.items() if k.startswith("dcdctl.")}
        history = {
            name: sorted(
                (p.step, p.value) for p in client.get_metric_history(run.info.run_id, name)
            )
            for name in ("train_loss", "ppa/search", "hypervolume")
        }
        files = artifacts(run, uri) | artifacts(run, uri, "figures")
        found[trial_id] = (
            run.info.status, run.data.params, run.data.metrics, tags, history, files,
        )  # fmt: skip
    return found


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_outage_at_any_call_loses_and_repeats_nothing(
    storage: Path, tmp_path_factory: pytest.TempPathFactory, when: str
) -> None:
    """Slow, two minutes: MLflow goes away at each call that a sync makes, for good or for one."""
    spec = fake_spec(storage)
    records = [fake_record(0), fake_record(5)]
    run = write_fake_run(storage, records, pictures=False)
    with_checkpoint(run, fake_record(5))
    write_report(run)

    def tracker(folder: Path) -> MlflowTracker:
        target = folder / "mlflow.db"
        target.write_bytes((storage / "mlflow.db").read_bytes())
        return MlflowTracker(f"sqlite:///{target}", "dcdctl", folder / "artifacts")

    whole = tracker(tmp_path_factory.mktemp("whole"))
    with pytest.MonkeyPatch.context() as patch:
        counted = calls_until(patch, 10_000, when)
        whole.sync(run, spec, records)
        calls = counted()
    assert calls > 20
    wanted = whole_view(spec, whole.uri)
    for last in range(1, calls + 1):
        one = tracker(tmp_path_factory.mktemp("cut"))
        with pytest.MonkeyPatch.context() as patch:
            calls_until(patch, last, when)
            with pytest.raises(Cable):
                one.sync(run, spec, records)
        # Half of them go on in the same process, the others in a new one.
        again = one if last % 2 else MlflowTracker(one.uri, "dcdctl", one.artifact_root)
        again.sync(run, spec, records)
        found = whole_view(spec, again.uri)
        assert found.keys() == wanted.keys(), last
        for trial_id in wanted:
            assert found[trial_id] == wanted[trial_id], (last, trial_id)


def test_a_server_that_comes_back_is_noticed_without_anything_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_tracker, "AGAIN_S", (0.05, 0.1))
    failures = iter([OSError("down")] * 3)

    def act() -> None:
        for failure in failures:
            raise failure

    recorder = Recorder(act)
    background = BackgroundTracker(recorder, tmp_path, ExperimentSpec())
    background.submit(fake_records(1))
    end = time.monotonic() + 10
    while not recorder.seen and time.monotonic() < end:
        time.sleep(0.02)
    assert recorder.seen == [(2, True)]
    assert background.close(10)


def test_the_sweep_itself_is_not_written_again_for_each_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_tracker, "WHOLE_EVERY_S", 30.0)
    recorder = Recorder()
    background = BackgroundTracker(recorder, tmp_path, ExperimentSpec())
    for index in range(7):
        background.submit([fake_record(index)])
        time.sleep(0.03)
    assert background.close(10)
    assert recorder.seen[-1] == (7, True)
    assert sum(whole for _, whole in recorder.seen) == 2


def test_each_record_is_hashed_once_however_many_come_after_it(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    original = TrialRecord.results_hash

    def spy(record: TrialRecord) -> str:
        hashed.append(record.trial_id)
        return original(record)

    monkeypatch.setattr(TrialRecord, "results_hash", spy)
    records = fake_records()
    run = write_fake_run(storage, records, pictures=False)
    tracker = make_tracker(fake_spec(storage), storage)
    for last in range(1, len(records) + 1):
        tracker.sync(run, fake_spec(storage), records[:last], whole=last == len(records))
    assert len(hashed) == len(set(hashed)) == 7


def test_no_more_goes_in_one_call_than_mlflow_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    calls: list[int] = []

    def log_batch(run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        assert len(params) + len(tags) <= 200
        calls.append(len(metrics) + len(params) + len(tags))

    run = SimpleNamespace(
        info=SimpleNamespace(run_id="a", start_time=0), data=SimpleNamespace(params={"p0": "0"})
    )
    client: Any = SimpleNamespace(log_batch=log_batch)
    series = {f"m{i}": [(step, 1.0) for step in range(101)] for i in range(20)}
    log_batches(client, run, {f"p{i}": i for i in range(250)}, series, {"t": "x", "u": None})
    assert max(calls) <= 1000
    assert sum(calls) == 20 * 101 + 249 + 1


# --- dcdctl track -------------------------------------------------------------------------------


def test_track_says_what_is_missing_and_replay_fills_it_in(storage: Path) -> None:
    run = write_fake_run(storage)
    write_report(run)
    found = json.loads(command("track", str(run), "--json").stdout)
    assert found["runs"] == [{"run": run.name, "trials": 7, "missing": 7, "written": False}]
    result = command("track", str(run), "--replay")
    assert result.exit_code == 0, result.output
    assert "7 of 7 trials were not there, now written" in result.stdout
    shown = view(fake_spec(storage), f"sqlite:///{storage}/mlflow.db")
    assert len(shown) == 8
    assert shown[None].info.status == "FINISHED"
    again = command("track", "--storage", str(storage), "--all", "--replay")
    assert "all 7 trials were there" in again.stdout
    assert len(view(fake_spec(storage), f"sqlite:///{storage}/mlflow.db")) == 8


def test_replay_leaves_a_run_alone_that_a_sweep_is_writing(storage: Path) -> None:
    run = write_fake_run(storage, fake_records(1))
    with Store(str(storage)).locked():
        result = command("track", str(run), "--replay")
    assert result.exit_code == 6
    assert "is in use by process" in result.stderr


def test_a_server_that_is_away_is_named_without_its_password(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path, fake_records(1))
    uri = f"http://me:secret@127.0.0.1:{free_port()}"
    result = command("track", str(run), "--replay", "--uri", uri)
    assert result.exit_code == 6
    assert "does not take it" in result.stderr
    assert "the records are safe" in result.stderr
    assert "secret" not in result.output


@pytest.mark.slow
def test_a_thousand_runs_of_fifty_metrics_lock_nothing(
    storage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Slow, minutes: one writer, 1 000 trials, while somebody reads the database."""
    records = [fake_record(0)]
    for index in range(1, 1000):
        own = {"index": index, "trial_id": f"{index:012x}"}
        records.append(fake_record(1 + index % 3).model_copy(update=own))
    spec = ExperimentSpec(storage=str(storage), sweep=SweepSpec(goal=GOAL, trials=999))
    run = write_fake_run(storage, records[:1], spec=spec, pictures=False)
    tracker = make_tracker(spec, storage)
    background = BackgroundTracker(tracker, run, spec)
    reader = subprocess.Popen([sys.executable, "-c", _READER, tracker.uri])
    spent = []
    try:
        for record in records:
            write_fake_trial(run, record, pictures=False)
            started = time.monotonic()
            background.submit([record])
            spent.append(time.monotonic() - started)
        began = time.monotonic()
        assert background.close(3600)
        seconds = time.monotonic() - began
    finally:
        reader.kill()
        reader.wait()
    assert max(spent) < 1
    assert caplog.records == []
    shown = view(spec, tracker.uri)
    assert len(shown) == 1001
    assert all(len(one.data.metrics) >= 50 for key, one in shown.items() if key)
    # The same again finds all of it there.
    began = time.monotonic()
    make_tracker(spec, storage).sync(run, spec, records)
    again = time.monotonic() - began
    size = os.path.getsize(storage / "mlflow.db") / 2**20
    print(f"1 000 runs in {seconds:.0f} s, again in {again:.1f} s, {size:.0f} MiB")
    assert again < seconds / 4


_READER = """
import sys, time
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1])
while True:
    found = client.get_experiment_by_name("dcdctl")
    if found is not None:
        client.search_runs([found.experiment_id], max_results=100)
    time.sleep(0.2)
"""


@pytest.mark.slow
def test_a_server_killed_in_the_middle_and_started_again_has_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow, a minute: a real server over HTTP, killed between two trials, and back."""
    monkeypatch.setattr(background_tracker, "AGAIN_S", (0.5, 2.0))
    port = free_port()
    run = write_fake_run(tmp_path, [])
    spec = fake_spec(tmp_path).model_copy(
        update={"tracking": TrackingSpec(uri=f"http://127.0.0.1:{port}")}
    )
    background = BackgroundTracker(make_tracker(spec, tmp_path), run, spec)

    def give(*indices: int) -> None:
        for index in indices:
            write_fake_trial(run, fake_record(index))
            background.submit([fake_record(index)])

    give(0)  # before the server is there at all
    with mlflow_server(tmp_path, port) as server:
        give(1, 2)
        time.sleep(5)
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    give(3, 4, 5)
    with mlflow_server(tmp_path, port):
        give(6)
        write_report(run)
        background.submit(fake_records())
        assert background.close(120)
        shown = view(spec, f"http://127.0.0.1:{port}")
    assert len(shown) == 8
    assert shown[None].info.status == "FINISHED"
