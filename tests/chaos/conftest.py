"""The undisturbed runs that every other is held against, and the table of faults."""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.records import TrialRecord
from tests.chaos.sweeps import Expected, Size, Sweep
from tests.chaos.table import Table

SEED = int(os.environ.get("CHAOS_SEED", "1"))


@pytest.fixture(scope="session")
def table() -> Table:
    """Where faults are entered; CHAOS_TABLE names the file for it."""
    path = os.environ.get("CHAOS_TABLE")
    return Table(None if path is None else Path(path), SEED)


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Draws of this test."""
    return random.Random(SEED + zlib.crc32(request.node.name.encode()))


Undisturbed = Callable[[Size], Expected]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Run a small sweep in peace, once for each size."""
    found: dict[Size, Expected] = {}

    def run(size: Size) -> Expected:
        if size not in found:
            found[size] = _run(tmp_path_factory.mktemp("undisturbed"), size)
        return found[size]

    return run


def _run(folder: Path, size: Size) -> Expected:
    sweep = Sweep("undisturbed", folder, SEED, size=size)
    try:
        sweep.start()
        assert sweep.ended() == 0, sweep.said()
    finally:
        sweep.close()
    records = [TrialRecord.model_validate_json(data) for _, data in sweep.records().values()]
    assert len(records) == size.trials
    assert {record.status for record in records} == {"ok"}
    return Expected(
        {record.trial_id: record.results_hash() for record in records},
        sum(sum(record.cost_s.values()) for record in records),
    )


MakeSweep = Callable[..., Sweep]


@pytest.fixture
def make_sweep(tmp_path: Path) -> Iterator[MakeSweep]:
    """Make sweeps that are ended with the test."""
    made: list[Sweep] = []

    def make(name: str, **options: object) -> Sweep:
        made.append(Sweep(name, tmp_path / name.replace(" ", "-"), SEED, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for sweep in made:
        sweep.close()
