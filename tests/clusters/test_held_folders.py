"""Temporary folders of processes that were killed go; those of the living stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clusters import held_folders
from clusters.held_folders import OWNER, held_folder, remove_stale

HOLD = """
import sys, time
from clusters.held_folders import held_folder
with held_folder("scratch-", sys.argv[1]) as folder:
    (folder / "weights").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    time.sleep(60)
"""


def holder(place: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that holds a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_goes_with_its_block(tmp_path: Path) -> None:
    with held_folder("tune-", str(tmp_path)) as folder:
        assert folder.name.startswith("dcd-tune-")
        assert [path.name for path in folder.iterdir()] == [OWNER]
        assert int((folder / OWNER).read_text()) == os.getpid()
        assert remove_stale(tmp_path) == []
    assert not folder.exists()


def test_the_next_start_removes_what_a_kill_left_and_nothing_of_the_living(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    living, kept = holder(tmp_path)
    killed, left = holder(tmp_path)
    other = tmp_path / "dcd-of-somebody"  # no file that says whose it is: perhaps just being made
    other.mkdir()
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait(timeout=10)
        assert left.is_dir()
        monkeypatch.setattr(held_folders, "_looked", set())
        with held_folder("", str(tmp_path)) as own:
            assert not left.exists()
            assert (kept / "weights").exists()
            assert other.is_dir()
            assert own.is_dir()
    finally:
        living.kill()
        living.wait(timeout=10)
    deadline = time.monotonic() + 5
    while remove_stale(tmp_path) != [kept]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_link_to_elsewhere_is_left_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / OWNER).touch()
    place = tmp_path / "tmp"
    place.mkdir()
    (place / "dcd-link").symlink_to(elsewhere)
    assert remove_stale(place) == []
    assert (elsewhere / OWNER).exists()
