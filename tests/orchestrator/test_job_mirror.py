"""What a job tells is what `status` and `logs` show, on a machine that knows nothing of it."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from clusters.handle import ClusterHandle
from orchestrator import cluster_follow, remote_status
from orchestrator.compare import comparing
from orchestrator.config import load_spec
from orchestrator.events import PREFIX, TO_STDOUT, EventLog
from orchestrator.find_run import JOB_NOTE
from orchestrator.job import shown_spec
from orchestrator.job_mirror import JobMirror, events_of
from orchestrator.job_request import SentJob, way_back
from orchestrator.progress import Display
from orchestrator.remote_status import WatchedJob
from orchestrator.run_status import StatusReader
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store, write_atomic
from tasks.errors import ClusterError
from tests.orchestrator.fake_run import write_fake_run

RUN = "3c4a659d6c0e"
Told = Callable[[], list[str]]


@pytest.fixture
def told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Told:
    """Return the lines of a job that ran the first trials of a sweep of people with names."""
    source = write_fake_run(tmp_path / "there")
    spec = StatusReader(source)
    assert spec.read().trials.done
    run = source.rename(source.with_name(RUN))
    monkeypatch.setenv(TO_STDOUT, "1")
    experiment = ExperimentSpec.model_validate_json((run / "spec.json").read_bytes())
    log = EventLog(run)
    log.write("job", job_id="dcdctl-1", command="sweep", runs=1)
    shown = shown_spec(experiment).model_dump(mode="json")
    log.write("run", run=RUN, number=0, of=1, spec=shown)
    log.write("start", slots=2, total=7, done=0)
    log.stage("private images", 10, 10, "", 1.25)
    log.write("warning", text="MLflow is away")
    for record in sorted(run.glob("trials/*")):
        log.record(record.name)
    return lambda: ["(raylet) noise", *capsys.readouterr().out.splitlines()]


class Cluster:
    """A job server with one job, which says what it is given to say."""

    def __init__(self, lines: list[str], state: str) -> None:
        self.lines, self.state = lines, state
        self.handle = type("Handle", (), {"name": "lab"})

    def status(self, job_id: str) -> tuple[str, str]:
        return self.state, "said at the end"

    def output(self, job_id: str) -> list[str]:
        return self.lines


def watched(lines: list[str], state: str, root: Path) -> WatchedJob:
    return WatchedJob(Cluster(lines, state), "dcdctl-1", root)  # type: ignore[arg-type]


def test_a_run_elsewhere_is_seen_as_it_is_there(told: Told, tmp_path: Path) -> None:
    lines = told()
    job = watched(lines, "RUNNING", tmp_path / "here")
    assert job.run is not None
    here = StatusReader(job.run, ask=job.asked).read()
    there = StatusReader(tmp_path / "there" / "runs" / RUN).read()
    assert here.trials.done == there.trials.done > 1
    assert here.best == there.best
    assert here.spend == there.spend
    assert here.state == "running"
    assert here.says == "running: job dcdctl-1 on lab"
    assert here.run == "job dcdctl-1 on lab"


@pytest.mark.parametrize(
    ("state", "more", "shown"),
    [
        ("STOPPED", "", "stopped: job dcdctl-1 on lab: it stopped (said at the end); go on with"),
        ("SUCCEEDED", "", "finished: job dcdctl-1 on lab; get the results with: dcdctl attach"),
        ("FAILED", "no space is left", "stopped: job dcdctl-1 on lab: no space is left"),
    ],
)
def test_the_end_of_a_job_is_told(
    state: str, more: str, shown: str, told: Told, tmp_path: Path
) -> None:
    lines = told()
    if more:
        lines.append(PREFIX + json.dumps({"event": "failed", "text": more, "code": 6}))
    job = watched(lines, state, tmp_path / "here")
    assert job.run is not None
    assert StatusReader(job.run, ask=job.asked).read().says.startswith(shown)


def test_logs_of_a_job_have_stages_warnings_and_trials(
    told: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = watched(told(), "RUNNING", tmp_path / "here")
    remote_status.show_logs(job, None, None)
    printed = capsys.readouterr().out
    assert "private images: 10 done" in printed
    assert "warning: MLflow is away" in printed
    assert "control" in printed


def test_no_name_and_no_path_is_in_what_a_job_tells() -> None:
    spec = load_spec(
        None,
        [
            "data={kind: folder, root: /home/erika-mustermann, private: [erika, hans], "
            "surrogates: [otto], public: 2}",
            "protect.targets=[erika]",
            "dcd.receivers=[hans]",
            "dcd.per_target={erika: {target_sigma: 0.1}}",
            "storage=/home/erika/s",
        ],
    )
    for one in (spec, comparing(spec, 0)):
        text = shown_spec(one).model_dump_json()
        assert not [name for name in ("erika", "hans", "otto") if name in text]
        assert ExperimentSpec.model_validate_json(text).sweep == one.sweep


def test_a_run_of_a_job_is_not_driven_from_here(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path)
    note = {"job_id": "dcdctl-1", "where": "lab", "ended": False}
    write_atomic(run / JOB_NOTE, json.dumps(note))
    assert StatusReader(run).read().says.startswith("running: job dcdctl-1 on lab, wrote last")
    write_atomic(run / JOB_NOTE, json.dumps(note | {"ended": True}))
    assert StatusReader(run).read().state in ("stopped", "finished")
    with Store(str(tmp_path)).locked():
        assert "process" not in StatusReader(run).read().says
        (run / JOB_NOTE).unlink()  # as a sweep does
        (run / "spec.json").touch()
        assert "process" in StatusReader(run).read().says


def test_results_of_real_people_do_not_go_through_logs() -> None:
    people = load_spec(
        None, ["data={kind: folder, root: /p, private: 4, surrogates: 2, public: 2}"]
    )
    assert way_back(load_spec(None, [])) == "output"
    assert way_back(people) == "stays"
    assert way_back(people.model_copy(update={"storage": "s3://bucket/x"})) == "storage"


@pytest.mark.parametrize("run", ["../../stolen", "/tmp/stolen", ""])
def test_a_runs_name_that_is_a_path_is_refused(run: str, tmp_path: Path) -> None:
    mirror = JobMirror(tmp_path / "a" / "b", "dcdctl-1", "lab")
    spec = shown_spec(load_spec(None, [])).model_dump(mode="json")
    with pytest.raises(ClusterError, match="no run's name"):
        mirror.take({"event": "run", "run": run, "number": 0, "spec": spec})
    assert list(tmp_path.rglob("spec.json")) == []


def test_files_arrive_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TO_STDOUT, "1")
    data = base64.b64encode(bytes(range(256)) * 200)
    write_atomic(tmp_path / "there" / "evaluation.json", data)
    write_atomic(tmp_path / "there" / "empty.json", b"")
    for name in ("evaluation.json", "empty.json", "missing.json"):
        EventLog().send(RUN, tmp_path / "there" / name, tmp_path / "there")
    mirror = JobMirror(tmp_path / "here", "dcdctl-1", "lab")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) < 20_000
    for event in events_of(lines):
        mirror.take(event)
    run = tmp_path / "here" / "runs" / RUN
    assert (run / "evaluation.json").read_bytes() == data
    assert (run / "empty.json").read_bytes() == b""
    assert sorted(p.name for p in run.iterdir()) == ["empty.json", "evaluation.json"]


def test_stages_and_warnings_are_shown_as_they_were_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TO_STDOUT, "1")
    there = Display(Console())
    there.stage("private images", 0, 10)
    time.sleep(0.3)
    there.stage("private images", 10, 10)
    there.warn("MLflow is [away]")
    there.events.write("done")
    lines = capsys.readouterr().out.splitlines()
    monkeypatch.delenv(TO_STDOUT)

    class Jobs:
        def __init__(self, handle: ClusterHandle) -> None:
            """Say all at once what was said over a while."""

        def follow(self, job_id: str) -> Iterator[str]:
            yield from lines

    monkeypatch.setattr(cluster_follow, "Jobs", Jobs)
    handle = ClusterHandle("lab", "http://127.0.0.1:9", None, "127.0.0.1")
    job = SentJob(job_id="j", command="train", specs=(load_spec(None, []),), where="lab")
    cluster_follow.follow(handle, job, tmp_path, Display(Console(width=100)))
    printed = capsys.readouterr().out
    found = re.search(r"private images +10 +([0-9.]+) s", printed)
    assert found is not None
    assert float(found[1]) >= 0.3
    assert "warning: MLflow is [away]" in printed


def test_a_warning_is_an_event(tmp_path: Path) -> None:
    import logging

    from orchestrator.events import warnings_to

    display = Display(Console(quiet=True))
    display.events = EventLog(tmp_path)
    with warnings_to(display.warn):
        logging.getLogger("orchestrator.somewhere").warning("%s is torn", "a manifest")
    logging.getLogger("orchestrator.somewhere").debug("after")
    (event,) = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    assert (event["event"], event["text"]) == ("warning", "a manifest is torn")
