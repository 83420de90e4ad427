"""A real calibration of a small experiment, and the plan that uses it."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from attacks.spec import AdaptiveSpec, MirrorBSpec, PpaSpec
from augment.spec import ProtectSpec
from orchestrator.planning import plan_summary
from orchestrator.spec import ExperimentSpec, SweepSpec
from tasks.datasets.spec import BuiltinData
from tasks.errors import SpecError
from tasks.training_spec import EvaluationSpec, SecondJudgeSpec, TrainingSpec

pytestmark = [
    pytest.mark.usefixtures("ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]

QUIET = Console(quiet=True)


@pytest.fixture
def spec(tmp_path: Path) -> ExperimentSpec:
    search = {"pool": 256, "candidates": 2, "steps": 10, "keep": 2, "selection_rounds": 2}
    return ExperimentSpec(
        storage=str(tmp_path / "storage"),
        data=BuiltinData(
            identities=4,
            train_images=4,
            test_images=2,
            surrogate_identities=6,
            surrogate_images=4,
            public_identities=2,
            public_images=1,
        ),
        protect=ProtectSpec(targets=2, surrogates="attribute-opposite"),
        training=TrainingSpec(width=4, epochs=2, batch_size=8),
        evaluation=EvaluationSpec(
            width=4,
            epochs=2,
            batch_size=8,
            image_metrics=False,
            second=SecondJudgeSpec(enabled=False),
        ),
        attacks=(
            PpaSpec.model_validate(search),
            MirrorBSpec(pool=256, restarts=2, population=4, generations=4),
        ),
        adaptive_attacks=(AdaptiveSpec.model_validate(search | {"strategy": "modes"}),),
        sweep=SweepSpec(trials=1),
    )


def test_a_calibration_makes_every_stage_known(spec: ExperimentSpec) -> None:
    before = plan_summary(spec).cost
    assert before is not None
    assert before.hours is None
    made = plan_summary(spec, calibrated=True, console=QUIET).cost
    assert made is not None
    assert made.unknown == ()
    assert made.wall_s is not None
    rows = {row.stage: row for row in made.stages}
    assert set(rows) >= {"judges", "training", "attack ppa", "attack mirror-b", "adaptive attacks"}
    assert "data" not in rows  # it was decoded for the calibration, and is kept
    assert all(row.samples == 6 for row in rows.values() if row.source == "calibration")
    again = plan_summary(spec.model_copy(update={"sweep": SweepSpec(trials=3)})).cost
    assert again is not None
    assert again.hours is not None
    assert made.hours is not None
    assert again.hours.p50 > made.hours.p50  # kept, and good for a longer search


def test_without_targets_there_is_nothing_to_calibrate(spec: ExperimentSpec) -> None:
    nobody = spec.model_copy(update={"protect": ProtectSpec(targets=0)})
    with pytest.raises(SpecError, match=r"protect.targets is 0, so there is nothing to attack"):
        plan_summary(nobody, calibrated=True, console=QUIET)
