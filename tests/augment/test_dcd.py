"""Recipes applied to pixels: float, keyed by the row, the same in every batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from augment.dcd import apply_recipes, apply_recipes_8bit, noisy_image, pack_size

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


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=6),
    st.integers(0, 2**64 - 7),
    st.integers(0, 2**32 - 1),
)
def test_the_fast_path_to_8_bits_is_the_rounded_float_path(
    sigmas: list[float], first_seed: int, pixels: int
) -> None:
    count = len(sigmas)
    images = np.random.default_rng(pixels).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    sigma = np.array(sigmas, np.float32)
    seed = np.arange(count, dtype=np.uint64) + np.uint64(first_seed)
    expected = np.rint(apply_recipes(images, sigma, seed) * 255).astype(np.uint8)
    assert np.array_equal(apply_recipes_8bit(images, sigma, seed), expected)
    down = np.arange(count) % 2 == 0
    truncated = np.rint(apply_recipes(images, sigma, seed, down) * 255).astype(np.uint8)
    assert np.array_equal(apply_recipes_8bit(images, sigma, seed, down), truncated)
    assert np.array_equal(truncated[~down], expected[~down])
    lower = expected[down].astype(int) - truncated[down]
    assert set(lower.ravel().tolist()) <= {0, 1}
    assert np.array_equal(noisy_image(images[0], sigmas[0], first_seed), expected[0])


def test_every_level_rounds_alike() -> None:
    images = np.broadcast_to(np.arange(256, dtype=np.uint8), (256, 256)).reshape(1, 256, 256, 1)
    images = np.repeat(images, 3, axis=3)
    for sigma in (0.003, 8 / 255, 0.5):
        s, k = np.array([sigma], np.float32), np.array([9], np.uint64)
        expected = np.rint(apply_recipes(images, s, k) * 255).astype(np.uint8)
        assert np.array_equal(apply_recipes_8bit(images, s, k), expected)


def test_the_source_stays_as_it_is_on_the_fast_path() -> None:
    before = IMAGES.copy()
    out = apply_recipes_8bit(IMAGES, SIGMA, SEED)
    assert np.array_equal(IMAGES, before)
    assert np.array_equal(out[SIGMA == 0], IMAGES[SIGMA == 0])
    assert not np.shares_memory(out, IMAGES)


@pytest.mark.parametrize("down", [False, True])
def test_noise_of_the_files_size_is_what_shrinking_the_noisy_file_gives(down: bool) -> None:
    file = np.random.default_rng(0).integers(
        90, 160, (1, 64, 48, 3), np.uint8
    )  # nothing is clipped
    sigma, seed = np.array([0.03], np.float32), np.array([5], np.uint64)
    flags = np.array([down])

    def shrunk(levels: np.ndarray) -> np.ndarray:
        channels = [Image.fromarray(np.ascontiguousarray(levels[..., c])) for c in range(3)]
        small = [channel.resize((16, 16), Image.Resampling.BICUBIC) for channel in channels]
        return np.stack([np.asarray(channel) for channel in small], axis=-1)

    direct = shrunk(255 * apply_recipes(file, sigma, seed, flags)[0])
    base = np.rint(shrunk(file[0].astype(np.float32))).astype(np.uint8)
    native = np.array([pack_size(64, 48)], np.uint32)
    apart = 255 * apply_recipes(base[None], sigma, seed, flags, native)[0]
    assert np.abs(apart - direct).max() <= 0.5 + 1e-3  # the base was rounded before
    rounded = apply_recipes_8bit(base[None], sigma, seed, flags, native)[0]
    assert np.array_equal(rounded, np.rint(apart).astype(np.uint8))
    # Averaging over twelve pixels leaves less than a half.
    here = 255 * apply_recipes(base[None], sigma, seed)[0] - base
    assert (apart - base).std() < 0.5 * here.std()


def test_noise_of_the_images_own_size_is_the_same_either_way() -> None:
    own = np.full(len(IMAGES), pack_size(*IMAGES.shape[1:3]), np.uint32)
    plain = apply_recipes(IMAGES, SIGMA, SEED)
    assert np.array_equal(apply_recipes(IMAGES, SIGMA, SEED, None, own), plain)
    with pytest.raises(ValueError, match="images that have been looked at"):
        apply_recipes(IMAGES, SIGMA, SEED, None, np.ones(len(IMAGES), np.uint32))
