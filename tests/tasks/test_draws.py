"""Keyed draws: a function of seed, names and id, whatever else is drawn beside it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tasks.draws import Draws, keyed_bits, keyed_shuffle


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=30), st.integers(1, 9))
def test_a_draw_depends_on_its_id_alone(ids: list[int], count: int) -> None:
    draws = Draws(3, ("x",))
    together = draws.uniform(np.array(ids), count)
    alone = np.concatenate([draws.uniform(np.array([i]), count) for i in ids])
    assert np.array_equal(together, alone)
    assert np.array_equal(draws.uniform(np.array(ids), count + 3)[:, :count], together)


def test_seeds_names_and_ids_give_other_draws() -> None:
    ids = np.arange(1000)
    sources = [Draws(0), Draws(1), Draws(0, ("a",)), Draws(0, ("a", 1)), Draws(0).child("b")]
    bits = np.concatenate([source.bits(ids, 2).ravel() for source in sources])
    assert len(np.unique(bits)) == len(bits)


def test_uniform_and_normal_have_their_moments() -> None:
    u = Draws(5).uniform(np.arange(20_000), 10)
    g = Draws(5).normal(np.arange(20_000), 9)
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 0.003
    assert abs(u.var() - 1 / 12) < 0.001
    assert g.shape == (20_000, 9)
    assert abs(g.mean()) < 0.01
    assert abs(g.std() - 1) < 0.01
    assert abs((g**4).mean() - 3) < 0.1
    assert abs(np.corrcoef(u[:, 0], u[:, 1])[0, 1]) < 0.03


def test_integers_cover_the_range() -> None:
    found = Draws(1).integers(np.arange(500), 3, 8)
    assert set(found.ravel().tolist()) == {3, 4, 5, 6, 7}


def test_generator_is_keyed() -> None:
    a, b, c = (Draws(1).generator(i).random() for i in (0, 0, 1))
    assert a == b != c


def test_keyed_bits_are_the_draws_of_each_rows_own_source() -> None:
    sources = [Draws(4, ("a",)), Draws(4, ("b",))]
    keys = np.array([source.key for source in sources], dtype=np.uint64)
    ids = np.array([7, 7])
    expected = [source.bits(ids[:1])[0, 0] for source in sources]
    assert keyed_bits(keys, ids).tolist() == expected


@given(st.integers(1, 300), st.integers(0, 2**64 - 1), st.integers(1, 10**6))
def test_keyed_shuffle_is_a_permutation_and_nobody_elses_business(
    size: int, key: int, other: int
) -> None:
    keys = np.full(size, key, dtype=np.uint64)
    alone = keyed_shuffle(keys, np.arange(size), np.full(size, size))
    assert sorted(alone.tolist()) == list(range(size))
    beside = keyed_shuffle(
        np.append(keys, np.uint64(1)),
        np.append(np.arange(size), 0),
        np.append(np.full(size, size), other),
    )
    assert np.array_equal(beside[:-1], alone)


def test_keyed_shuffle_puts_every_card_everywhere() -> None:
    keys = Draws(0).bits(np.arange(20_000))[:, 0]
    first = keyed_shuffle(keys, np.zeros(20_000, np.int64), np.full(20_000, 10))
    second = keyed_shuffle(keys, np.ones(20_000, np.int64), np.full(20_000, 10))
    pairs = np.bincount(first * 10 + second, minlength=100).reshape(10, 10)
    assert np.all(np.diag(pairs) == 0)
    off = pairs[~np.eye(10, dtype=bool)]
    assert abs(off.mean() - 222.2) < 1
    assert np.sum((off - off.mean()) ** 2 / off.mean()) < 140  # chi-square, 89 degrees of freedom
