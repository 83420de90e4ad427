"""A stratified sample of targets, and bounds for those that were not attacked."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.draws import Draws
from tasks.errors import SpecError
from tasks.evaluation.sampling import (
    TargetSample,
    allocate,
    estimate_all,
    exposed_bound,
    sample_targets,
)

strata = st.lists(st.sampled_from("abc"), min_size=3, max_size=40)


@given(strata, st.integers(3, 40), st.integers(0, 5))
def test_every_stratum_is_represented_and_nobody_comes_twice(
    names: list[str], count: int, seed: int
) -> None:
    sample = sample_targets(names, list(range(len(names))), count, Draws(seed))
    assert len(sample.chosen) == min(count, len(names)) == len(set(sample.chosen))
    assert {names[i] for i in sample.chosen} == set(names)
    assert sum(sample.sizes) == len(names)
    assert all(1 <= d <= s for d, s in zip(sample.drawn, sample.sizes, strict=True))
    assert sample == sample_targets(names, list(range(len(names))), count, Draws(seed))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(0, 60))
def test_allocation_is_in_proportion_beyond_the_first(sizes: list[int], more: int) -> None:
    count = min(len(sizes) + more, sum(sizes))
    drawn = allocate(sizes, count)
    assert sum(drawn) == count
    for (a, x), (b, y) in itertools.permutations(zip(sizes, drawn, strict=True), 2):
        if a > b:
            assert x >= y


def test_another_seed_draws_others_and_a_new_target_moves_few() -> None:
    labels = list(range(30))
    first = sample_targets(["a"] * 30, labels, 10, Draws(0)).chosen
    assert first != sample_targets(["a"] * 30, labels, 10, Draws(1)).chosen
    grown = sample_targets(["a"] * 31, [*labels, 99], 10, Draws(0)).chosen
    assert len(set(first) - set(grown)) <= 1


def test_too_many_strata_are_refused() -> None:
    with pytest.raises(SpecError, match="sample_targets=2 cannot represent 3 strata"):
        sample_targets(["a", "b", "c", "a"], [0, 1, 2, 3], 2, Draws(0))


def lower_tail(
    sizes: tuple[int, ...], drawn: tuple[int, ...], ks: tuple[int, ...], t: int
) -> float:
    """P(T <= t) by convolution of hypergeometric distributions in whole numbers."""
    total = np.array([1.0])
    for size, n, k in zip(sizes, drawn, ks, strict=True):
        ways = [math.comb(k, x) * math.comb(size - k, n - x) for x in range(n + 1)]
        total = np.convolve(total, np.array(ways) / math.comb(size, n))
    return float(total[: t + 1].sum())


def every_bound(sizes: tuple[int, ...], drawn: tuple[int, ...]) -> list[int]:
    """The bound for each number of exposed targets in the sample."""
    stratum = tuple(h for h, n in enumerate(drawn) for _ in range(n))
    sample = TargetSample(tuple(range(len(stratum))), stratum, sizes)
    n = len(stratum)
    return [exposed_bound(np.arange(n) < hit, sample) for hit in range(n + 1)]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=3).flatmap(
        lambda sizes: st.tuples(
            st.just(tuple(sizes)), st.tuples(*(st.integers(1, size) for size in sizes))
        )
    )
)
def test_the_bound_holds_in_95_of_100_samples_however_the_exposed_are_spread(
    world: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    sizes, drawn = world
    bounds = every_bound(sizes, drawn)
    assert bounds == sorted(bounds)
    for ks in itertools.product(*(range(size + 1) for size in sizes)):
        missed = [t for t, bound in enumerate(bounds) if bound < sum(ks)]
        if missed:  # the bounds rise with t: the sample misses where T is at most the last of them
            assert lower_tail(sizes, drawn, ks, max(missed)) <= 0.05 + 1e-9


@pytest.mark.parametrize(("sizes", "drawn"), [((12,), (5,)), ((4, 6, 5), (2, 2, 1))])
def test_with_none_exposed_the_bound_is_as_small_as_it_can_be(
    sizes: tuple[int, ...], drawn: tuple[int, ...]
) -> None:
    likely = [
        sum(ks)
        for ks in itertools.product(*(range(size + 1) for size in sizes))
        if lower_tail(sizes, drawn, ks, 0) > 0.05
    ]
    assert every_bound(sizes, drawn)[0] == max(likely)


def test_all_of_a_fleet_leaves_nothing_open() -> None:
    assert every_bound((4, 3), (4, 3)) == list(range(8))


def test_none_of_sixty_of_a_thousand() -> None:
    bound = every_bound((1000,), (60,))[0]
    assert 40 < bound < 50  # the rule of three says 50; a finite fleet knows a little more
    four = every_bound((250, 250, 250, 250), (15, 15, 15, 15))[0]
    assert bound <= four <= bound + 3


def test_the_estimate_weighs_strata_by_their_size() -> None:
    sample = TargetSample((0, 1, 2), (0, 0, 1), (90, 10))
    found = estimate_all(np.array([0.2, 0.4, 1.0]), sample, Draws(0))
    assert found.value == pytest.approx(0.9 * 0.3 + 0.1 * 1.0)
    assert found.low <= found.value <= found.high


def test_where_all_are_alike_the_bound_is_the_interval() -> None:
    sample = sample_targets(["a"] * 900 + ["b"] * 100, list(range(1000)), 60, Draws(0))
    none = estimate_all(np.zeros(60), sample, Draws(0))
    assert (none.value, none.low) == (0, 0)
    assert none.high == exposed_bound(np.zeros(60, bool), sample) / 1000
    assert 0.04 < none.high < 0.06
    every = estimate_all(np.ones(60), sample, Draws(0))
    assert every.low == pytest.approx(1 - none.high)
    assert every.high == 1


def test_the_estimate_covers_the_mean_of_all() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for i in range(200):
        names = ["a"] * 150 + ["b"] * 50
        rates = np.where(np.array(names) == "a", rng.beta(1, 8, 200), rng.beta(3, 3, 200))
        sample = sample_targets(names, list(range(200)), 40, Draws(i))
        found = estimate_all(rates[list(sample.chosen)], sample, Draws(i))
        covered += found.low <= rates.mean() <= found.high
    assert covered / 200 >= 0.9
