"""What is compressed here, zlib inflates to the same bytes."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augment.deflate import LiteralCode, code_lengths, compress


def noise(count: int, sigma: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.rint(sigma * rng.standard_normal(count)).astype(np.int64).astype(np.uint8)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_bytes_come_back_under_any_code(data: bytes, sample: bytes) -> None:
    code = LiteralCode.of(np.frombuffer(sample, np.uint8))
    assert zlib.decompress(compress(np.frombuffer(data, np.uint8), code)) == data


@pytest.mark.parametrize("count", [*range(9), 4095, 65536, 150_529])
@pytest.mark.parametrize("sigma", [0.0, 0.5, 8.0, 100.0])
def test_noise_comes_back_whatever_its_length(count: int, sigma: float) -> None:
    data = noise(count, sigma)
    assert zlib.decompress(compress(data, LiteralCode.of(data))) == data.tobytes()


def test_noise_takes_little_more_than_its_entropy() -> None:
    data = noise(200_000, 8.0)
    counts = np.bincount(data, minlength=256)
    share = counts[counts > 0] / len(data)
    entropy_bytes = -(share * np.log2(share)).sum() * len(data) / 8
    code = LiteralCode.of(data[::8])
    assert len(compress(data, code)) < 1.02 * entropy_bytes


def test_no_code_is_longer_than_the_format_allows() -> None:
    fibonacci = [1, 1]
    while len(fibonacci) < 257:
        fibonacci.append(min(fibonacci[-1] + fibonacci[-2], 10**15))
    lengths = code_lengths(fibonacci)
    assert max(lengths) <= 15
    assert sum(2.0**-length for length in lengths) == 1  # complete, as inflaters ask for


def test_the_same_bytes_give_the_same_stream() -> None:
    data = noise(5000, 3.0)
    assert compress(data, LiteralCode.of(data)) == compress(data.copy(), LiteralCode.of(data))
