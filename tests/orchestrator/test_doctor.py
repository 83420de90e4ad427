"""Each check of the doctor, healthy and ill."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from orchestrator import doctor
from orchestrator.cli import app
from orchestrator.doctor import CHECKS, Check, Diagnosis, Finding, examine
from orchestrator.spec import ExperimentSpec
from tasks.errors import StoreError

SPEC = ExperimentSpec()


def test_a_quick_look_runs_every_check_but_ray(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = ExperimentSpec(storage=str(tmp_path / "results"))
    diagnosis = examine(spec, quick=True)
    assert [check.name for check in diagnosis.checks] == [name for name in CHECKS if name != "ray"]
    assert not (tmp_path / "results").exists()  # looking leaves no trace


def test_ray_starts_and_runs_a_task() -> None:
    found = doctor.check_ray(SPEC)
    assert found.status == "ok", found


@pytest.mark.parametrize(
    ("probe", "sentence"),
    [
        ("raise SystemExit('no port is free')", "Ray does not start: no port is free"),
        ("raise SystemExit(3)", "Ray does not start: exit code 3"),
        ("import time; time.sleep(60)", "Ray ran no task within 1 s"),
    ],
)
def test_a_ray_that_does_not_start_is_ended_in_time(
    monkeypatch: pytest.MonkeyPatch, probe: str, sentence: str
) -> None:
    monkeypatch.setattr(doctor, "RAY_PROBE", probe)
    monkeypatch.setattr(doctor, "RAY_DEADLINE_S", 1.0)
    found = doctor.check_ray(SPEC)
    assert (found.status, found.sentence) == ("fail", sentence)
    assert found.advice


def test_python_below_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_python(SPEC).status == "ok"
    monkeypatch.setattr("platform.python_version", lambda: "3.10.2")
    assert doctor.check_python(SPEC)[:2] == ("fail", "Python 3.10.2 is not >=3.11")


def test_packages_outside_their_bounds_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_packages(SPEC).status == "ok"
    needs = ["rich>=14,<16", "torch>=99", "nobody-has-this>=1", 'absent; extra == "s3"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: needs)
    found = doctor.check_packages(SPEC)
    assert found.status == "fail"
    torch = importlib.metadata.version("torch")
    assert found.sentence == f"torch {torch} is not >=99; nobody-has-this is missing"


def test_a_room_that_is_shadowed_on_the_path(tmp_path: Path) -> None:
    (tmp_path / "attacks").mkdir()
    (tmp_path / "attacks" / "__init__.py").touch()
    code = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "from orchestrator.doctor import check_rooms\n"
        "from orchestrator.spec import ExperimentSpec\n"
        "spec = ExperimentSpec()\n"
        "print(check_rooms(spec).status)\n"
        "sys.path.insert(0, sys.argv[1]); [sys.modules.pop(m) for m in list(sys.modules)"
        " if m.split('.')[0] == 'attacks']\n"
        "print(*check_rooms(spec)[:2])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=doctor.HOME,
    ).stdout.splitlines()
    assert output[0] == "ok"
    assert output[1].startswith(f"fail `import attacks` finds {tmp_path}/attacks/__init__.py inst")


def test_a_package_that_also_brings_a_room(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = {"tasks": ["dcdctl", "celery-tasks"]}
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: owners)
    found = doctor.check_rooms(SPEC)
    assert found[:2] == ("warn", "the package celery-tasks also installs a top-level `tasks`")


def test_a_module_of_that_name_where_dcdctl_is_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctor.check_rooms(SPEC).status == "ok"
    (tmp_path / "tasks.py").touch()
    assert doctor.check_rooms(SPEC).status == "warn"


def test_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(doctor, "_cgroup", lambda name: iter(()))
    assert doctor.check_cores(SPEC)[:2] == ("ok", "8 cores")
    monkeypatch.setattr(doctor, "_cgroup", lambda name: iter([["150000", "100000"]]))
    assert doctor.check_cores(SPEC)[:2] == ("warn", "one core")


@pytest.mark.parametrize(
    ("limit", "status"), [(10**10, "ok"), (3 * 10**9, "warn"), (10**9, "fail")]
)
def test_memory_of_a_container(monkeypatch: pytest.MonkeyPatch, limit: int, status: str) -> None:
    monkeypatch.setattr(doctor, "_free_memory", lambda: 16e9)
    monkeypatch.setattr(doctor, "_cgroup", lambda name: iter([[str(limit)]]))
    found = doctor.check_memory(SPEC)
    assert found.status == status
    assert found.sentence == f"{limit / 1e9:.1f} GB of memory free"


@pytest.mark.parametrize(("free", "status"), [(6e9, "ok"), (2e9, "warn"), (5e8, "fail")])
def test_disk(monkeypatch: pytest.MonkeyPatch, free: float, status: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=free))
    assert doctor.check_disk(SPEC).status == status


def test_little_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=64e6))
    found = doctor.check_shared_memory(SPEC)
    assert found == Finding(
        "warn", "0.06 GB of shared memory free", "in a container: --shm-size=2g"
    )


def test_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("tasks.device.has_fast_bfloat16", lambda device: False)
    assert doctor.check_bfloat16(SPEC).status == "warn"
    monkeypatch.setattr("tasks.device.has_fast_bfloat16", lambda device: True)
    assert doctor.check_bfloat16(SPEC).status == "ok"


def test_the_shipped_prior(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place: dict[str, Any] = {"path": tmp_path / "prior.safetensors"}
    module = ModuleType("attacks.prior_training")
    vars(module)["shipped_prior_path"] = lambda size: place["path"]
    monkeypatch.setitem(sys.modules, "attacks.prior_training", module)
    assert doctor.check_prior(SPEC).status == "warn"
    place["path"].write_bytes(b"weights")
    assert doctor.check_prior(SPEC).status == "ok"
    place["path"] = None
    assert doctor.check_prior(SPEC).status == "warn"


def test_a_storage_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(dir: Path) -> None:  # noqa: A002 - the name that tempfile has
        raise PermissionError(13, "Permission denied", str(dir))

    spec = ExperimentSpec(storage=f"file://{tmp_path}/new/results")
    assert doctor.check_storage(spec) == Finding("ok", f"{tmp_path} can be written")
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    found = doctor.check_storage(spec)
    assert found[:2] == ("fail", f"{tmp_path} cannot be written: Permission denied")


def test_a_storage_of_another_kind_is_what_the_store_says() -> None:
    with pytest.raises(StoreError, match=r"ftp://host/x"):
        doctor.check_storage(ExperimentSpec(storage="ftp://host/x"))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [(StoreError("no such storage"), "no such storage"), (OSError("gone"), "OSError: gone")],
)
def test_a_check_that_breaks_has_failed(
    monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str
) -> None:
    def broken(spec: ExperimentSpec) -> Finding:
        raise error

    monkeypatch.setattr(doctor, "CHECKS", {"broken": broken})
    (check,) = examine(SPEC).checks
    assert (check.status, check.finding) == ("fail", sentence)


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warn", 0), ("fail", 1)])
def test_the_command_exits_with_1_where_a_check_fails(
    monkeypatch: pytest.MonkeyPatch, status: Any, code: int
) -> None:
    finding = Finding(status, "seen", "do this" if status != "ok" else "")
    monkeypatch.setattr(doctor, "CHECKS", {"one": lambda spec: finding})
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == code
    assert result.stdout.split()[:3] == [status, "one", "seen"]
    assert ("-> do this" in result.stdout) == (status != "ok")
    document = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert document["healthy"] == (status != "fail")
    assert document["checks"][0]["finding"] == "seen"


def test_a_path_with_brackets_is_printed_as_it_is() -> None:
    check = Check(name="disk", status="ok", finding="/data/[red]/x", advice="")
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    Diagnosis(checks=(check,)).render(console)
    console.file.close()
    assert "/data/[red]/x" in console.export_text()
