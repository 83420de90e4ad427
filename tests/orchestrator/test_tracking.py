"""MLflow as a view: complete, repeatable, and never in the way."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from orchestrator.background_tracker import BackgroundTracker
from orchestrator.mlflow_runs import COMPLETE_TAG
from orchestrator.records import TrialRecord
from orchestrator.report import write_report
from orchestrator.spec import ExperimentSpec, TrackingSpec
from orchestrator.tracking import MlflowTracker, make_tracker, runs_page, ui_command
from tests.orchestrator.fake_run import (
    fake_record,
    fake_records,
    fake_spec,
    write_fake_run,
    write_fake_trial,
)
from tests.orchestrator.test_report import folder_spec

# Not ours to mend; MLflow and the packages below it warn of their own future.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables: making them takes seconds, copying them does not."""
    folder = tmp_path_factory.mktemp("mlflow")
    MlflowTracker(f"sqlite:///{folder}/mlflow.db", "other", folder).sync(
        write_fake_run(folder, [], pictures=False), ExperimentSpec(), []
    )
    return folder / "mlflow.db"


@pytest.fixture
def storage(tmp_path: Path, empty_database: Path) -> Path:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return tmp_path


def view(spec: ExperimentSpec, uri: str) -> dict[str | None, Any]:
    """All runs of the experiment by trial id, None for the parent; fails on a repeated one."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(spec.tracking.experiment)
    runs = client.search_runs([experiment.experiment_id], max_results=5000)
    found = {run.data.tags.get("dcdctl.trial"): run for run in runs}
    assert len(found) == len(runs)
    return found


def artifacts(run: Any, uri: str, path: str | None = None) -> set[str]:
    from mlflow import MlflowClient

    return {a.path for a in MlflowClient(tracking_uri=uri).list_artifacts(run.info.run_id, path)}


def test_a_run_is_shown_in_full(storage: Path) -> None:
    run = write_fake_run(storage)
    write_report(run)
    spec = fake_spec(storage)
    tracker = make_tracker(spec, storage)
    tracker.sync(run, spec, fake_records())

    shown = view(spec, tracker.uri)
    parent = shown.pop(None)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["dcdctl.run"] == run.name
    assert parent.data.tags["dcdctl.recommended"] == fake_record(5).trial_id
    assert parent.data.params["training.epochs"] == "20"
    assert parent.data.metrics["trials_failed"] == 1
    names = {"spec.json", "report.html", "report.png", "report.json", "figures", "note"}
    assert artifacts(parent, tracker.uri) == names
    assert (storage / "mlartifacts").is_dir()

    for record in fake_records():
        trial = shown.pop(record.trial_id)
        assert trial.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert trial.data.tags["dcdctl.defense"] == record.defense
        assert trial.data.params == {key: str(value) for key, value in record.settings.items()}
        assert trial.info.status == ("FAILED" if record.status == "failed" else "FINISHED")
        spent = (trial.info.end_time - trial.info.start_time) / 1000
        assert spent == pytest.approx(sum(record.cost_s.values()), abs=0.01)
        for attack in record.attacks:
            value = trial.data.metrics[f"{attack.name}/accuracy_at_1"]
            assert value == attack.accuracy_at_1.value
            assert trial.data.metrics[f"{attack.name}/accuracy_at_1_n"] == 64
    assert shown == {}


def test_losses_have_steps_and_pictures_are_kept(storage: Path) -> None:
    from mlflow import MlflowClient

    record = fake_record(2)
    run = write_fake_run(storage, [record])
    spec = ExperimentSpec(storage=str(storage))
    tracker = make_tracker(spec, storage)
    tracker.sync(run, spec, [record])
    trial = view(spec, tracker.uri)[record.trial_id]
    history = MlflowClient(tracking_uri=tracker.uri).get_metric_history(
        trial.info.run_id, "train_loss"
    )
    assert {point.step: point.value for point in history} == dict(enumerate(record.train_loss))
    curve = record.attacks[0].curve
    history = MlflowClient(tracking_uri=tracker.uri).get_metric_history(
        trial.info.run_id, "ppa/search"
    )
    assert {point.step: point.value for point in history} == dict(
        zip(curve.steps, curve.values, strict=True)
    )
    assert len(history) == 60
    assert artifacts(trial, tracker.uri) == {"recipe.parquet", "record.json", "reconstructions"}
    pictures = {f"reconstructions/{name}.png" for name in ("ppa", "mirror-w", "mirror-b")}
    assert artifacts(trial, tracker.uri, "reconstructions") == pictures


def test_a_second_sync_adds_only_what_is_missing(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    run = write_fake_run(storage, fake_records(2))
    spec = ExperimentSpec(storage=str(storage))
    tracker = make_tracker(spec, storage)
    tracker.sync(run, spec, fake_records(2))
    before = view(spec, tracker.uri)
    assert before[None].info.status == "RUNNING"  # no report yet

    batches: list[str] = []
    original = MlflowClient.log_batch

    def spy(client: Any, run_id: str, *args: Any, **options: Any) -> Any:
        batches.append(run_id)
        return original(client, run_id, *args, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", spy)
    tracker.sync(run, spec, fake_records(2))
    assert batches == []

    write_fake_trial(run, fake_record(3))
    tracker.sync(run, spec, fake_records(3))
    after = view(spec, tracker.uri)
    new = after[fake_record(3).trial_id]
    # More settings than one call may carry go in several, one run after the other.
    assert list(dict.fromkeys(batches)) == [new.info.run_id, after[None].info.run_id]
    assert {k: r.info.run_id for k, r in after.items() if r is not new} == {
        k: r.info.run_id for k, r in before.items()
    }


def test_an_incomplete_run_is_finished_without_repeating_its_losses(
    storage: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    record = fake_record(1)
    run = write_fake_run(storage, [record])
    spec = ExperimentSpec(storage=str(storage))
    tracker = make_tracker(spec, storage)
    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "log_artifacts", _break)
        with pytest.raises(ConnectionError):
            tracker.sync(run, spec, [record])
    half = view(spec, tracker.uri)[record.trial_id]
    assert half.info.status == "RUNNING"
    assert COMPLETE_TAG not in half.data.tags

    tracker.sync(run, spec, [record])
    whole = view(spec, tracker.uri)[record.trial_id]
    assert whole.info.run_id == half.info.run_id
    assert whole.info.status == "FINISHED"
    history = MlflowClient(tracking_uri=tracker.uri).get_metric_history(
        whole.info.run_id, "train_loss"
    )
    assert len(history) == len(record.train_loss)


def _break(*_: Any, **__: Any) -> None:
    raise ConnectionError("the cable was pulled")


def test_a_failed_trial_that_succeeds_on_resume_is_corrected(storage: Path) -> None:
    good = fake_record(3)
    failed = good.model_copy(
        update={"status": "failed", "error": "no", "attacks": (), "clean_accuracy": None}
    )
    run = write_fake_run(storage, [failed])
    spec = ExperimentSpec(storage=str(storage))
    tracker = make_tracker(spec, storage)
    for record, status in ((failed, "FAILED"), (good, "FINISHED")):
        write_fake_trial(run, record)
        tracker.sync(run, spec, [record])
        assert view(spec, tracker.uri)[good.trial_id].info.status == status


def test_names_and_pictures_of_real_people_never_reach_mlflow(storage: Path) -> None:
    spec = folder_spec(storage)
    run = write_fake_run(storage, fake_records(1), spec=spec)
    write_report(run, show_people=True)
    tracker = make_tracker(spec, storage)
    tracker.sync(run, spec, fake_records(1))
    shown = view(spec, tracker.uri)
    assert artifacts(shown[None], tracker.uri) == {"spec.json", "report.json", "figures", "note"}
    assert "figures/frontier.png" in artifacts(shown[None], tracker.uri, "figures")
    assert "figures/grid.png" not in artifacts(shown[None], tracker.uri, "figures")
    assert artifacts(shown[fake_record(1).trial_id], tracker.uri) == {
        "recipe.parquet",
        "record.json",
    }
    files = [p for p in (storage / "mlartifacts").rglob("*") if p.is_file()]
    for path in [*files, storage / "mlflow.db"]:
        content = path.read_bytes()
        for secret in (b"Ann Smith", b"Cy Young", b"Di Hill", b"/home/ann"):
            assert secret not in content


def test_a_server_that_is_down_stops_nothing_and_loses_nothing(
    storage: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = write_fake_run(storage, fake_records(2))
    spec = ExperimentSpec(storage=str(storage))
    away = MlflowTracker(f"http://user:secret@127.0.0.1:{free_port()}", "dcdctl", None)
    background = BackgroundTracker(away, run, spec)
    started = time.monotonic()
    for last in range(3):
        background.submit(fake_records(2)[: last + 1])
    assert time.monotonic() - started < 0.2
    assert not background.close(deadline_s=30)
    assert time.monotonic() - started < 20
    (warning,) = [r for r in caplog.records if r.name == "orchestrator.background_tracker"]
    assert "nothing is lost" in warning.getMessage()
    assert "secret" not in warning.getMessage()

    tracker = make_tracker(spec, storage)
    tracker.sync(run, spec, fake_records(2))
    assert len(view(spec, tracker.uri)) == 4


class Recorder:
    """A tracker that notes what it is given, and can be told to hang or to break."""

    page = ""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self.act = act
        self.seen: list[tuple[int, bool]] = []

    def sync(
        self,
        run_dir: Path,
        spec: ExperimentSpec,
        records: Sequence[TrialRecord],
        *,
        whole: bool = True,
    ) -> None:
        self.act()
        self.seen.append((len(records), whole))


def test_only_the_newest_records_wait(tmp_path: Path) -> None:
    begun, go = threading.Event(), threading.Event()

    def act() -> None:
        begun.set()
        go.wait(10)

    recorder = Recorder(act)
    background = BackgroundTracker(recorder, tmp_path, ExperimentSpec())
    background.submit(fake_records(0))
    assert begun.wait(10)
    for trials in range(1, 6):
        background.submit(fake_records(trials))
    go.set()
    assert background.close(10)
    assert recorder.seen[0] == (1, True)
    assert recorder.seen[-1] == (6, True)
    assert all(count == 6 for count, _ in recorder.seen[1:])


def test_a_tracker_that_hangs_is_left_behind_at_the_deadline(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    background = BackgroundTracker(Recorder(lambda: release.wait(30)), tmp_path, ExperimentSpec())
    background.submit(fake_records(0))
    assert not background.close(deadline_s=0.2)
    assert "still not done after 0.2 s" in caplog.text
    release.set()


def test_a_tracker_that_recovers_delivers_and_warns_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failures = iter([OSError("first"), OSError("second")])
    tried = threading.Semaphore(0)

    def act() -> None:
        tried.release()
        for failure in failures:
            raise failure

    recorder = Recorder(act)
    background = BackgroundTracker(recorder, tmp_path, ExperimentSpec())
    for trials in range(3):
        background.submit(fake_records(trials))
        assert tried.acquire(timeout=10)
    assert background.close(10)
    assert recorder.seen == [(3, True)]
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "(first)" in caplog.text


def test_closing_without_records_is_complete(tmp_path: Path) -> None:
    assert BackgroundTracker(Recorder(), tmp_path, ExperimentSpec()).close(10)


def test_the_command_shows_the_database_of_the_storage(tmp_path: Path) -> None:
    page = runs_page("1")
    command = ui_command(ExperimentSpec(storage=str(tmp_path)), page)
    assert command.endswith(
        f"mlflow ui --workers 1 --backend-store-uri sqlite:///{tmp_path}/mlflow.db  # then open "
        "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning"
    )
    spaced = ui_command(ExperimentSpec(storage=str(tmp_path / "my runs")), page)
    assert f"'sqlite:///{tmp_path}/my runs/mlflow.db'  # then" in spaced


def test_the_command_for_a_server_opens_its_page_without_the_password() -> None:
    tracking = TrackingSpec(uri="https://me:secret@mlflow.example:5000")
    command = ui_command(ExperimentSpec(tracking=tracking), runs_page(None))
    address = "https://mlflow.example:5000/#/experiments?workflowType=machine_learning"
    assert command == f"python -m webbrowser '{address}'"


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a real tracking server on the loopback address; its database stays in the folder."""
    with open(folder / "server.log", "a") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"),
                *("--port", str(port), "--workers", "1"),
                *("--backend-store-uri", f"sqlite:///{folder}/server.db"),
                *("--artifacts-destination", str(folder / "served")),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ
            | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
            start_new_session=True,
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", 180)
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a tracking server."""
    port = free_port()
    with mlflow_server(tmp_path, port):
        yield f"http://127.0.0.1:{port}"


@pytest.mark.slow
def test_a_tracking_server_shows_the_same(server: str, tmp_path: Path) -> None:
    """Slow, half a minute: the only test of MLflow's HTTP way, with its artefacts."""
    run = write_fake_run(tmp_path)
    write_report(run)
    spec = ExperimentSpec(storage=str(tmp_path), tracking=TrackingSpec(uri=server))
    background = BackgroundTracker(make_tracker(spec, tmp_path), run, spec)
    background.submit(fake_records())
    assert background.close(deadline_s=60)
    shown = view(spec, server)
    assert len(shown) == 8
    assert shown[None].info.status == "FINISHED"
    assert "report.html" in artifacts(shown[None], server)
    assert (tmp_path / "served").is_dir()
    assert not (tmp_path / "mlflow.db").exists()


def _wait_for(url: str, deadline_s: float) -> None:
    end = time.monotonic() + deadline_s
    while True:
        try:
            with urlopen(url, timeout=2) as answer:
                assert answer.status == 200
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.3)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
