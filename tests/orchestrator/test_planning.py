"""What a plan says of an experiment is counted trial by trial."""

from __future__ import annotations

from pathlib import Path

import pytest

from augment.plan import make_plan
from augment.spec import DcdSpec, ProtectSpec
from orchestrator.comparison_spec import ALONE, ComparedSpec
from orchestrator.plan_tally import rows_in_order
from orchestrator.planning import plan_summary
from orchestrator.search import planned_trials
from orchestrator.selection import select
from orchestrator.spec import ExperimentSpec, SweepSpec
from tasks.datasets.spec import BuiltinData
from tasks.defenses.spec import DpSgdSpec, MidSpec
from tasks.training_spec import TrainingSpec

ROWS = (
    ComparedSpec(defense=MidSpec(), strengths=(0.01, 0.1)),
    ComparedSpec(defense=DpSgdSpec(epochs=7), strengths=()),
    ComparedSpec(dcd=True),
    ComparedSpec(dcd=DcdSpec(**ALONE)),
)


def experiment(storage: Path, sweep: SweepSpec) -> ExperimentSpec:
    return ExperimentSpec(
        storage=str(storage),
        data=BuiltinData(
            identities=6, train_images=5, surrogate_identities=12, public_identities=3
        ),
        protect=ProtectSpec(targets=2, surrogates="attribute-opposite"),
        training=TrainingSpec(epochs=3),
        sweep=sweep,
    )


def rows_under(spec: ExperimentSpec, dcd: DcdSpec) -> int:
    selection = select(spec)
    rows = rows_in_order(selection)
    plan = make_plan(rows, selection.targets, selection.num_classes, dcd, spec.seed)
    return int(plan.num_rows)


def test_a_comparison_counts_each_row_with_its_own_data_and_epochs(tmp_path: Path) -> None:
    spec = experiment(tmp_path, SweepSpec(search="defenses", rows=ROWS))
    alone = spec.dcd.model_copy(update=ALONE)
    protected, by_one = rows_under(spec, spec.dcd), rows_under(spec, alone)
    before = 6 * 5
    assert len({before, protected, by_one}) == 3
    found = plan_summary(spec)
    assert found.trials == 5
    # Control and two of MID, DP-SGD, both of DCD.
    assert found.training_rows == 3 * 3 * before + 7 * before + 3 * (protected + by_one)
    assert (found.rows_before, found.rows_after) == (before, protected)


@pytest.mark.parametrize("search", ["optuna", "ablation"])
def test_a_search_counts_the_control_and_its_trials(tmp_path: Path, search: str) -> None:
    spec = experiment(tmp_path, SweepSpec.model_validate({"search": search, "trials": 4}))
    found = plan_summary(spec)
    assert found.trials == planned_trials(spec)
    least = 3 * (found.trials + 1) * found.rows_before
    assert least < found.training_rows <= 3 * (found.rows_before + found.trials * found.rows_after)
    if search == "optuna":
        assert found.training_rows == 3 * (found.rows_before + 4 * found.rows_after)
