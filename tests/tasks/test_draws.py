"""Keyed draws: a function of seed, names and id, whatever else is drawn beside it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tasks.draws import Draws


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
