"""The suite's own arithmetic, and that the documented table is that of the kept run."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.chaos.sweeps import moments
from tests.chaos.table import Injection, Table, render

DOCS = Path(__file__).resolve().parents[2] / "docs"
KEPT = DOCS / "logs" / "chaos.json"


def test_moments_are_those_of_the_seed_and_each_has_its_own_place() -> None:
    drawn = moments(random.Random(3), 7, 2, 20)
    assert drawn == moments(random.Random(3), 7, 2, 20)
    assert drawn != moments(random.Random(4), 7, 2, 20)
    places = [moment.records for moment in drawn]
    assert places == sorted(set(places))
    assert set(places) <= set(range(2, 21))


def test_a_table_says_what_was_thrown_away(tmp_path: Path) -> None:
    table = Table(tmp_path / "chaos.json", 1)
    rows = [
        Injection("trial killed", "s", "3 records", 1, "SIGKILL", True, 0, 0, 1.0, 0.02, 4.0),
        Injection("trial killed", "s", "9 records", 1, "SIGKILL", True, 0, 0, 2.0, 0.04, 8.0),
    ]
    table.add(rows[:1], 20.0)  # of an earlier try
    table = Table(tmp_path / "chaos.json", 1)
    table.add(rows, 50.0)
    text = render(json.loads((tmp_path / "chaos.json").read_text()))
    assert text.startswith("2 injections in 1 sweeps, seed 1")
    assert "3.0 % of a sweep's trial-seconds for each injection" in text
    assert "3 s of 53 s (5.7 %)" in text
    assert "| trial killed | 2 | 2 | 0 | 0 | 3.0 % (4.0 %) | 6 s (8 s) |" in text


@pytest.mark.skipif(not KEPT.is_file(), reason="no run is kept")
def test_the_documented_table_is_that_of_the_kept_run() -> None:
    assert render(json.loads(KEPT.read_text())) in (DOCS / "reliability.md").read_text()
