"""What `--cluster` refuses before anything runs, and what it does when a job failed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from clusters.handle import ClusterHandle
from orchestrator import cluster_follow, cluster_run
from orchestrator.cli import app
from orchestrator.cluster_follow import JobFailedError, follow
from orchestrator.cluster_options import There
from orchestrator.cluster_run import check_data
from orchestrator.config import load_spec
from orchestrator.events import PREFIX
from orchestrator.job_mirror import JobMirror
from orchestrator.job_request import JobRequest, SentJob
from orchestrator.jobs_cli import run_there
from orchestrator.progress import Display
from orchestrator.shipping import REQUEST, pack_request
from orchestrator.spec import ExperimentSpec
from tasks.errors import ClusterError, SpecError

RUN = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})
HANDLE = ClusterHandle("lab", "http://127.0.0.1:9", None, "127.0.0.1")
ONPREM = """
cluster_name: lab
provider: {type: local, head_ip: 127.0.0.1, worker_ips: []}
auth: {ssh_user: ray}
"""


def photos(root: str) -> ExperimentSpec:
    shares = "private: 4, surrogates: 2, public: 2"
    return load_spec(None, [f"data={{kind: folder, root: {root!r}, {shares}}}"])


def sent() -> SentJob:
    return SentJob(job_id="j", where="w", command="sweep", specs=(load_spec(None, []),))


@pytest.mark.parametrize("run", ["../../stolen", "/tmp/stolen", "..", "a" * 12 + "/../b"])
def test_a_runs_name_that_is_a_path_is_refused(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = base64.b64encode(b"x").decode()
    event = {"event": "file", "run": run, "path": "key", "data": data, "last": True}

    class Dishonest:
        def __init__(self, handle: ClusterHandle) -> None:
            """Answer in the place of a cluster."""

        def follow(self, job_id: str) -> Iterator[str]:
            yield PREFIX + json.dumps(event)

    monkeypatch.setattr(cluster_follow, "Jobs", Dishonest)
    storage = tmp_path / "a" / "b" / "storage"
    with pytest.raises(ClusterError, match="no run's name"):
        follow(HANDLE, sent(), storage, Display(Console(quiet=True)))
    assert list(tmp_path.rglob("key")) == []


def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[str]:
    """Run a job that fails on a cluster that is only a name; return what was taken down."""
    down: list[str] = []

    @contextmanager
    def opened(where: str, **_: Any) -> Iterator[ClusterHandle]:
        yield HANDLE

    monkeypatch.setattr("clusters.lifecycle.open_cluster", opened)
    monkeypatch.setattr("clusters.lifecycle.bring_down", lambda where, **_: down.append(where))
    monkeypatch.setattr(cluster_run, "submit", lambda *_: None)
    lost = JobMirror(tmp_path, "j", "lab")
    lost.take({"event": "failed", "text": "1 of 3 trials failed", "code": 8})
    monkeypatch.setattr(cluster_follow, "follow", lambda *_, **__: lost)
    file = tmp_path / "lab.yaml"
    file.write_text(ONPREM)
    spec = load_spec(None, [f"storage={tmp_path}/storage"])
    with pytest.raises(JobFailedError, match="1 of 3") as caught:
        run_there(There(str(file), **({"down": True} | options)), "sweep", [spec], as_json=True)
    assert caught.value.exit_code == 8
    return down


def test_a_failed_job_does_not_keep_the_cluster_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert there(tmp_path, monkeypatch) == [str(tmp_path / "lab.yaml")]


@pytest.mark.parametrize("down", [True, False])
def test_a_job_that_is_not_taken_does_not_keep_the_cluster_up(
    down: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ClusterError("the cluster does not take the job")

    ended: list[str] = []
    monkeypatch.setattr("clusters.lifecycle.open_cluster", lambda *_, **__: nullcontext(HANDLE))
    monkeypatch.setattr("clusters.lifecycle.bring_down", lambda where, **_: ended.append(where))
    monkeypatch.setattr(cluster_run, "submit", refuse)
    file = tmp_path / "lab.yaml"
    file.write_text(ONPREM)
    spec = load_spec(None, [f"storage={tmp_path}/storage"])
    with pytest.raises(ClusterError, match="does not take"):
        run_there(There(str(file), down=down), "sweep", [spec], as_json=True)
    assert ended == [str(file)] * down


def test_a_cluster_stays_up_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert there(tmp_path, monkeypatch, down=False) == []


@pytest.mark.parametrize(
    ("where", "detach", "said"),
    [("lab.yaml", True, "--detach does not"), ("http://127.0.0.1:9", False, "stands without")],
)
def test_down_is_refused_where_it_cannot_be_done(where: str, detach: bool, said: str) -> None:
    with pytest.raises(typer.BadParameter, match=said):
        run_there(There(where, detach, down=True), "sweep", [load_spec(None, [])], as_json=True)


@pytest.mark.parametrize(
    "command", [["sweep"], ["compare"], ["augment", "-o", "x"], ["train", "-o", "x"]]
)
@pytest.mark.parametrize("option", ["--detach", "--down", "--insecure-cluster"])
def test_options_of_a_cluster_need_one(command: list[str], option: str) -> None:
    found = RUN.invoke(app, [*command, option])
    assert found.exit_code == 2
    assert f"{option} goes with --cluster" in found.output


def test_photos_have_to_be_where_the_nodes_see_them() -> None:
    assert check_data([load_spec(None, [])]) is None
    assert check_data([photos("s3://bucket/faces")]) is None
    said = check_data([photos("/home/erika-mustermann/photos")])
    assert said is not None
    assert "nodes see the same, or an s3:// URI" in said
    assert "mustermann" not in said
    with pytest.raises(SpecError, match=r"data\.root is relative"):
        check_data([photos("erika-mustermann")])


@pytest.mark.parametrize(
    ("setting", "more"),
    [
        ("prior.source={}", []),
        ("protect.surrogate_list={}", ["protect.surrogates=listed"]),
        ("evaluation.embedding.path={}", []),
        ("training.defense.weights={}", ["training.defense.name=transfer"]),
    ],
)
def test_named_files_have_to_be_where_the_nodes_see_them(setting: str, more: list[str]) -> None:
    name = setting.partition("=")[0].replace(".", r"\.")
    with pytest.raises(SpecError, match=f"{name} is relative to a folder of this machine"):
        check_data([load_spec(None, [*more, setting.format("mine/file")])])
    said = check_data([load_spec(None, [*more, setting.format("/mine/file")])])
    assert said is not None
    assert said.startswith(setting.partition("=")[0])
    assert "s3://" not in said


def test_failed_trials_that_are_to_run_again_are_told_of_there(tmp_path: Path) -> None:
    request = JobRequest(
        job_id="j",
        command="sweep",
        specs=(load_spec(None, []),),
        mode="resume",
        retry_failed=True,
    )
    pack_request(tmp_path, request)
    assert json.loads((tmp_path / REQUEST).read_text())["retry_failed"] is True
