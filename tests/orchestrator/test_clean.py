"""`dcdctl clean`: what is old and needed by nothing goes, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestrator.clean import DAY, clean, parse_age
from orchestrator.clean_machine import old_copies, old_scratch
from orchestrator.cli import app
from orchestrator.forgotten import require_whole
from orchestrator.store import Store, records_of
from tasks.errors import ForgottenError, SpecError, StorageLockedError, StoreError
from tests.orchestrator.bucket import KEYS, object_server
from tests.orchestrator.people_storage import write_people


def command(*args: str) -> Result:
    runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})
    return runner.invoke(app, args, prog_name="dcdctl")


def make_old(place: Path, days: float) -> None:
    then = time.time() - days * DAY
    for path in [place, *place.rglob("*")]:
        os.utime(path, (then, then))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "store"
    write_people(root)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storage whose artefacts are old, and whose run is not."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    shutil.copytree(made, tmp_path / "store")
    for part in ("artifacts", "jobs", "comparisons", "audits"):
        make_old(tmp_path / "store" / part, 50)
    return tmp_path / "store"


def run_of(root: Path) -> Path:
    return next(path.parent for path in root.glob("runs/*/spec.json"))


def gone(root: Path, **options: bool) -> set[str]:
    found = clean(str(root), 30 * DAY, **options)
    return {thing.name for thing in found.removed if thing.name.split("/")[0] != ""}


def test_artefacts_that_a_kept_run_needs_stay(root: Path) -> None:
    before = sorted(root.rglob("*"))
    found = clean(str(root), 30 * DAY)
    assert sorted(root.rglob("*")) == before
    names = {thing.name for thing in found.removed if thing.kind in ("artefact", "run")}
    assert names == {"artifacts/evaluator/2", "artifacts/listing/1"}
    assert {thing.kept for thing in found.kept} == {f"run {run_of(root).name} needs it"}
    assert {"jobs/dcdctl-1.json", "comparisons/1", "audits/1"} <= gone(root)
    done = clean(str(root), 30 * DAY, yes=True)
    assert done.done
    assert sorted(p.name for p in (root / "artifacts").glob("*/*")) == sorted(
        ["1", "1", "lent-1", "private-1", "public-1"]
    )
    assert not (root / "jobs").exists()
    assert len(records_of(run_of(root))) == 7
    left = {thing.kind for thing in clean(str(root), 30 * DAY).removed}
    assert left <= {"scratch folder", "copy of a storage"}


def test_all_takes_them_too(root: Path) -> None:
    assert {n for n in gone(root, everything=True) if n.startswith("artifacts/images")} == {
        f"artifacts/images/{name}-1" for name in ("private", "lent", "public")
    }


def test_an_old_run_goes_with_what_it_alone_needed(root: Path) -> None:
    make_old(root / "runs", 40)
    clean(str(root), 30 * DAY, yes=True)
    assert not (root / "runs").exists()
    assert not (root / "artifacts").exists()
    assert (root / "pseudonyms.key").is_file()


def test_records_may_stay_without_weights(root: Path) -> None:
    make_old(root / "runs", 40)
    run = run_of(root)
    clean(str(root), 30 * DAY, keep_records=True, yes=True)
    assert len(records_of(run)) == 7
    assert (run / "report.html").is_file()
    assert not [*run.glob("trials/*/checkpoint"), *run.rglob("*.npz"), *run.rglob("*.parquet")]
    with pytest.raises(ForgottenError, match="removed by `dcdctl clean` on .* start it over"):
        require_whole(run)
    said = command("status", run.name, "--storage", str(root))
    assert "removed by `dcdctl clean`" in " ".join(said.stdout.split())
    assert (root / "artifacts" / "images" / "private-1").is_dir()


def test_a_run_that_goes_on_is_never_touched(root: Path) -> None:
    make_old(root / "runs", 40)
    with Store(str(root)).locked():
        now = time.time()
        os.utime(run_of(root) / "spec.json", (now, now))
        found = clean(str(root), 1e-9, now=now + 60)
        assert [t.kept for t in found.kept if t.kind == "run"] == ["it is running"]
        assert not [t for t in found.removed if t.name.startswith("runs/")]
    other = (
        f"import time\nfrom orchestrator.store import Store\nwith Store({str(root)!r}).locked():"
    )
    code = f"{other}\n print('in', flush=True)\n time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(StorageLockedError, match="is in use by process"):
            clean(str(root), 30 * DAY, yes=True)
    finally:
        holder.kill()
        holder.communicate()


def test_unfinished_trials_and_partial_files(root: Path) -> None:
    run = run_of(root)
    left = run / "trials" / "feedc0ffee00"
    left.mkdir()
    (left / "recipe.parquet").write_bytes(b"x" * 1000)
    (root / "artifacts" / ".images.npy.123.partial").write_bytes(b"y" * 500)
    make_old(left, 31)
    make_old(root / "artifacts" / ".images.npy.123.partial", 31)
    found = {thing.kind: thing for thing in clean(str(root), 30 * DAY).removed}
    assert found["unfinished trial"].name == f"runs/{run.name}/trials/feedc0ffee00"
    assert found["unfinished trial"].bytes == 1000
    assert found["partial file"].bytes == 500


def test_scratch_folders_go_unless_a_process_works_in_them(root: Path, tmp_path: Path) -> None:
    idle, used = tmp_path / "dcd-idle", tmp_path / "dcd-used"
    for folder in (idle, used, tmp_path / "other"):
        folder.mkdir()
        (folder / "file").write_bytes(b"z")
        make_old(folder, 60)
    code = "import sys; sys.stdin.read()"
    worker = subprocess.Popen([sys.executable, "-c", code], cwd=used, stdin=subprocess.PIPE)
    try:
        assert old_scratch(time.time() - 30 * DAY, tmp_path) == [idle]
    finally:
        worker.communicate(b"")


def test_copies_of_buckets_and_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with object_server() as server:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": server}).items():
            monkeypatch.setenv(name, value)
        store = Store("s3://results/old")
        assert store.remote is not None
        run = write_people(store.root)
        store.remote.push(store.root)
        for path in run.rglob("*"):
            os.utime(path, (0, 0))
        clean("s3://results/old", DAY, now=time.time() + 40 * DAY, yes=True)
        left = store.remote.objects(store.root)
        assert not [name for name in left if name.startswith(("runs/", "artifacts/", "jobs/"))]
        assert "pseudonyms.key" in left
        make_old(store.root, 60)
        assert old_copies(time.time() - 30 * DAY) == [store.root]
        with store.locked():
            make_old(store.root, 60)
            assert old_copies(time.time() - 30 * DAY) == []


def test_what_is_said(root: Path) -> None:
    text = command("clean", "--older-than", "30d", "--storage", str(root))
    assert text.exit_code == 0, text.output
    assert "would be removed" in text.stdout
    assert f"stays: run {run_of(root).name} needs it" in text.stdout
    data = json.loads(
        command("clean", "--older-than", "30d", "--storage", str(root), "--json").stdout
    )
    assert data["done"] is False
    assert data["bytes"] == sum(thing["bytes"] for thing in data["removed"])
    assert command("clean").exit_code == 2
    wrong = command("clean", "--older-than", "a month", "--storage", str(root))
    assert (wrong.exit_code, "write 30d" in wrong.stderr) == (2, True)
    nothing = command("clean", "--older-than", "1d", "--storage", str(root / "nowhere"))
    assert (nothing.exit_code, "is no storage of dcdctl" in nothing.stderr) == (6, True)
    assert not (root / "nowhere").exists()


@pytest.mark.parametrize(("text", "days"), [("30d", 30), ("12h", 0.5), ("2w", 14), ("90m", 0.0625)])
def test_ages(text: str, days: float) -> None:
    assert parse_age(text) == days * DAY


@pytest.mark.parametrize("text", ["30", "d", "-1d", "1y", ""])
def test_what_is_no_age(text: str) -> None:
    with pytest.raises(SpecError, match="is no age; write 30d"):
        parse_age(text)


def test_a_storage_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is no storage of dcdctl"):
        clean(str(tmp_path / "x"), 1.0)
