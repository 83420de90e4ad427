"""Typicality: who looks like many is found among who does not."""

from __future__ import annotations

import numpy as np
import pytest

from augment.typicality import typicality
from tasks.types import Image8


def pictures(count: int, shade: float, seed: int, size: int = 16) -> Image8:
    """Return pictures around one shade of grey, with light that varies."""
    noise = np.random.default_rng(seed).normal(shade, 30, (count, 1, 1, 3))
    grain = np.random.default_rng(seed + 1).normal(0, 4, (count, size, size, 3))
    return np.clip(noise + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [16, 30, 32])
def test_the_middle_of_the_public_is_typical(size: int) -> None:
    public = pictures(300, 120, 1, size)
    pool = np.concatenate([pictures(20, shade, 7, size) for shade in (120, 170, 230)])
    names = ["near"] * 20 + ["off"] * 20 + ["far"] * 20
    found = typicality(public, pool, names)
    assert 0 >= found["near"] > found["off"] > found["far"]


def test_the_order_of_pictures_does_not_matter() -> None:
    public, pool = pictures(100, 120, 1), pictures(40, 140, 2)
    names = np.array(["a", "b"] * 20)
    order = np.random.default_rng(0).permutation(40)
    assert typicality(public, pool, names.tolist()) == pytest.approx(
        typicality(public[::-1], pool[order], names[order].tolist())
    )


def test_public_pictures_that_are_all_the_same_are_no_error() -> None:
    flat = np.full((10, 16, 16, 3), 90, np.uint8)
    assert typicality(flat, flat, ["a"] * 10) == {"a": 0.0}
