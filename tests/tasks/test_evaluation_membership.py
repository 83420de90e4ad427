"""Membership by a threshold: what it finds, and that chance is chance."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.evaluation.membership import advantage, auc


def test_a_model_that_remembers_gives_its_images_away() -> None:
    members, others = np.array([0.9, 0.95, 1.0]), np.array([0.1, 0.2])
    assert auc(members, others) == 1.0
    assert advantage(members, others) == 1.0


def test_ties_are_chance() -> None:
    same = np.full(5, 0.7)
    assert auc(same, same) == 0.5
    assert advantage(same, same) == 0.0


def test_it_is_every_pair_and_the_best_threshold() -> None:
    generator = np.random.default_rng(0)
    members, others = generator.beta(4, 2, 60), generator.beta(2, 2, 40)
    pairs = members[:, None] > others[None, :]
    assert auc(members, others) == pytest.approx(float(pairs.mean()))
    edges = np.linspace(0, 1, 20_001)
    best = max(float((members >= t).mean() - (others >= t).mean()) for t in edges)
    assert advantage(members, others) == pytest.approx(best, abs=1e-6)
    assert advantage(others, members) < advantage(members, others)
