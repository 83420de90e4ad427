"""Errors that name a class are kept under its pseudonym."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from augment.spec import DcdSpec
from orchestrator.config import load_spec
from orchestrator.nameless import nameless, nameless_job
from orchestrator.trial import TrialPlan, World, run_trial
from tasks.errors import DataError, QuarantineError, StoreError
from tasks.training_spec import TrainingSpec
from tasks.types import ClassId, IdentityId, Lender, TargetClass
from tests.orchestrator.people_storage import rows_of

NAMES = ["Ottilie Pellworm", "Ann", "Anna"]


@pytest.fixture
def world() -> World:
    rows = pa.concat_tables([rows_of(NAMES, "train"), rows_of(["Benedikt"], "surrogate")])
    target = TargetClass(ClassId(0), IdentityId(NAMES[0]), (Lender(IdentityId("Benedikt"), 3),))
    return World(
        rows=rows,
        images=np.zeros((4, 16, 16, 3), np.uint8),
        targets=(target,),
        pseudonyms=("id-0000aaaa",),
        num_classes=3,
        seed=0,
        digest="x",
    )


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("target 'Ottilie Pellworm' has 1", "target id-0000aaaa has 1"),
        ("'Benedikt' of 'Ottilie Pellworm'", "a surrogate of id-0000aaaa of id-0000aaaa"),
        ("Anna sees Annabel", "a class of the data sees Annabel"),
        ("nobody", "nobody"),
    ],
)
def test_names_become_pseudonyms(world: World, said: str, kept: str) -> None:
    assert nameless(said, world) == kept


def test_a_failed_trial_names_nobody(world: World, tmp_path: Path) -> None:
    unused: Any = None
    plan = TrialPlan(1, DcdSpec(mislabel_fraction=1.0), TrainingSpec(), ())
    record = run_trial(plan, world, unused, unused, unused, tmp_path, "t")
    assert record.status == "failed"
    assert record.error is not None
    assert "target id-0000aaaa has 1 training image" in record.error
    assert "Ottilie" not in (tmp_path / "record.json").read_text()


QUARANTINED = (
    "3 of 9 images (33.3%) cannot be used, and data.max_quarantine_fraction allows 1.0%; the first "
    "is Ann B/x (1).png (not an image), all are listed in /s/quarantine.parquet; repair them"
)


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (DataError("class 'Ann B' is missing"), "class data.private[1] is missing"),
        (DataError("private class 'Eve' has 1"), "private class (its name stays out of a job's "),
        (
            DataError("class 'Bo' is not in /photos/x"),
            "class data.surrogates[0] is not in data.roo",
        ),
        (StoreError("no space is left"), "no space is left"),
        (QuarantineError(QUARANTINED), "the first for: not an image; all are listed"),
    ],
)
def test_a_jobs_log_names_nobody(error: Exception, kept: str) -> None:
    data = "{kind: folder, root: /photos/x, private: [Cy, Ann B], surrogates: [Bo], public: [Di]}"
    said = nameless_job(str(error), error, [load_spec(None, [f"data={data}"])])
    assert kept in said
    assert "Ann" not in said
