"""The commands of docs/tour.md, run one after the other as they stand there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOUR = Path(__file__).parents[1] / "docs" / "tour.md"


def commands() -> list[str]:
    lines = TOUR.read_text().splitlines()
    return [line.strip() for line in lines if line.startswith("    dcdctl ")]


def test_the_tour_has_commands() -> None:
    assert len(commands()) >= 8


@pytest.mark.slow
def test_the_tour_can_be_taken(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for command in commands():
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=os.environ | {"PATH": path, "COLUMNS": "160"},
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert list(tmp_path.glob("tour/runs/*/report.html"))
    assert list((tmp_path / "protected").rglob("*.png"))
