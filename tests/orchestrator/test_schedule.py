"""The scheduler under a simulated clock: near the bound, within the budget, nothing lost."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scale import MIXED, SPOT, lengths_of
from orchestrator.budget import HOUR
from orchestrator.fleet_model import Fleet, Model
from orchestrator.schedule import Place, fastest

FLEETS = st.builds(
    Fleet,
    nodes=st.integers(1, 6),
    slots=st.integers(1, 3),
    speeds=st.sampled_from([(1.0,), MIXED, (0.2, 3.0)]),
    start_s=st.sampled_from([(0.0, 0.0), (10.0, 300.0)]),
    preempt_s=st.sampled_from([math.inf, 4 * HOUR]),
    lost=st.sampled_from([0.0, 0.1]),
)


@settings(deadline=None, max_examples=60)
@given(FLEETS, st.integers(1, 60), st.none() | st.integers(1, 8), st.integers(0, 99))
def test_every_trial_ends_once_and_never_before_the_bound(
    fleet: Fleet, trials: int, lookahead: int | None, seed: int
) -> None:
    lengths = lengths_of(trials, 300, 0.5, seed)
    found = Model(lengths, fleet, lookahead=lookahead, seed=seed).run()
    assert found.ended == trials
    assert len(found.starts) == trials + found.lost
    assert found.makespan_s >= found.bound_s * (1 - 1e-9)


@settings(deadline=None, max_examples=60)
@given(
    FLEETS,
    st.integers(1, 60),
    st.floats(0.01, 8),
    st.none() | st.floats(50, 1000),
    st.integers(0, 99),
)
def test_a_budget_is_passed_by_one_lease_at_most_whatever_the_fleet_does(
    fleet: Fleet, trials: int, limit: float, expected: float | None, seed: int
) -> None:
    lengths = lengths_of(trials, 300, 0.8, seed)
    found = Model(lengths, fleet, limit_hours=limit, expected_s=expected, seed=seed).run()
    second = fleet.nodes * fleet.slots / HOUR
    assert found.spent_hours <= limit + found.largest_hours + second


def test_a_search_waits_for_what_its_settings_depend_on() -> None:
    found = Model(lengths_of(60, 300, 0.3), Fleet(50), lookahead=4).run()
    began = {trial: at for at, trial, _ in found.starts}
    assert found.ratio < 1.05
    assert all(began[i] < began[i + 5] for i in range(8, 55))


def test_a_thousand_nodes_are_used_to_within_15_percent_of_the_bound() -> None:
    """Preempted every half day on average; 20 trials a slot. docs/scale.md has the other cases."""
    fleet = Fleet(1000, speeds=MIXED, preempt_s=12 * HOUR, **SPOT)
    found = Model(lengths_of(20_000, 600, 0.3), fleet).run()
    assert found.ended == 20_000
    assert found.lost > 100
    assert 1 <= found.ratio <= 1.15


def test_what_a_slow_node_would_finish_last_is_left_to_faster_ones() -> None:
    slow, fast = Place("slow", 1, 0.5, 1), Place("fast", 0, 1.0, 1)
    places = [slow, *[Place(f"fast-{i}", 0, 1.0, 1) for i in range(4)]]
    assert fastest(places, 1) == slow
    assert fastest(places, 1, waiting=100) == slow
    assert fastest(places, 1, waiting=1) is None  # a fast one is done in 1.25 lengths, not in 2
    assert fastest([slow, fast], 1, waiting=1) == slow  # it has to wait a whole length first
    assert fastest([slow], 1, waiting=1) == slow


def test_a_lost_lease_is_run_again_first() -> None:
    fleet = Fleet(1, lost=0.5, first_s=0, next_s=0, decide_s=0)
    found = Model([10.0] * 20, fleet, seed=3).run()
    order = [trial for _, trial, _ in found.starts]
    assert order == sorted(order)
    assert found.lost == len(order) - 20 > 0
    assert found.spent_hours == pytest.approx((200 + found.lost * 70) / HOUR)
