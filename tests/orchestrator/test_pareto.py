"""Frontier, hypervolume, knee and recommendation, against brute force where that is possible."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.pareto import (
    Point,
    Point3,
    feasible,
    find_control,
    hypervolume_2d,
    hypervolume_3d,
    hypervolume_growth,
    knee,
    pareto_front,
    point_of,
    recommend,
    tries_needed,
)
from orchestrator.records import Accuracy, Rate, TrialRecord
from orchestrator.spec import GoalSpec
from tests.orchestrator.fake_run import GOAL, fake_record, fake_records

# Few values, so that ties are common.
coordinate = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]) | st.floats(0, 1)
points = st.lists(st.builds(Point, coordinate | st.just(math.nan), coordinate | st.just(math.nan)))
NAN = Point(math.nan, math.nan)


def dominates(one: Point, other: Point) -> bool:
    at_least = one[0] >= other[0] and one[1] <= other[1]
    return at_least and one != other


@given(points)
def test_the_front_is_the_set_of_undominated_points(cloud: list[Point]) -> None:
    whole = [p for p in cloud if not any(map(math.isnan, p))]
    expected = [
        i for i, p in enumerate(cloud) if p in whole and not any(dominates(o, p) for o in whole)
    ]
    assert pareto_front(cloud) == expected


def test_equal_points_stay_on_the_front_together() -> None:
    assert pareto_front([Point(0.9, 0.1), Point(0.8, 0.2), Point(0.9, 0.1)]) == [0, 2]


def test_a_point_without_a_number_neither_enters_nor_dominates() -> None:
    assert pareto_front([NAN, Point(0.5, 0.5), Point(1.0, math.nan)]) == [1]
    assert pareto_front([NAN]) == pareto_front([]) == []


grid_points = st.lists(st.builds(Point, *[st.integers(0, 8).map(lambda k: k / 8)] * 2))


@given(grid_points)
def test_the_hypervolume_counts_the_dominated_cells(cloud: list[Point]) -> None:
    cells = sum(
        any(p[0] >= (i + 1) / 8 and p[1] <= j / 8 for p in cloud)
        for i in range(8)
        for j in range(8)
    )
    assert hypervolume_2d(cloud, Point(0.0, 1.0)) == pytest.approx(cells / 64)


def test_a_point_beyond_the_reference_or_without_a_number_adds_no_area() -> None:
    reference = Point(0.5, 0.5)
    assert hypervolume_2d([Point(0.4, 0.0), Point(1.0, 0.6), NAN], reference) == 0
    assert hypervolume_2d([Point(1.0, 0.0), NAN], reference) == 0.25


eighths = st.integers(0, 8).map(lambda k: k / 8) | st.just(math.nan)
boxes = st.lists(st.builds(Point3, eighths, eighths, eighths), max_size=12)
WORST = Point3(0.0, 1.0, 1.0)


@given(boxes)
def test_the_volume_counts_the_dominated_cells(cloud: list[Point3]) -> None:
    cells = sum(
        any(p[0] >= (i + 1) / 8 and p[1] <= j / 8 and p[2] <= k / 8 for p in cloud)
        for i in range(8)
        for j in range(8)
        for k in range(8)
    )
    assert hypervolume_3d(cloud, WORST) == pytest.approx(cells / 512)


numbers = st.floats(0, 1, allow_subnormal=False)


@given(st.lists(st.builds(Point3, numbers, numbers, numbers), max_size=20))
def test_area_and_volume_are_those_of_a_library(cloud: list[Point3]) -> None:
    """Optuna's, which minimises everything."""
    from optuna._hypervolume import compute_hypervolume

    losses = np.array([[-p[0], p[1], p[2]] for p in cloud]).reshape(-1, 3)
    volume = compute_hypervolume(losses, np.array([0.0, 1.0, 1.0])) if cloud else 0.0
    assert hypervolume_3d(cloud, WORST) == pytest.approx(volume, abs=1e-9)
    area = compute_hypervolume(losses[:, :2], np.array([0.0, 1.0])) if cloud else 0.0
    flat = [Point(p[0], p[1]) for p in cloud]
    assert hypervolume_2d(flat, Point(0.0, 1.0)) == pytest.approx(area, abs=1e-9)


@given(points)
def test_the_hypervolume_grows_to_that_of_all(cloud: list[Point]) -> None:
    grown = hypervolume_growth(cloud, Point(0.0, 1.0))
    assert grown == sorted(grown)
    whole = hypervolume_2d(cloud, Point(0.0, 1.0))
    assert (grown[-1] if grown else 0.0) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.5])
def test_the_tries_that_show_a_rate_are_as_few_as_can_be(share: float) -> None:
    needed = tries_needed(share)
    assert needed is not None
    assert Rate.of(0, needed).high <= share < Rate.of(0, needed - 1).high


def test_no_number_of_tries_shows_that_nothing_can_succeed() -> None:
    assert tries_needed(0.0) is None
    assert tries_needed(0.01) == 381


@given(points)
def test_the_knee_lies_on_the_front(cloud: list[Point]) -> None:
    bend = knee(cloud)
    assert bend is None or bend in pareto_front(cloud)


@pytest.mark.parametrize(
    ("cloud", "expected"),
    [
        ([], None),
        ([Point(0.9, 0.1)], None),
        ([Point(0.9, 0.1), Point(0.9, 0.1)], None),
        ([Point(0.9, 0.1), Point(1.0, 0.8)], None),
        ([Point(0.9, 0.0), Point(0.98, 0.05), Point(1.0, 0.8)], 1),
        ([Point(0.9, 0.0), Point(0.92, 0.75), Point(1.0, 0.8)], None),  # bulges to the bad side
        ([Point(0.0, 0.0), Point(0.5, 0.5), Point(1.0, 1.0)], None),  # a straight line
    ],
)
def test_the_knee_is_where_the_front_bends_most(cloud: list[Point], expected: int | None) -> None:
    assert knee(cloud) == expected


def test_of_two_equal_bends_the_more_private_is_the_knee() -> None:
    assert knee([Point(0, 0), Point(0.75, 0.5), Point(0.5, 0.25), Point(1, 1)]) == 2


def test_a_failed_trial_has_no_point() -> None:
    assert all(map(math.isnan, point_of(fake_record(4))))
    assert point_of(fake_record(0)) == Point(399 / 400, 55 / 64)


def test_the_lowest_upper_bound_among_feasible_trials_is_recommended() -> None:
    records = fake_records()
    control = find_control(records)
    assert control is not None
    assert [r.index for r in feasible(records, control, GOAL)] == [2, 3, 5]
    choice = recommend(records, GOAL)
    assert choice.trial_id == records[5].trial_id
    assert "Of 3 trials" in choice.reason
    assert "at most 8.3 %" in choice.reason
    assert choice.nearest is None


def test_few_tries_earn_no_trust() -> None:
    """0 of 8 is a lower estimate than 1 of 64, but a higher bound."""
    few = _with(fake_record(3), attack=Rate.of(0, 8))
    many = _with(fake_record(5), attack=Rate.of(1, 64))
    goal = GoalSpec(max_accuracy_drop=0.03, max_attack_accuracy=0.5)
    assert recommend([fake_record(0), few, many], goal).trial_id == many.trial_id


def test_equal_bounds_are_decided_by_accuracy_then_inflation_then_order() -> None:
    control = fake_record(0)
    first, second, third = (
        _with(fake_record(i), attack=Rate.of(0, 64), clean=Rate.of(c, 400), inflation=f)
        for i, c, f in ((1, 395, 4.0), (2, 395, 2.0), (3, 390, 1.0))
    )
    assert recommend([control, first, second, third], GOAL).trial_id == second.trial_id
    twin = first.model_copy(update={"plan": second.plan})
    assert recommend([control, second, twin], GOAL).trial_id == first.trial_id


def test_a_goal_that_is_met_exactly_is_met() -> None:
    """1.0 - 0.97 is above 0.03 in binary."""
    control = _with(fake_record(0), clean=Rate.of(400, 400))
    exact = _with(fake_record(1), clean=Rate.of(388, 400), attack=Rate.of(4, 40))
    assert recommend([control, exact], GOAL).trial_id == exact.trial_id


@pytest.mark.parametrize(
    ("goal", "sentence"),
    [
        (
            GoalSpec(max_accuracy_drop=0.03, max_attack_accuracy=0.0),
            r"Trial 5 comes nearest: its worst attack reaches 1\.6 %, 1\.6 points above the goal",
        ),
        (
            GoalSpec(max_accuracy_drop=0.0, max_attack_accuracy=0.3),
            r"Trial 1 comes nearest: it costs 0\.3 points of clean accuracy, 0\.3 more than",
        ),
        (GoalSpec(max_accuracy_drop=0.0, max_attack_accuracy=0.0), r"reaches .* and it costs"),
    ],
)
def test_when_no_trial_is_good_enough_the_reason_says_by_how_much(
    goal: GoalSpec, sentence: str
) -> None:
    choice = recommend(fake_records(), goal)
    assert choice.trial_id is None
    assert choice.nearest is not None
    assert re.search(sentence, choice.reason)


def test_nothing_is_recommended_without_a_control_or_without_trials() -> None:
    records = fake_records()
    assert "control has no result" in recommend(records[1:], GOAL).reason
    assert "control has no result" in recommend([], GOAL).reason
    assert "No trial with a defence" in recommend([records[0], records[4]], GOAL).reason


def _with(
    record: TrialRecord,
    attack: Rate | None = None,
    clean: Rate | None = None,
    inflation: float | None = None,
) -> TrialRecord:
    """Return the record with one attack of this rate, this clean accuracy, this inflation."""
    update: dict[str, object] = {}
    if attack is not None:
        one = record.attacks[0].model_copy(update={"accuracy_at_1": attack})
        update["attacks"] = (one,)
    if clean is not None:
        update["clean_accuracy"] = Accuracy(overall=clean, targets=clean, bystanders=clean)
    if inflation is not None and record.plan is not None:
        update["plan"] = record.plan.model_copy(update={"inflation": inflation})
    return record.model_copy(update=update)
