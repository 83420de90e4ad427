"""The run store: whole or not at all, one writer, and sentences for what a disk can do."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.disk_space import require_margin
from orchestrator.ledger import SPEND, Ledger, set_aside_torn
from orchestrator.records import TrialRecord
from orchestrator.retries import classify
from orchestrator.store import Store, records_of, set_aside, stage, write_atomic
from orchestrator.sweep import _enter
from tasks.checkpoint import Checkpoint, CheckpointMeta
from tasks.classifiers import build_model
from tasks.draws import Draws
from tasks.errors import DiskFullError, StorageLockedError, StoreError
from tasks.training_spec import TrainingSpec
from tests.orchestrator.fake_run import fake_records, write_fake_run


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_text() == "two"
    assert [p.name for p in path.parent.iterdir()] == ["b.json"]


def test_a_stage_is_made_once_and_its_manifest_comes_last(tmp_path: Path) -> None:
    calls = []

    def make(out: Path) -> dict[str, object]:
        calls.append(out)
        assert not (out / "manifest.json").exists()
        return {"rows": 3}

    first = stage(tmp_path / "s", make)
    assert stage(tmp_path / "s", make) == first
    assert first["rows"] == 3
    assert len(calls) == 1


def test_a_stage_that_broke_is_made_again(tmp_path: Path) -> None:
    def broken(out: Path) -> dict[str, object]:
        raise RuntimeError("lamp fell over")

    with pytest.raises(RuntimeError, match="lamp"):
        stage(tmp_path / "s", broken)
    assert stage(tmp_path / "s", lambda out: {"rows": 1})["rows"] == 1


def test_a_damaged_manifest_has_its_stage_made_anew(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "manifest.json").write_text("{")
    assert stage(tmp_path / "s", lambda out: {"rows": 2})["rows"] == 2
    assert json.loads((tmp_path / "s" / "manifest.json").read_text())["rows"] == 2


def test_a_damaged_record_is_one_sentence_and_is_set_aside_on_resume(tmp_path: Path) -> None:
    record = tmp_path / "run" / "trials" / "x" / "record.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    with pytest.raises(StoreError, match=r"record .* cannot be read \(\d+ errors\)"):
        records_of(tmp_path / "run")
    (aside,) = set_aside(tmp_path / "run")
    assert aside.name == "record.json.torn"
    assert records_of(tmp_path / "run") == []
    assert set_aside(tmp_path / "run") == []


def test_fresh_sets_a_run_with_a_damaged_record_aside(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    record = store.run("fp") / "trials" / "x" / "record.json"
    write_atomic(record, "{")
    _enter(store, store.run("fp"), "fresh", 3)
    (aside,) = (tmp_path / "runs").glob("fp.*")
    assert (aside / "trials" / "x" / "record.json").read_text() == "{"
    assert list(store.run("fp").iterdir()) == []


def test_a_damaged_ledger_is_set_aside(tmp_path: Path) -> None:
    assert set_aside_torn(tmp_path) is None
    (tmp_path / SPEND).write_text("")
    assert set_aside_torn(tmp_path) == tmp_path / "spend.json.torn"
    assert Ledger(tmp_path).spend.lost == 0


def test_failed_records_are_set_aside_when_asked(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path, fake_records(2), pictures=False)
    path = next(run.glob("trials/*/record.json"))
    whole = len(records_of(run))
    failed = TrialRecord.model_validate_json(path.read_bytes())
    failed = failed.model_copy(update={"status": "failed", "error": "it broke"})
    write_atomic(path, failed.model_dump_json())
    assert set_aside(run) == []
    assert [p.name for p in set_aside(run, failed=True)] == ["record.json.failed"]
    assert len(records_of(run)) == whole - 1


@pytest.mark.parametrize("content", [b"", b"x" * 31])
def test_a_key_that_a_kill_left_half_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "pseudonyms.key").write_bytes(content)
    with pytest.raises(StoreError, match=rf"has {len(content)} bytes instead of 32"):
        Store(str(tmp_path)).pseudonym("Alice")


@pytest.mark.parametrize("uri", ["ftp://host/x", "http://host/x"])
def test_other_schemes_are_refused(uri: str) -> None:
    with pytest.raises(
        StoreError, match="results go to a folder, or to a file://, s3:// or gs:// URI"
    ):
        Store(uri)


def test_a_file_uri_is_a_folder(tmp_path: Path) -> None:
    assert Store((tmp_path / "x").as_uri()).root == tmp_path / "x"


def test_a_second_process_is_told_who_holds_the_storage(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from orchestrator.store import Store\n"
        "with Store(sys.argv[1]).locked():\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(StorageLockedError, match=f"in use by process {holder.pid} on"),
            Store(str(tmp_path)).locked(),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()  # type: ignore[union-attr]
    with Store(str(tmp_path)).locked():  # the lock went with the process
        pass


def test_pseudonyms_are_keyed_and_the_key_is_private(tmp_path: Path) -> None:
    one, two = Store(str(tmp_path / "1")), Store(str(tmp_path / "2"))
    assert one.pseudonym("Alice") == one.pseudonym("Alice") != one.pseudonym("Bob")
    assert one.pseudonym("Alice") != two.pseudonym("Alice")
    assert one.pseudonym("Alice", public_key="0") == two.pseudonym("Alice", public_key="0")
    assert stat.S_IMODE((tmp_path / "1" / "pseudonyms.key").stat().st_mode) == 0o600


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half(tiny_disk: Path) -> None:
    write_atomic(tiny_disk / "record.json", "kept")
    with pytest.raises(DiskFullError, match="no space is left .*; free some and resume"):
        write_atomic(tiny_disk / "record.json", b"x" * 200_000)
    assert (tiny_disk / "record.json").read_text() == "kept"
    assert [p.name for p in tiny_disk.iterdir()] == ["record.json"]


def test_a_disk_that_became_full_is_said_between_stages(tiny_disk: Path, tmp_path: Path) -> None:
    require_margin(tmp_path)
    with pytest.raises(DiskFullError, match="0 MiB free, .* free some and resume"):
        require_margin(tiny_disk)


def test_a_checkpoint_on_a_full_disk_is_the_storage_s_fault(tiny_disk: Path) -> None:
    """The weights' format has an error of its own for it, which would make a failed record."""
    spec = TrainingSpec(width=64)
    meta = CheckpointMeta(training=spec, num_classes=4, image_size=16)
    with pytest.raises(OSError, match="No space left") as error:
        Checkpoint(build_model(spec, 4, Draws(0)), meta).save(tiny_disk)
    assert classify(error.value) == "storage"
    assert list(tiny_disk.iterdir()) == []


def test_a_storage_that_is_a_file_or_read_only_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        Store(str(tmp_path / "file"))
    if os.geteuid() != 0:
        (tmp_path / "ro").mkdir(mode=0o500)
        with pytest.raises(StoreError, match="cannot write"):
            Store(str(tmp_path / "ro" / "x"))
