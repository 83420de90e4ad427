"""Images to bytes and back: lossless where it says so, and readable by others."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from augment.encode import Codec, encode_pngs
from tasks.errors import SpecError


@given(st.integers(1, 3), st.integers(1, 130), st.integers(1, 130), st.integers(0, 2**32 - 1))
def test_png_keeps_every_pixel(count: int, height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    images[0] = images[0, 0, 0]  # flat, and so unlike the others that the code is made for
    for image, data in zip(images, encode_pngs(images), strict=True):
        with Image.open(io.BytesIO(data)) as read:
            assert (read.format, read.mode, read.info) == ("PNG", "RGB", {})
            assert np.array_equal(np.asarray(read), image)


@pytest.mark.parametrize("name", ["png", "webp-lossless", "jpeg:90", "raw"])
def test_a_codec_says_what_it_is_and_the_same_image_gives_the_same_bytes(name: str) -> None:
    ramp = np.linspace(0, 255, 24, dtype=np.uint8)
    image = np.stack([np.add.outer(ramp // 2, ramp // 2)] * 3, axis=2)
    codec = Codec.parse(name)
    assert str(codec) == name
    (data,) = codec.encode(image[None])
    assert [data] == codec.encode(image[None].copy())
    if name == "raw":
        assert data == image.tobytes()
        return
    with Image.open(io.BytesIO(data)) as read:
        shown = np.asarray(read.convert("RGB"))
    assert codec.suffix in {"png", "webp", "jpg"}
    assert np.abs(shown.astype(int) - image).max() <= (8 if name == "jpeg:90" else 0)


def test_png_is_no_larger_than_pils_default_where_there_is_noise() -> None:
    rng = np.random.default_rng(0)
    noisy = np.clip(128 + 8 * rng.standard_normal((224, 224, 3)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "PNG")
    assert len(encode_pngs(noisy[None])[0]) < 1.05 * len(file.getvalue())


@pytest.mark.parametrize("text", ["", "jpg", "jpeg", "jpeg:0", "jpeg:101", "jpeg:-5", "jpeg:²"])
def test_an_unknown_codec_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="write png, webp-lossless, raw, or jpeg:95"):
        Codec.parse(text)
