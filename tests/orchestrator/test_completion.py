"""The shell completes commands, runs and jobs, through the protocol that bash and zsh speak."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.orchestrator.fake_run import fake_records, write_fake_run


def offered(line: str, cwd: Path, shell: str = "bash") -> list[str]:
    """Return what is offered for the last word of a command line."""
    words = line.split(" ")
    if shell == "bash":
        env = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    else:
        env = {"_TYPER_COMPLETE_ARGS": line}
    found = subprocess.run(
        [str(Path(sys.executable).with_name("dcdctl"))],
        cwd=cwd,
        env=os.environ | env | {"_DCDCTL_COMPLETE": f"complete_{shell}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.split()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_fake_run(tmp_path / ".dcdctl", fake_records(2), pictures=False)


def test_commands_are_offered(tmp_path: Path) -> None:
    assert {"sweep", "status"} <= set(offered("dcdctl s", tmp_path))


@pytest.mark.parametrize("command", ["status", "logs", "trials"])
def test_the_names_of_runs_are_offered(command: str, run: Path) -> None:
    assert offered(f"dcdctl {command} ", run.parents[2]) == [run.name]
    assert offered(f"dcdctl {command} {run.name[:3]}", run.parents[2]) == [run.name]
    assert offered(f"dcdctl {command} zz", run.parents[2]) == []


@pytest.mark.parametrize("command", ["report", "landscape", "trainers"])
def test_commands_that_take_folders_are_offered_folders(command: str, run: Path) -> None:
    folder = f".dcdctl/runs/{run.name}"
    assert offered(f"dcdctl {command} ", run.parents[2]) == [folder]
    assert offered(f"dcdctl {command} .dcd", run.parents[2]) == [folder]


def test_another_storage_is_looked_into(run: Path) -> None:
    storage = run.parents[1]
    assert offered(f"dcdctl status --storage {storage} ", storage.parents[1]) == [run.name]


def test_zsh_is_told_what_a_run_is(run: Path) -> None:
    assert any(run.name in word for word in offered("dcdctl status ", run.parents[2], "zsh"))


def test_jobs_are_offered(tmp_path: Path) -> None:
    (tmp_path / ".dcdctl" / "jobs").mkdir(parents=True)
    (tmp_path / ".dcdctl" / "jobs" / "dcdctl-1.json").write_text("{}")
    assert offered("dcdctl attach ", tmp_path) == ["dcdctl-1"]
