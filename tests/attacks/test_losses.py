"""Losses, views, the L1 ball and what LOMMA adds, each against a case worked out apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from attacks.candidates import best_first, turned_views
from attacks.if_gmi import into_l1_ball
from attacks.losses import LOSSES, level, logit, max_margin, poincare
from attacks.objective import Objective, mean_features
from attacks.spec import GmiSpec
from attacks.students import distil
from tasks.classifiers import CountingClassifier, TorchClassifier
from tasks.draws import Draws
from tests.attacks.toy import SIZE, ToyWorld

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 3.5]])
LABELS = torch.tensor([0, 1])


def test_margin_and_logit_are_what_their_papers_say() -> None:
    assert torch.allclose(max_margin(LOGITS, LABELS), torch.tensor([0.5 - 2.0, 3.5 - 3.0]))
    assert torch.allclose(logit(LOGITS, LABELS), torch.tensor([-2.0, -3.0]))


def test_the_poincare_distance_is_that_of_the_formula() -> None:
    u = np.array([2.0, -1.0, 0.5]) / 3.5
    v = np.array([0.9999, 0.0, 0.0])
    expected = math.acosh(1 + 2 * ((u - v) ** 2).sum() / ((1 - (u**2).sum()) * (1 - (v**2).sum())))
    assert float(poincare(LOGITS, LABELS)[0]) == pytest.approx(expected, rel=1e-3)


def test_level_is_lowest_where_the_profile_is_met() -> None:
    met = torch.tensor([[0.45, 0.275, 0.275]]).log()
    assert float(level(met, LABELS[:1], 0.45)) == pytest.approx(0, abs=1e-6)
    uneven = torch.tensor([[0.45, 0.5, 0.05]]).log()
    sure = torch.tensor([[0.98, 0.01, 0.01]]).log()
    assert float(level(uneven, LABELS[:1], 0.45)) > 0.1
    assert float(level(sure, LABELS[:1], 0.45)) > 0.1


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_falls_as_the_target_rises(name: str) -> None:
    higher = LOGITS + functional.one_hot(LABELS, 3)
    assert torch.all(LOSSES[name](higher, LABELS) < LOSSES[name](LOGITS, LABELS))


@given(st.integers(0, 2**31), st.floats(0.01, 20), st.integers(1, 12))
def test_the_ball_holds_its_points_and_moves_the_others_to_the_nearest(
    seed: int, radius: float, size: int
) -> None:
    generator = np.random.default_rng(seed)
    values = torch.from_numpy(generator.normal(0, 3, (4, size)))
    found = into_l1_ball(values, radius)
    norm = values.abs().sum(1)
    assert torch.all(found.abs().sum(1) <= radius * (1 + 1e-9) + 1e-9)
    inside = norm <= radius
    assert torch.allclose(found[inside], values[inside])
    # Nearest: no other point of the ball is nearer.
    other = torch.from_numpy(generator.normal(0, 1, (4, size)))
    other = other / other.abs().sum(1, keepdim=True) * radius * generator.uniform(0, 1)
    assert torch.all((values - found).square().sum(1) <= (values - other).square().sum(1) + 1e-9)


def test_views_without_any_change_are_the_image() -> None:
    images = torch.rand(2, 3, 8, 8)
    still = np.array([[1.0, 0.5, 0.5, 0.5, 0.9, 0.5]] * 2)
    assert torch.allclose(turned_views(images, still), images, atol=1e-5)
    mirrored = np.array([[1.0, 0.5, 0.5, 0.5, 0.1, 0.5]] * 2)
    assert torch.allclose(turned_views(images, mirrored), images.flip(3), atol=1e-5)


def test_best_first_keeps_order_among_equals() -> None:
    values, rows = best_first(torch.tensor([1.0, 3.0, 3.0, 5.0, 5.0, 0.0]), 2, 2)
    assert values.tolist() == [[3, 3], [5, 5]]
    assert rows.tolist() == [[1, 2], [3, 4]]


def test_views_average_and_students_share_the_loss() -> None:
    toy = ToyWorld.make()
    classifier = CountingClassifier(TorchClassifier(toy.module, 4, SIZE))
    images = torch.rand(3, 3, SIZE, SIZE)
    labels, ids = torch.tensor([0, 1, 2]), np.arange(3)
    plain = Objective(GmiSpec(), classifier, toy.prior, Draws(0))(images, labels, ids, 0)
    flat = images.mean(dim=(2, 3), keepdim=True).expand_as(images)  # views change nothing
    averaged = Objective(GmiSpec(views=3), classifier, toy.prior, Draws(0))
    assert torch.allclose(averaged(flat, labels, ids, 0), plain, atol=1e-4)
    taught = Objective(
        GmiSpec(students=("small-vgg",), student_steps=2), classifier, toy.prior, Draws(0)
    )
    student = functional.cross_entropy(taught.students[0].logits(images), labels, reduction="none")
    assert torch.allclose(taught(images, labels, ids, 0), (plain + student) / 2, atol=1e-4)


def test_features_pull_towards_the_publics_mean() -> None:
    toy = ToyWorld.make()
    classifier = TorchClassifier(toy.module, 4, SIZE)
    mean = mean_features(classifier, toy.prior, Draws(0))
    images = torch.rand(2, 3, SIZE, SIZE)
    labels, ids = torch.tensor([0, 1]), np.arange(2)
    draws = Draws(0)
    with_features = Objective(GmiSpec(feature_weight=2.0), classifier, toy.prior, draws)
    without = Objective(GmiSpec(), classifier, toy.prior, draws)(images, labels, ids, 0)
    expected_mean = mean_features(classifier, toy.prior, draws.child("public"))
    gap = (classifier.embed(images)[1] - expected_mean).square().mean(1)
    assert torch.allclose(with_features(images, labels, ids, 0), without + 2 * gap, atol=1e-4)
    assert mean.shape == (3,)


def test_a_student_learns_what_the_classifier_says() -> None:
    toy = ToyWorld.make()
    classifier = TorchClassifier(toy.module, 4, SIZE)
    before, after = (
        distil(classifier, toy.prior, ("small-vgg",), steps, Draws(0))[0] for steps in (1, 60)
    )
    z = torch.from_numpy(Draws(5).normal(np.arange(200), 6)).float()
    images = toy.prior.synthesize(toy.prior.map(z)) / 2 + 0.5
    said = classifier.labels(images)
    share = [float((student.labels(images) == said).float().mean()) for student in (before, after)]
    assert share[1] > max(0.5, share[0])
