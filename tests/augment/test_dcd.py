"""Recipes applied to pixels: float, keyed by the row, the same in every batch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from augment.dcd import apply_recipes

IMAGES = np.random.default_rng(0).integers(60, 190, (9, 8, 8, 3), dtype=np.uint8)
SIGMA = np.array([0, 0.1, 0.003, 0, 0.2, 1, 0.05, 0.01, 0], np.float32)
SEED = np.arange(9, dtype=np.uint64) + 17


def test_sigma_zero_leaves_the_image_as_it_is() -> None:
    out = apply_recipes(IMAGES, np.zeros(9, np.float32), SEED)
    assert np.array_equal(np.rint(out * 255).astype(np.uint8), IMAGES)


@given(st.integers(0, 9))
def test_a_row_does_not_depend_on_its_batch(cut: int) -> None:
    whole = apply_recipes(IMAGES, SIGMA, SEED)
    parts = [
        apply_recipes(IMAGES[a:b], SIGMA[a:b], SEED[a:b]) for a, b in ((0, cut), (cut, 9)) if a < b
    ]
    assert np.array_equal(whole, np.concatenate(parts))


def test_noise_has_the_stated_sigma_and_no_bias() -> None:
    grey = np.full((64, 32, 32, 3), 128, np.uint8)
    out = apply_recipes(grey, np.full(64, 0.05, np.float32), np.arange(64, dtype=np.uint64))
    noise = out - 128 / 255
    n = noise.size
    assert abs(noise.mean()) < 4 * 0.05 / n**0.5
    assert abs(noise.std() / 0.05 - 1) < 4 / (2 * n) ** 0.5


def test_pixels_stay_in_the_unit_range_and_the_source_is_untouched() -> None:
    before = IMAGES.copy()
    out = apply_recipes(IMAGES, np.full(9, 1, np.float32), SEED)
    assert out.min() == 0
    assert out.max() == 1
    assert np.array_equal(IMAGES, before)
