"""Assignment: the exact greedy answer where a pool is small, bounded and whole where it is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augment import assignment
from augment.assignment import Seats, assign, distinct_rows
from augment.leaves import LEAF, Vectors, make_leaves
from tasks.draws import U64, Draws
from tasks.errors import SurrogateError


def keys_of(names: list[int]) -> U64:
    return np.array([Draws(3, ("target", name)).key for name in names], dtype=np.uint64)


def brute_force(
    wishes: list[list[int]], offers: list[list[int]], names: list[int], seats: Seats
) -> list[list[int]] | None:
    """Serve everyone by looking at everyone, in whole numbers; None where someone is stuck."""
    load = [0] * len(offers)
    chosen: list[list[int]] = [[] for _ in wishes]
    for _ in range(seats.per_target):
        for i, wish in enumerate(wishes):
            draws = Draws(3, ("target", names[i]))
            ranked = []
            for j, offer in enumerate(offers):
                if load[j] < seats.per_surrogate and j not in chosen[i]:
                    score = sum(a * b for a, b in zip(wish, offer, strict=True))
                    ranked.append((score, float(draws.uniform(np.array([j]))[0, 0]), -j))
            if not ranked:
                return None
            best = -max(ranked)[2]
            load[best] += 1
            chosen[i].append(best)
    return chosen


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]], Seats]:
    """Small whole numbers, so that ties and identities with the same offer are common."""
    width = draw(st.integers(1, 4))
    value = st.integers(-2, 2) if draw(st.booleans()) else st.integers(-300, 300)
    vector = st.lists(value, min_size=width, max_size=width)
    wishes = draw(st.lists(vector, min_size=1, max_size=12))
    seats = Seats(draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    least = seats.least_pool(len(wishes))
    offers = draw(st.lists(vector, min_size=least, max_size=least + 8))
    return wishes, offers, seats


def array(rows: list[list[int]]) -> Vectors:
    return np.array(rows, dtype=np.float32)


@given(worlds())
@settings(max_examples=150, deadline=None)
def test_a_small_pool_gets_the_exact_greedy_answer(
    world: tuple[list[list[int]], list[list[int]], Seats],
) -> None:
    wishes, offers, seats = world
    names = list(range(len(wishes)))
    found = assign(array(wishes), array(offers), keys_of(names), seats, 0)
    expected = brute_force(wishes, offers, names, seats)
    if expected is not None:  # else two targets had to swap, and the next test judges
        assert found.tolist() == expected


@given(worlds(), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_everyone_is_served_by_different_people_and_nobody_serves_too_many(
    world: tuple[list[list[int]], list[list[int]], Seats], seed: int
) -> None:
    wishes, offers, seats = world
    keys = keys_of(list(range(len(wishes))))
    found = assign(array(wishes), array(offers), keys, seats, seed)
    assert found.shape == (len(wishes), seats.per_target)
    assert found.min() >= 0
    assert all(len(set(row)) == len(row) for row in found.tolist())
    assert np.bincount(found.ravel()).max() <= seats.per_surrogate
    assert np.array_equal(found, assign(array(wishes), array(offers), keys, seats, seed))


def test_two_targets_swap_where_one_of_them_would_be_stuck() -> None:
    # The first two fill 0 and then 1; 2 is free, but the last target has it from its first turn.
    wishes, offers = [[1], [1], [-1]], [[3], [2], [-9]]
    assert brute_force(wishes, offers, [0, 1, 2], Seats(2, 2)) is None
    found = assign(array(wishes), array(offers), keys_of([0, 1, 2]), Seats(2, 2), 0)
    assert found.tolist() == [[0, 1], [0, 2], [2, 1]]


def test_a_pool_of_many_leaves_is_exact_where_the_boxes_rule_the_rest_out() -> None:
    rng = np.random.default_rng(1)
    offers = rng.permutation(40 * LEAF)[:, None].astype(np.float32)
    up = rng.random(3000) < 0.5
    wishes = np.where(up, 1, -1)[:, None].astype(np.float32)
    found = assign(wishes, offers, keys_of(list(range(3000))), Seats(), 0)[:, 0]
    assert offers[found[up], 0].tolist() == list(range(40 * LEAF - 1, 40 * LEAF - 1 - up.sum(), -1))
    assert offers[found[~up], 0].tolist() == list(range((~up).sum()))


def test_probes_lose_little_against_looking_at_everyone(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    points = rng.normal(0, 100, (2, 4000, 16)).round().astype(np.float32)
    ones = np.ones((4000, 1), np.float32)
    wishes = np.concatenate([-2 * points[0], ones], axis=1)
    offers = np.concatenate([points[1], (points[1] ** 2).sum(axis=1, keepdims=True)], axis=1)

    def mean_distance() -> float:
        found = assign(wishes, offers, keys_of(list(range(4000))), Seats(), 0)[:, 0]
        assert len(set(found.tolist())) == 4000
        return float(np.linalg.norm(points[0] - points[1][found], axis=1).mean())

    monkeypatch.setattr(assignment, "PROBES", 2)
    probed = mean_distance()
    monkeypatch.setattr(assignment, "PROBES", 10**6)
    exact = mean_distance()
    anyone = float(np.linalg.norm(points[0] - points[1], axis=1).mean())
    assert anyone < probed
    assert exact - probed < 0.1 * (exact - anyone)


def test_the_block_size_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    wishes, offers = (rng.integers(-40, 40, (1500, 6)).astype(np.float32) for _ in range(2))
    keys = keys_of(list(range(1500)))
    found = []
    for chunk in (512, 1500):
        monkeypatch.setattr(assignment, "_CHUNK", chunk)
        found.append(assign(wishes, offers, keys, Seats(1, 2), 0))
    assert np.array_equal(found[0], found[1])


def test_leaves_hold_everyone_once_and_their_boxes_hold_them() -> None:
    rng = np.random.default_rng(4)
    vectors = rng.integers(-9, 9, (3000, 5)).astype(np.float32)
    ids = np.arange(0, 3000, 2)
    leaves = make_leaves(vectors, ids, np.ones(5))
    assert sorted(leaves.ids.tolist()) == ids.tolist()
    assert max(e - s for s, e in zip(leaves.starts, leaves.ends, strict=True)) <= LEAF
    wish = rng.integers(-3, 4, (7, 5)).astype(np.float32)
    bounds = leaves.bounds(wish)
    for leaf, (start, end) in enumerate(zip(leaves.starts, leaves.ends, strict=True)):
        assert (leaves.vectors[start:end] @ wish.T <= bounds[:, leaf]).all()


def test_equal_rows_get_one_number() -> None:
    rows = array([[1, 2], [2, 1], [1, 2], [-1, 0]])
    number, example = distinct_rows(rows)
    assert number[0] == number[2]
    assert len(set(number.tolist())) == 3
    assert np.array_equal(rows[example[number]], rows)


@pytest.mark.parametrize(
    ("seats", "pool", "sentence"),
    [
        (Seats(), 2, "3 targets but only 2 surrogate identities; protect fewer"),
        (Seats(2, 1), 5, "3 targets, 2 for each, but only 5 surrogate identities;"),
        (Seats(1, 2), 1, "only 1 surrogate identities that serve at most 2 targets each; protect"),
        (Seats(4, 9), 3, "3 targets, 4 for each, but only 3 .*raise protect.max_targets"),
    ],
)
def test_a_pool_that_is_too_small_is_refused(seats: Seats, pool: int, sentence: str) -> None:
    with pytest.raises(SurrogateError, match=sentence):
        assign(array([[1]] * 3), array([[1]] * pool), keys_of([0, 1, 2]), seats, 0)


def test_no_target_needs_no_pool() -> None:
    empty = np.empty((0, 1), np.float32)
    assert assign(empty, empty, keys_of([]), Seats(), 0).shape == (0, 1)
