"""Intervals over reconstructions, targets and seeds: do they cover what they say?"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from tasks.draws import Draws
from tasks.evaluation.intervals import (
    clopper_pearson,
    cluster_mean,
    cluster_rate,
    over_seeds,
    resampled_means,
    worst_target,
)

counts = st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def correlated(rng: np.random.Generator, targets: int, each: int) -> np.ndarray:
    """Each target has a rate of its own, Beta(0.6, 0.9): mean 0.4, often near all or none."""
    rates = rng.beta(0.6, 0.9, targets)
    return np.asarray(rng.random((targets, each)) < rates[:, None])


def wilson(successes: int, n: int) -> tuple[float, float]:
    interval = binomtest(successes, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


@given(counts)
def test_clopper_pearson_is_scipys(count: tuple[int, int]) -> None:
    interval = binomtest(*count).proportion_ci(method="exact")
    assert clopper_pearson(*count) == pytest.approx((interval.low, interval.high), abs=1e-9)


def test_the_cluster_interval_covers_where_wilson_does_not() -> None:
    rng = np.random.default_rng(7)
    ours = theirs = 0
    worlds = 400
    for i in range(worlds):
        hits = correlated(rng, targets=12, each=8)
        found = cluster_rate(hits, Draws(i))
        low, high = wilson(int(hits.sum()), hits.size)
        ours += found.low <= 0.4 <= found.high
        theirs += low <= 0.4 <= high
    assert ours / worlds >= 0.90
    assert theirs / worlds < 0.75


def test_it_is_not_needlessly_wide_where_nothing_is_correlated() -> None:
    rng = np.random.default_rng(3)
    widths, plain, covered = [], [], 0
    for i in range(150):
        hits = rng.random((20, 8)) < 0.4
        found = cluster_rate(hits, Draws(i))
        low, high = wilson(int(hits.sum()), hits.size)
        widths.append(found.high - found.low)
        plain.append(high - low)
        covered += found.low <= 0.4 <= found.high
    assert covered / 150 >= 0.92
    assert np.mean(widths) < 1.8 * np.mean(plain)


def test_no_hit_at_all_counts_a_target_once() -> None:
    found = cluster_rate(np.zeros((8, 50), bool), Draws(0))
    assert found.method == "clopper-pearson over targets"
    assert found.low == 0.0
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 8))
    every = cluster_rate(np.ones((8, 50), bool), Draws(0))
    assert every.high == 1.0
    assert every.low == pytest.approx(0.025 ** (1 / 8))


def test_draws_belong_to_rounds_and_pairs_stay_paired() -> None:
    values = np.random.default_rng(0).random((5, 4))
    few, many = (resampled_means(values, Draws(1), rounds) for rounds in (10, 300))
    assert np.array_equal(few, many[:10])
    assert resampled_means(values + 2, Draws(1), 10) == pytest.approx(few + 2)
    assert not np.array_equal(resampled_means(values, Draws(2), 10), few)


def test_many_targets_are_resampled_in_parts_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(0).random((6, 3))
    whole = cluster_mean(values, Draws(0), rounds=100)
    monkeypatch.setattr("tasks.evaluation.intervals._AT_ONCE", 40)
    assert cluster_mean(values, Draws(0), rounds=100) == whole


def test_one_target_says_nothing_of_others() -> None:
    found = cluster_rate(np.array([[True, False, True]]), Draws(0))
    assert (found.low, found.high) == (0.0, 1.0)
    assert math.isinf(cluster_mean(np.array([[1.0, 2.0]]), Draws(0)).high)


def test_the_worst_target_is_covered_although_it_was_chosen() -> None:
    """All targets alike at 0.3: the worst of 20 looks far worse, and its own interval is fooled."""
    rng = np.random.default_rng(11)
    ours = naive = 0
    for _ in range(400):
        hits = rng.random((20, 8)) < 0.3
        found = worst_target(hits)
        assert found.value == hits.mean(axis=1).max()
        ours += found.low <= 0.3 <= found.high
        low, high = clopper_pearson(round(found.value * 8), 8)
        naive += low <= 0.3 <= high
    assert ours / 400 >= 0.95
    assert naive / 400 < 0.85


def test_the_worst_targets_upper_end_is_above_that_of_one_target_alone() -> None:
    hits = np.zeros((10, 8), bool)
    assert worst_target(hits).high > clopper_pearson(0, 8)[1]
    assert worst_target(hits[:1]).high == pytest.approx(clopper_pearson(0, 8)[1])


def test_seeds_have_students_interval() -> None:
    found = over_seeds(np.array([0.1, 0.2, 0.3]))
    assert found.value == pytest.approx(0.2)
    assert found.n == 3
    assert found.high - found.value == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-5)
    assert found.low == 0
    alone = over_seeds(np.array([0.4]))
    assert (alone.low, alone.high) == (0, 1)
