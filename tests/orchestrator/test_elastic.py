"""An elastic training follows a cluster that grows and shrinks, and gives the same model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clusters.embedded import DRIVER_ENV, WORKER_ENV

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_machine_more_and_a_machine_lost(tmp_path: Path) -> None:
    program = Path(__file__).with_name("elastic_training.py")
    env = os.environ | DRIVER_ENV | WORKER_ENV | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, str(program), str(tmp_path)],
        env=env,
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["starts"][:3] == [1, 2, 1]
    assert found["gap"] < 0.05
