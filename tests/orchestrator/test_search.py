"""The search: a function of the seed and of earlier trials, not of time."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augment.spec import DcdSpec
from orchestrator.config import load_spec
from orchestrator.records import Accuracy, AttackRecord, Rate, TrialRecord
from orchestrator.search import STARTUP, ablation, grid, known_enough, planned_trials, suggest
from orchestrator.spec import Between, ExperimentSpec, SpaceSpec, SweepSpec
from orchestrator.summary import apply_command
from tasks.errors import SpecError

SWEEP = SweepSpec(trials=20, lookahead=3)
LEVERS = tuple(SpaceSpec.model_fields)


def record(index: int, dcd: DcdSpec, accuracy: int, attack: int, status: str = "ok") -> TrialRecord:
    clean = Rate.of(accuracy, 100)
    return TrialRecord(
        trial_id=f"t{index}",
        index=index,
        defense="dcd",
        status=status,
        settings=dcd.public(),
        seed=0,
        clean_accuracy=Accuracy(overall=clean, targets=clean, bystanders=clean),
        attacks=(
            AttackRecord(
                name="ppa",
                access="white-box",
                accuracy_at_1=Rate.of(attack, 64),
                accuracy_at_5=Rate.of(attack, 64),
                surrogate_rate=Rate.of(0, 64),
                per_target=(),
                settings={},
                queries=1,
            ),
        ),
    )


def history(count: int, sweep: SweepSpec = SWEEP, seed: int = 0) -> list[TrialRecord]:
    """Records of a sweep in which more mislabels cost accuracy and buy privacy."""
    records: list[TrialRecord] = []
    for index in range(1, count + 1):
        dcd = suggest(index, sweep, DcdSpec(), seed, records)
        good = round(40 * dcd.mislabel_fraction)
        records.append(record(index, dcd, 99 - good, 40 - good))
    return records


def test_the_first_trial_is_the_experiments_own_recipe() -> None:
    assert suggest(1, SWEEP, DcdSpec(), 0, []) == DcdSpec()
    outside = DcdSpec(mislabel_fraction=0.9, target_copies=3)
    moved = suggest(1, SWEEP, outside, 0, [])
    assert moved.mislabel_fraction == SWEEP.space.mislabel_fraction.high  # type: ignore[union-attr]
    assert moved.target_copies == 3


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_suggestions_lie_in_the_space_and_differ(seed: int) -> None:
    records = history(STARTUP + 2, seed=seed)
    seen = {tuple(r.settings[name] for name in LEVERS) for r in records}
    assert len(seen) == len(records)
    for one in records:
        for name in LEVERS:
            values = getattr(SWEEP.space, name)
            assert values.low <= one.settings[name] <= values.high


def test_the_order_in_which_trials_end_does_not_matter() -> None:
    records = history(STARTUP + 4)
    index = STARTUP + 5
    expected = suggest(index, SWEEP, DcdSpec(), 0, records)
    assert suggest(index, SWEEP, DcdSpec(), 0, records[::-1]) == expected
    enough = [r for r in records if r.index <= index - SWEEP.lookahead]
    assert suggest(index, SWEEP, DcdSpec(), 0, enough) == expected


def test_a_learned_suggestion_waits_for_what_it_depends_on() -> None:
    done = set(range(1, STARTUP + 1))
    assert known_enough(STARTUP, SWEEP, set())
    assert known_enough(STARTUP + SWEEP.lookahead, SWEEP, done)
    assert not known_enough(STARTUP + SWEEP.lookahead, SWEEP, done - {2})


def test_failed_trials_do_not_stop_the_search() -> None:
    records = history(STARTUP)
    records[3] = records[3].model_copy(
        update={"status": "failed", "clean_accuracy": None, "attacks": ()}
    )
    assert suggest(STARTUP + 3, SWEEP, DcdSpec(), 0, records)


def test_a_grid_is_every_combination() -> None:
    space = SpaceSpec(
        mislabel_fraction=(0.2, 0.4),
        curvature_mislabel_fraction=(0.5,),
        target_sigma=(0.01, 0.02, 0.03),
        surrogate_sigma=(0.003,),
    )
    sweep = SweepSpec(search="grid", space=space)
    assert planned_trials(ExperimentSpec(sweep=sweep)) == 6 == len(grid(space))
    tried = [suggest(i, sweep, DcdSpec(), 0, []) for i in range(1, 7)]
    assert {(d.mislabel_fraction, d.target_sigma) for d in tried} == {
        (m, s) for m in (0.2, 0.4) for s in (0.01, 0.02, 0.03)
    }


def test_a_grid_over_a_range_is_refused() -> None:
    spec = ExperimentSpec(sweep=SweepSpec(search="grid"))
    with pytest.raises(SpecError, match=r"sweep\.space\.mislabel_fraction is a range; write \["):
        planned_trials(spec)


def test_an_ablation_leaves_out_one_step_after_the_other() -> None:
    sweep = SweepSpec(search="ablation")
    own = DcdSpec(mislabel_fraction=0.35)
    spec = ExperimentSpec(sweep=sweep, dcd=own)
    tried = [suggest(i, sweep, own, 0, []) for i in range(1, planned_trials(spec) + 1)]
    assert tried[0] == own
    assert [d.steps for d in tried[1:]] == [
        ("loss", "curvature"),
        ("injection", "curvature"),
        ("injection", "loss"),
        ("injection", "curvature"),
    ]
    assert [d.target_copies for d in tried] == [1, 1, 1, 1, 0]
    assert {d.mislabel_fraction for d in tried} == {0.35}


def test_lists_are_searched_by_optuna_too() -> None:
    space = SpaceSpec(mislabel_fraction=(0.2, 0.4), target_sigma=Between(low=0.01, high=0.1))
    sweep = SweepSpec(space=space, lookahead=1)
    assert {r.settings["mislabel_fraction"] for r in history(STARTUP + 3, sweep)} == {0.2, 0.4}


def test_the_command_to_apply_a_recipe_gives_that_recipe() -> None:
    for recipe in (*ablation(DcdSpec(mislabel_fraction=0.35)), DcdSpec(max_inflation=3)):
        command = apply_command("run", ExperimentSpec(), record(1, recipe, 90, 3))
        words = shlex.split(command)
        changes = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        assert load_spec(None, changes).dcd == recipe
