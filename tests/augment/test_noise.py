"""The noise is Gaussian as far as a few million numbers can tell, and a function of its seed."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from augment.noise import draw_codes, level_table, quantiles, whole_table

N = 1 << 21


@pytest.fixture(scope="module")
def noise() -> npt.NDArray[np.float64]:
    """Return two million numbers of one seed, in sigmas."""
    sigma = 8 / 255
    return np.asarray(level_table(sigma)[draw_codes(7, N)] / (255 * sigma), np.float64)


def test_moments(noise: npt.NDArray[np.float64]) -> None:
    # Standard errors of mean, variance, skewness and kurtosis of n normal numbers; four of each.
    assert abs(noise.mean()) < 4 / N**0.5
    assert abs(noise.var() - 1) < 4 * (2 / N) ** 0.5
    assert abs(stats.skew(noise)) < 4 * (6 / N) ** 0.5
    assert abs(stats.kurtosis(noise)) < 4 * (24 / N) ** 0.5


def test_kolmogorov_and_smirnov_see_a_gaussian(noise: npt.NDArray[np.float64]) -> None:
    assert stats.kstest(noise, "norm").pvalue > 0.01
    # They would see a sigma that is half a percent off, so the test can fail.
    assert stats.kstest(noise * 1.005, "norm").pvalue < 0.01


def test_the_tails_have_their_share_up_to_four_sigma(noise: npt.NDArray[np.float64]) -> None:
    edges = np.array([-np.inf, -4, -3.5, -3, -2.5, -2, -1, 0, 1, 2, 2.5, 3, 3.5, 4, np.inf])
    seen = np.histogram(noise, edges)[0]
    expected = N * np.diff(stats.norm.cdf(edges))
    assert expected[0] > 50
    assert stats.chisquare(seen, expected).pvalue > 0.01
    assert 4.3 < noise.max() < 4.4


def test_the_table_is_symmetric_with_variance_one_and_the_normal_quantiles() -> None:
    table = quantiles()
    assert np.array_equal(table, -table[::-1])
    assert abs(table.var() - 1) < 1e-12
    middles = stats.norm.ppf((np.arange(65536) + 0.5) / 65536)
    assert np.abs(table / middles - 1).max() < 2e-5


def test_neighbours_are_independent() -> None:
    side, sigma = 512, 0.1
    image = level_table(sigma)[draw_codes(3, side * side * 3)].reshape(side, side, 3) / (
        255 * sigma
    )
    shifts = {"right": (0, 1, 0), "down": (1, 0, 0), "colour": (0, 0, 1), "far": (7, 11, 0)}
    for name, (y, x, c) in shifts.items():
        a = image[: side - y, : side - x, : 3 - c]
        b = image[y:, x:, c:]
        assert abs(float((a * b).mean())) < 4 / a.size**0.5, name
        # Also of the sizes, where the signs are independent.
        assert abs(float((a**2 * b**2).mean()) - 1) < 4 * (8 / a.size) ** 0.5, name


def test_seeds_give_independent_noise_and_one_seed_the_same() -> None:
    many = np.stack([draw_codes(seed, 4096) for seed in range(64)]) / 65535 - 0.5
    close = np.corrcoef(many) - np.eye(64)
    assert np.abs(close).max() < 5 / 4096**0.5
    assert np.array_equal(draw_codes(5, 1001), draw_codes(5, 2000)[:1001])


def test_the_noise_is_the_same_on_every_machine() -> None:
    tables = [level_table(sigma).tobytes() for sigma in (0.003, 8 / 255, 1.0)]
    digest = hashlib.sha256(b"".join([draw_codes(2**64 - 1, 1000).tobytes(), *tables]))
    assert digest.hexdigest()[:16] == "fd72677b496b0b7a"


@pytest.mark.parametrize("sigma", [0.0005, 0.003, 8 / 255, 0.3, 1.0])
def test_a_value_is_never_half_way_between_levels(sigma: float) -> None:
    table = level_table(sigma).astype(np.float64)
    away = np.abs(table - np.floor(table) - 0.5)
    assert away.min() >= 2**-13
    assert np.array_equal(whole_table(sigma), np.rint(table))
    assert np.array_equal(whole_table(sigma, down=True), np.floor(table))
    assert np.array_equal(table, -table[::-1])
    exact = np.float32(255) + level_table(sigma)
    assert np.array_equal(exact.astype(np.float64), 255 + table)
