"""The sequential test: its errors, what it spends, and an interval that holds at every stop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluation.intervals import clopper_pearson
from tasks.evaluation.sequential import SequentialTest, anytime_interval

TEST = SequentialTest(0.1, 0.5, 0.05)


def test_clear_outcomes_end_it_early() -> None:
    assert TEST.first_verdict(np.ones(40, bool)) == ("exposed", 2)
    assert TEST.first_verdict(np.zeros(40, bool)) == ("protected", 6)
    assert TEST.first_verdict(np.array([True])) == ("undecided", 1)


@given(st.integers(0, 60), st.integers(1, 60))
def test_more_hits_never_speak_for_protected(hits: int, more: int) -> None:
    n = hits + more
    assert TEST.evidence(hits + 1, n) > TEST.evidence(hits, n)
    order = {"protected": 0, "undecided": 1, "exposed": 2}
    assert order[TEST.verdict(hits + 1, n)] >= order[TEST.verdict(hits, n)]


@pytest.mark.parametrize(("rate", "wrong"), [(0.1, "exposed"), (0.5, "protected")])
def test_the_error_is_at_most_what_was_asked(rate: float, wrong: str) -> None:
    curve = TEST.operating_curve(rate, 200)
    # Wald's bound is error / (1 - error).
    assert curve[wrong] <= 0.05 / 0.95  # type: ignore[index]
    assert curve["exposed"] + curve["protected"] + curve["undecided"] == pytest.approx(1)
    assert curve["used"] < 20


def test_the_curve_is_what_a_simulation_gives() -> None:
    rng = np.random.default_rng(0)
    said = [TEST.first_verdict(rng.random(40) < 0.3) for _ in range(4000)]
    curve = TEST.operating_curve(0.3, 40)
    share = np.mean([verdict == "exposed" for verdict, _ in said])
    assert share == pytest.approx(curve["exposed"], abs=0.03)
    assert np.mean([used for _, used in said]) == pytest.approx(curve["used"], rel=0.05)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_anytime_interval_holds_the_rate_and_is_wider_than_one_of_a_fixed_n(
    count: tuple[int, int],
) -> None:
    low, high = anytime_interval(*count)
    fixed_low, fixed_high = clopper_pearson(*count)
    assert 0 <= low <= fixed_low + 1e-9
    assert fixed_high - 1e-9 <= high <= 1
    assert low <= count[0] / count[1] <= high


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.8])
def test_the_anytime_interval_covers_whenever_one_stops(rate: float) -> None:
    rng = np.random.default_rng(1)
    ends = {(hits, n): anytime_interval(hits, n) for n in range(1, 61) for hits in range(n + 1)}
    missed = 0
    for _ in range(1000):
        hits = np.cumsum(rng.random(60) < rate)
        missed += any(
            not ends[int(h), n][0] <= rate <= ends[int(h), n][1] for n, h in enumerate(hits, 1)
        )
    assert missed <= 65  # 5 % of 1000, and three standard deviations


def test_nothing_seen_says_nothing() -> None:
    assert anytime_interval(0, 0) == (0.0, 1.0)
    assert TEST.verdict(0, 0) == "undecided"
