"""./setup with a stand-in for Python: what it would install, and when it does nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
STUB = """#!/bin/sh
[ "$1" = "-c" ] && exit 0
echo "$*" >> calls
echo "what pip says"
exit ${STUB_STATUS:-0}
"""
USER = "-m pip install -c constraints.txt -e ."


class Clone:
    """A copy of the files that ./setup needs, with a virtual environment that is a stub."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("setup", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, root / name)
        self.python = root / "venv" / "bin" / "python"
        self.python.parent.mkdir(parents=True)
        self.python.write_text(STUB)
        self.python.chmod(0o755)

    def setup(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.root / "setup", *args],
            env={**os.environ, "DCDCTL_VENV": "venv", **env},
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[str]:
        path = self.root / "calls"
        found = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return found


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_it_installs_once_and_again_when_the_project_changes(clone: Clone) -> None:
    assert clone.setup().returncode == 0
    assert clone.calls() == [USER]
    assert clone.setup().stdout == ""
    assert clone.calls() == []
    (clone.root / "constraints.txt").write_text("rich==14.0.0\n")
    clone.setup()
    assert clone.calls() == [USER]


def test_dev_adds_the_group_and_serves_users_too(clone: Clone) -> None:
    clone.setup()
    clone.calls()
    assert clone.setup("--dev").returncode == 0
    assert clone.calls() == ["-m pip install --upgrade pip>=25.1", f"{USER} --group dev"]
    clone.setup()
    assert clone.calls() == []


def test_a_failed_install_shows_its_end_and_is_tried_again(clone: Clone) -> None:
    result = clone.setup(STUB_STATUS="1")
    assert result.returncode == 1
    assert "what pip says" in result.stderr
    assert "did not succeed; the whole output is in venv/setup.log" in result.stderr
    clone.calls()
    clone.setup()
    assert clone.calls() == [USER]


def test_no_python_is_one_sentence(clone: Clone) -> None:
    shutil.rmtree(clone.root / "venv")
    old = clone.root / "old"
    old.mkdir()
    for name in ("python3.13", "python3.12", "python3.11", "python3"):
        (old / name).write_text("#!/bin/sh\nexit 1\n")
        (old / name).chmod(0o755)
    result = clone.setup(PATH=f"{old}:{os.environ['PATH']}")
    assert result.returncode == 1
    assert result.stderr.startswith("setup: no Python 3.11 or newer on the PATH; install one")
    assert result.stderr.count("\n") == 1


def test_an_unknown_option(clone: Clone) -> None:
    result = clone.setup("--develop")
    assert (result.returncode, result.stderr) == (2, "usage: ./setup [--dev]\n")


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines)  # names and versions, no addresses
    pins = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for line in project["project"]["dependencies"] + project["dependency-groups"]["dev"]:
        need = Requirement(line)
        assert need.specifier.contains(pins[need.name.lower()]), line
