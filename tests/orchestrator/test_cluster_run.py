"""`--cluster` on a real cluster of one node with a token; and what travels there, and back."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clusters.handle import ClusterHandle
from clusters.jobs import Jobs
from orchestrator.cluster_run import new_job_id, submit
from orchestrator.config import load_spec
from orchestrator.events import PREFIX
from orchestrator.job_mirror import events_of, keep
from orchestrator.job_request import JobRequest, SentJob
from orchestrator.shipping import REQUEST, ROOMS, START, pack_code, pack_request
from orchestrator.store import records_of
from tasks.errors import ClusterError
from tests.clusters.local_cluster import LocalCluster, can_start, local_cluster
from tests.orchestrator.bucket import KEYS, object_server


def test_what_is_sent_is_the_code_and_the_experiment(tmp_path: Path) -> None:
    modules = pack_code(tmp_path / "code")
    assert [module.name for module in modules] == list(ROOMS)
    assert sorted((tmp_path / "code").iterdir()) == sorted(modules)
    request = JobRequest(job_id="j", command="sweep", specs=(load_spec(None, []),))
    pack_request(tmp_path / "job", request)
    assert sorted(p.name for p in (tmp_path / "job").iterdir()) == [REQUEST, START]
    names = [p.name for p in tmp_path.rglob("*")]
    assert not [n for n in names if n.startswith((".", "test_")) or n == "__pycache__"]
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) < 10e6


def test_events_are_found_between_what_others_print() -> None:
    event = {"event": "line", "text": "hello"}
    lines = ["(raylet) noise", PREFIX + json.dumps(event), PREFIX + '{"torn', "more"]
    assert list(events_of(iter(lines))) == [event]


def test_a_job_writes_nowhere_but_into_its_run(tmp_path: Path) -> None:
    data = base64.b64encode(b"x").decode()
    keep(tmp_path / "run", "trials/a/record.json", data)
    assert (tmp_path / "run/trials/a/record.json").read_bytes() == b"x"
    for path in ("../stolen", "/etc/stolen", "a/../../stolen"):
        with pytest.raises(ClusterError, match="outside its run"):
            keep(tmp_path / "run", path, data)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Return a cluster whose nodes, as this machine, reach a bucket `results`."""
    if not can_start():
        pytest.skip("needs root and unshare, for a PID namespace")
    with object_server() as url, pytest.MonkeyPatch.context() as patch:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": url}).items():
            patch.setenv(name, value)
        with local_cluster() as found:
            yield found


def dcdctl(*words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("dcdctl")), *words]


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"COLUMNS": "200"}
    return subprocess.run(
        dcdctl(*words), cwd=cwd, env=env, capture_output=True, text=True, timeout=600
    )


def settings(storage: Path, seed: int) -> list[str]:
    return ["--smoke", "--seed", str(seed), "--storage", str(storage)] + [
        "--set=adaptive_attacks=[]",
        "--set=tracking.enabled=false",
    ]


@pytest.mark.slow
def test_a_sweep_on_a_cluster_is_the_sweep_here(cluster: LocalCluster, tmp_path: Path) -> None:
    file = cluster.file(tmp_path)
    here, there = tmp_path / "here", tmp_path / "there"
    assert run("sweep", *settings(here, 0), cwd=tmp_path).returncode == 0
    ended = run("sweep", *settings(there, 0), "--cluster", str(file), "--json", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    outcome = json.loads(ended.stdout)
    assert Path(outcome["report"]).is_file()
    assert len(outcome["records"]) == 3
    assert outcome["seconds"] > 0
    hashes = []
    for storage in (here, there):
        (folder,) = (storage / "runs").iterdir()
        assert (folder / "report.html").is_file()
        hashes.append([record.results_hash() for record in records_of(folder)])
    assert len(hashes[0]) == 3
    assert hashes[0] == hashes[1]
    token = cluster.token_file.read_text()
    assert token not in ended.stdout + ended.stderr


@pytest.mark.slow
def test_ctrl_c_leaves_the_job_and_attach_comes_back(cluster: LocalCluster, tmp_path: Path) -> None:
    file, storage = cluster.file(tmp_path), tmp_path / "storage"
    words = dcdctl("sweep", *settings(storage, 1), "--cluster", str(file))
    started = subprocess.Popen(
        words,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has its children ignore Ctrl-C.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert started.stdout is not None
    line = started.stdout.readline()
    while "private images" not in line:
        line = started.stdout.readline()
        assert line, "it ended before it began"
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=60)
    assert started.returncode == 130
    assert "the job goes on without you" in said
    (job,) = (path.stem for path in (storage / "jobs").iterdir())
    look = json.loads(run("status", job, "--storage", str(storage), "--json", cwd=tmp_path).stdout)
    assert look["state"] == "running"
    assert f"job {job} on" in look["says"]
    assert look["trials"]["total"] == 3
    # Another machine knows the cluster and no storage.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    logs = run("logs", job, "--cluster", str(file), "--follow", cwd=elsewhere)
    assert logs.returncode == 0, logs.stderr
    assert "trial 2 begins" in logs.stdout
    assert "the sweep ends" in logs.stdout
    newest = run("status", "--cluster", str(file), "--json", cwd=elsewhere)
    look = json.loads(newest.stdout)
    assert (look["state"], look["trials"]["done"]) == ("finished", 3)
    assert look["best"]["clean_accuracy"]["n"] > 0
    assert list(elsewhere.iterdir()) == []
    words = ["attach", job, "--cluster", str(file), "--json"]
    there = json.loads(run(*words, cwd=elsewhere).stdout)
    assert Path(there["report"]).is_file()
    ended = run("attach", job, "--storage", str(storage), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert len(list(storage.glob("runs/*/trials/*/record.json"))) == 3
    (folder,) = storage.glob("runs/*")
    hashes = [record.results_hash() for record in records_of(folder)]
    elsewhere_run = Path(there["run_dir"])
    assert [record.results_hash() for record in records_of(elsewhere_run)] == hashes
    look = json.loads(run("status", "--storage", str(storage), "--json", cwd=tmp_path).stdout)
    assert look["state"] == "finished"


@pytest.mark.slow
def test_a_comparison_that_was_left_alone_gets_its_table(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    file, storage = cluster.file(tmp_path), tmp_path / "storage"
    rows = "--set=sweep.rows=[{dcd: true}]"
    words = [*settings(storage, 0)[3:], rows, "--smoke", "--seeds", "3", "--cluster", str(file)]
    sent = run("compare", *words, "--detach", "--json", cwd=tmp_path)
    assert sent.returncode == 0, sent.stderr
    job = json.loads(sent.stdout)["job_id"]
    ended = run("attach", job, "--storage", str(storage), "--json", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    table = Path(json.loads(ended.stdout)["table"])
    assert "dcd" in table.read_text()
    assert table.with_name("table.json").is_file()


@pytest.mark.slow
def test_code_that_the_cluster_has_is_not_sent_again(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.job_submission import JobSubmissionClient

    handle = ClusterHandle("lab", cluster.address, cluster.token_file, "127.0.0.1")
    sizes: list[int] = []
    ask = JobSubmissionClient._do_request

    def counted(self: Any, method: str, *words: Any, data: Any = None, **named: Any) -> Any:
        if method == "PUT":
            sizes.append(len(data))
        return ask(self, method, *words, data=data, **named)

    monkeypatch.setattr(JobSubmissionClient, "_do_request", counted)
    for seed in (7, 8):
        spec = load_spec(None, [f"seed={seed}", f"storage={tmp_path}/s"])
        job = SentJob(job_id=new_job_id(), command="sweep", specs=(spec,), where="lab")
        sizes.clear()
        submit(handle, job, tmp_path / "s")
        Jobs(handle).stop(job.job_id)
    # The request alone goes twice; whether the code went before depends on the other tests.
    assert len(sizes) == 1
    assert sizes[0] < 20_000


@pytest.mark.slow
def test_a_job_is_stopped_and_resumed(cluster: LocalCluster, tmp_path: Path) -> None:
    file, storage = cluster.file(tmp_path), tmp_path / "storage"
    more = [*settings(storage, 2), "--cluster", str(file)]
    assert run("sweep", *more, "--detach", cwd=tmp_path).returncode == 0
    (job,) = (path.stem for path in (storage / "jobs").iterdir())
    time.sleep(8)
    # Also from where no storage knows the job, and once more for one that has ended.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for more_words in (["--cluster", str(file)], ["--storage", str(storage)]):
        assert run("cancel", job, *more_words, cwd=elsewhere).returncode == 0
    ended = run("sweep", *more, "--resume", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert len(list(storage.glob("runs/*/trials/*/record.json"))) == 3


@pytest.mark.slow
def test_a_cluster_that_does_not_let_one_in(cluster: LocalCluster, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 32)
    file = LocalCluster(cluster.address, wrong).file(tmp_path)
    refused = run("sweep", *settings(tmp_path, 0), "--cluster", str(file), cwd=tmp_path)
    assert refused.returncode == 7
    assert "refuses the token" in refused.stderr
    file = LocalCluster(cluster.address, tmp_path / "none").file(tmp_path)
    refused = run("sweep", *settings(tmp_path, 0), "--cluster", str(file), cwd=tmp_path)
    assert refused.returncode == 7
    assert "asks for a token" in refused.stderr


def small(storage: Path) -> list[str]:
    return [f"--storage={storage}"] + [
        f"--set={one}"
        for one in (
            "data.identities=6",
            "data.surrogate_identities=6",
            "data.train_images=8",
            "data.test_images=4",
            "data.surrogate_images=8",
            "data.public_identities=20",
            "data.public_images=4",
            "protect.targets=2",
            "training.width=8",
            "training.epochs=2",
            "evaluation.width=8",
            "evaluation.epochs=2",
            "evaluation.second.enabled=false",
            "prior.steps=20",
            "attacks=[{name: ppa, pool: 100, candidates: 4, steps: 3, keep: 2}]",
        )
    ]


@pytest.mark.slow
def test_train_and_attack_on_a_cluster_are_those_here(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    there = ["--cluster", str(cluster.file(tmp_path))]
    found = {}
    for where, more in (("here", []), ("there", there)):
        own = small(tmp_path / where)
        trained = run("train", "--out", where, "--json", *own, *more, cwd=tmp_path)
        assert trained.returncode == 0, trained.stderr
        attacked = run("attack", "-c", where, "--json", *own, *more, cwd=tmp_path)
        assert attacked.returncode == 0, attacked.stderr
        outcomes = [json.loads(one.stdout) for one in (trained, attacked)]
        assert [one["checkpoint"] for one in outcomes] == [where, where]
        outcomes[0].pop("seconds")
        for one in outcomes:
            one.pop("checkpoint")
        for record in outcomes[1]["attacks"]:
            record.pop("seconds", None)
        weights = (tmp_path / where / "meta.json").read_text()
        found[where] = (outcomes, json.loads(weights)["weights_sha256"])
    assert found["here"] == found["there"]


def photos(root: Path) -> str:
    """Write photos of ten people with names, and return the setting that names them."""
    rng = np.random.default_rng(0)
    for person in range(10):
        folder = root / f"erika-mustermann-{person}"
        folder.mkdir(parents=True)
        base = rng.integers(0, 256, (32, 32, 3))
        for number in range(8):
            pixels = (base + rng.integers(0, 60, (32, 32, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    shares = "private: 4, surrogates: 2, public: 4"
    return f"--set=data={{kind: folder, root: {root}, {shares}, image_size: 32}}"


@pytest.mark.slow
def test_nothing_of_real_people_comes_through_the_logs(
    cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    more = ["--cluster", str(cluster.file(tmp_path)), "--defense", "none", photos(tmp_path / "p")]
    own = [word for word in small(tmp_path / "s") if "data." not in word]
    stayed = run("train", "--out", "stays", "--json", *own, *more, cwd=tmp_path)
    assert stayed.returncode == 0, stayed.stderr
    assert "the result stays on its head" in stayed.stderr
    assert not (tmp_path / "stays").exists()
    kept = Path(json.loads(stayed.stdout)["checkpoint"])
    assert (kept / "model.safetensors").is_file()
    own[0] = "--storage=s3://results/people"
    came = run("train", "--out", "here", "--json", *own, *more, cwd=tmp_path)
    assert came.returncode == 0, came.stderr
    assert json.loads(came.stdout)["checkpoint"] == "here"
    assert (tmp_path / "here" / "meta.json").read_text() == (kept / "meta.json").read_text()
    jobs = Jobs(ClusterHandle("lab", cluster.address, cluster.token_file, "127.0.0.1"))
    for name in jobs.names()[-2:]:
        text = "\n".join(jobs.output(name))
        assert "outcome.json" in text
        assert "safetensors" not in text
        assert "mustermann" not in text


@pytest.mark.slow
def test_augment_on_a_cluster_is_that_here(cluster: LocalCluster, tmp_path: Path) -> None:
    more = ["--cluster", str(cluster.file(tmp_path))]
    for where in ("here", "there"):
        own = small(tmp_path / f"{where}-storage")
        made = run("augment", "--out", where, *own, *(more * (where == "there")), cwd=tmp_path)
        assert made.returncode == 0, made.stderr
        checked = run("plan", "--check", where, cwd=tmp_path)
        assert checked.returncode == 0, checked.stderr + checked.stdout
    names = [
        sorted(p.relative_to(tmp_path / one) for p in (tmp_path / one).rglob("*") if p.is_file())
        for one in ("here", "there")
    ]
    assert names[0] == names[1]
    again = run("augment", "--out", "there", *small(tmp_path / "s"), *more, cwd=tmp_path)
    assert again.returncode == 6
    assert "there is there already" in again.stderr
