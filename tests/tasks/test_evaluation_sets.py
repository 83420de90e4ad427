"""Distances between images and between sets of images, each against a second way to compute it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from tasks.evaluation.distances import distances, squared_distances
from tasks.evaluation.frechet import fid, kid
from tasks.evaluation.neighbours import prdc, prdc_by_class


def normal(*shape: int, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, shape)


def test_distances_are_those_of_a_double_loop() -> None:
    fake, real = normal(5, 3, seed=1), normal(7, 3, seed=2)
    each = np.array([[((f - r) ** 2).sum() for r in real] for f in fake])
    found = distances(fake, real)
    assert squared_distances(fake, real) == pytest.approx(each)
    assert found.nearest == pytest.approx(each.min(axis=1))
    assert found.mean == pytest.approx(each.mean(axis=1))
    centre = real.mean(axis=0)
    assert found.centre == pytest.approx([((f - centre) ** 2).sum() for f in fake])


def test_a_copy_is_at_distance_zero_far_from_the_origin_too() -> None:
    real = normal(6, 4) + 1e6
    assert distances(real[2:3], real).nearest == pytest.approx(0, abs=1e-6)


def test_fid_is_that_of_the_matrix_root() -> None:
    mix = normal(4, 4, seed=3)
    real, fake = normal(60, 4, seed=4), normal(50, 4, seed=5, shift=0.7) @ mix
    c_real, c_fake = np.cov(real.T), np.cov(fake.T)
    root = scipy.linalg.sqrtm(c_real @ c_fake).real
    shift = ((real.mean(0) - fake.mean(0)) ** 2).sum()
    expected = shift + np.trace(c_real + c_fake - 2 * root)
    assert fid(real, fake) == pytest.approx(expected, rel=1e-6)
    assert fid(real, real) == pytest.approx(0, abs=1e-8)


def test_fid_of_two_known_normals_in_one_dimension() -> None:
    """(m1 - m2)^2 + (s1 - s2)^2, at the moments of the samples themselves."""
    real, fake = normal(500, 1), 3 * normal(400, 1, seed=1) + 2
    gap = (real.mean() - fake.mean()) ** 2 + (real.std(ddof=1) - fake.std(ddof=1)) ** 2
    assert fid(real, fake) == pytest.approx(gap)


def test_there_is_no_fid_of_too_few_images() -> None:
    assert fid(normal(9, 8), normal(8, 8)) is None
    assert fid(normal(9, 8), normal(9, 8)) is not None


def test_kid_is_that_of_a_double_loop_without_the_diagonal() -> None:
    real, fake = normal(5, 3, seed=1), normal(4, 3, seed=2, shift=1)

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 3 + 1) ** 3)

    rr = np.mean([kernel(real[i], real[j]) for i in range(5) for j in range(5) if i != j])
    ff = np.mean([kernel(fake[i], fake[j]) for i in range(4) for j in range(4) if i != j])
    rf = np.mean([kernel(r, f) for r in real for f in fake])
    assert kid(real, fake) == pytest.approx(rr + ff - 2 * rf)
    assert kid(real, fake[:1]) is None


def test_kid_of_one_distribution_has_mean_zero_whatever_the_counts() -> None:
    found = [kid(normal(30, 4, seed=2 * i), normal(8, 4, seed=2 * i + 1)) for i in range(300)]
    values = np.array(found, dtype=float)
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(300)


def slow_prdc(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """The four definitions, written out one point at a time."""

    def radius(points: np.ndarray, i: int) -> float:
        others = [np.linalg.norm(points[i] - p) for j, p in enumerate(points) if j != i]
        return float(sorted(others)[k - 1])

    inside = np.array(
        [[np.linalg.norm(f - r) <= radius(real, i) for i, r in enumerate(real)] for f in fake]
    )
    other = np.array(
        [[np.linalg.norm(f - r) <= radius(fake, j) for r in real] for j, f in enumerate(fake)]
    )
    return (
        float(inside.any(1).mean()),
        float(other.any(0).mean()),
        float(inside.sum() / (k * len(fake))),
        float(inside.any(0).mean()),
    )


@pytest.mark.parametrize(("n", "m", "k"), [(12, 9, 3), (9, 14, 2), (6, 6, 5)])
def test_prdc_is_that_of_the_definitions(n: int, m: int, k: int) -> None:
    real, fake = normal(n, 2, seed=n), normal(m, 2, seed=m + 50, shift=0.5)
    found = prdc(real, fake, k)
    assert found is not None
    four = (found.precision, found.recall, found.density, found.coverage)
    assert four == pytest.approx(slow_prdc(real, fake, k))


def test_a_set_against_itself_is_perfect_and_a_far_one_worthless() -> None:
    real = normal(20, 3)
    same, far = prdc(real, real), prdc(real, real + 100)
    assert same is not None
    assert far is not None
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert (far.precision, far.recall, far.density, far.coverage) == (0, 0, 0, 0)
    assert prdc(real[:3], real) is None


# --- what the released code gets wrong ------------------------------------------------------------


def test_density_does_not_grow_with_the_number_of_fakes() -> None:
    """The released code leaves out the division by the fakes: ten times as many, ten times more."""
    real, fake = normal(40, 2), normal(30, 2, seed=1)
    once, often = prdc(real, fake), prdc(real, np.repeat(fake, 10, axis=0))
    assert once is not None
    assert often is not None
    assert once.density == pytest.approx(often.density)
    assert 0.5 < once.density < 2  # of one distribution it is near 1


def test_any_sphere_counts_and_not_only_that_of_the_nearest() -> None:
    """The fake is nearest to a real image in a dense spot, and inside a far one's wide sphere."""
    real = np.array([[0.0], [0.01], [0.02], [10.0]])
    fake = np.array([[1.0], [1.0], [1.0], [1.0]])
    assert np.abs(real - 1.0).argmin() == 2  # whose sphere of radius 0.01 does not reach the fake
    found = prdc(real, fake, k=1)
    assert found is not None
    assert found.precision == 1  # the sphere of 10.0 reaches to 0.02


def test_classes_are_those_that_were_attacked_and_zero_is_one_of_them() -> None:
    """The released code loops over 0 .. n-1, and takes class 0 for "all classes"."""
    real = {label: normal(10, 2, seed=label) + 50 * label for label in (0, 1, 2, 7)}
    fake = {label: real[label] + 0.01 for label in (7, 0)}
    found = prdc_by_class(real, fake)
    assert set(found) == {0, 7}
    assert [(found[label].real, found[label].fake) for label in (0, 7)] == [(10, 10), (10, 10)]
    assert [found[label].coverage for label in (0, 7)] == [1.0, 1.0]
    swapped = prdc_by_class(real, {0: fake[7], 7: fake[0]})
    assert [swapped[label].precision for label in (0, 7)] == [0.0, 0.0]
