"""Gaussian noise by a table: each 16 random bits pick one of 65,536 quantiles of the normal law.

Drawing the bits and looking them up takes a sixth of the time of NumPy's normal numbers, and gives
the same bytes on every machine. What it is not: the law has no value beyond 4.32 sigma, where one
number in 65,000 would be.

The table is in levels, 255ths of the unit range, and holds odd multiples of 2^-13 only. Added to a
pixel, such a number is exact in float32 and never half way between two levels: so rounding the sum
is the same as adding the rounded number, which is all that 8-bit output needs. Truncating likewise.
"""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

_CODES = 1 << 16
_GRID = 1 << 12  # cells in a level; a value is the middle of its cell


@lru_cache(maxsize=1)
def quantiles() -> npt.NDArray[np.float64]:
    """Return 65,536 equally likely values of the standard normal law, ascending.

    They are symmetric and have variance 1: the middle quantiles alone would have a little less.
    """
    inverse = NormalDist().inv_cdf
    lower = np.array([inverse((code + 0.5) / _CODES) for code in range(_CODES // 2)])
    both = np.concatenate([lower, -lower[::-1]])
    table: npt.NDArray[np.float64] = both / both.std()
    return table


@lru_cache(maxsize=32)
def level_table(sigma: float) -> npt.NDArray[np.float32]:
    """Return the values that noise of a sigma takes, in levels: float32 (65536,), read-only.

    Args:
        sigma: standard deviation in the unit range, above 0.
    """
    cells = np.floor(quantiles() * (255 * sigma * _GRID))
    table = ((cells + 0.5) / _GRID).astype(np.float32)
    table.flags.writeable = False
    return table


@lru_cache(maxsize=32)
def whole_table(sigma: float, down: bool = False) -> npt.NDArray[np.int16]:
    """Return `level_table` in whole levels, the nearest or downwards: int16 (65536,), read-only."""
    table = (np.floor if down else np.rint)(level_table(sigma)).astype(np.int16)
    table.flags.writeable = False
    return table


def draw_codes(seed: int, count: int) -> npt.NDArray[np.uint16]:
    """Return `count` uniform 16-bit numbers that depend on the seed alone."""
    words = np.asarray(np.random.SFC64(seed).random_raw(-(-count // 4)), dtype="<u8")
    codes: npt.NDArray[np.uint16] = words.view("<u2")[:count]
    return codes
