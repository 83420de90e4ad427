"""Errors that name a class are kept under its pseudonym."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from augment.spec import DcdSpec
from orchestrator.nameless import nameless
from orchestrator.trial import TrialPlan, World, run_trial
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
