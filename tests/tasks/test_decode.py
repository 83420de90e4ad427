"""Decoding: odd files that must be read right, and bad ones that must be refused with a reason."""

from __future__ import annotations

import gzip
import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.datasets.decode import UnreadableImage, decode, decode_part
from tasks.datasets.sources import read_source
from tasks.datasets.spec import Crop, CropSpec
from tasks.types import Image8

SIZE = 16


def scene(height: int = 40, width: int = 40) -> Image8:
    """Return an image with a bright red top left corner on a smooth ground, (height, width, 3)."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    pixels = np.stack([40 + 80 * x, 60 + 90 * y, 200 - 90 * x * y], axis=-1)
    pixels[: height // 3, : width // 3] = (250, 20, 20)
    return pixels.astype(np.uint8)


def encoded(image: Image.Image | npt.NDArray[Any], format: str, **options: Any) -> bytes:
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def frames(format: str) -> bytes:
    first, second = Image.fromarray(scene()), Image.fromarray(scene()[::-1].copy())
    return encoded(first, format, save_all=True, append_images=[second])


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds almost nothing: a decompression bomb."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def flipped_byte_in_the_pixels(png: bytes) -> bytes:
    at = png.index(b"IDAT") + 12
    return png[:at] + bytes([png[at] ^ 0xFF]) + png[at + 1 :]


JPEG = encoded(scene(), "JPEG", quality=95)
PNG = encoded(scene(), "PNG")
REFERENCE = decode(PNG, SIZE, "center").astype(int)

BAD: dict[str, tuple[bytes, str]] = {
    "zero bytes": (b"", "empty file"),
    "text named .jpg": (b"I am not a picture, whatever my name says.\n" * 20, "not an image"),
    "html of a failed download": (b"<!doctype html><title>404</title>", "not an image"),
    "jpeg magic and nothing else": (b"\xff\xd8\xff", "not an image"),
    "postscript, which would start a program": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
    "truncated jpeg": (JPEG[: len(JPEG) // 2], "truncated"),
    "truncated png": (PNG[: len(PNG) // 2], "truncated"),
    "truncated bmp": (encoded(scene(), "BMP")[:2000], "truncated"),
    "truncated webp": (encoded(scene(), "WEBP", lossless=True)[:300], "corrupt"),
    "truncated ppm": (encoded(scene(), "PPM")[:2000], "truncated"),
    "truncated tiff": (encoded(scene(), "TIFF")[:2000], "truncated"),
    "corrupt png": (flipped_byte_in_the_pixels(PNG), "corrupt"),
    "decompression bomb of 67 gigapixels": (png_header(2**18, 2**18), "too many pixels"),
    "decompression bomb below the limit of PIL": (png_header(10_000, 10_000), "too many pixels"),
    "animated gif": (frames("GIF"), "animated or multi-page"),
    "animated webp": (frames("WEBP"), "animated or multi-page"),
    "animated png": (frames("PNG"), "animated or multi-page"),
    "tiff of two pages": (frames("TIFF"), "animated or multi-page"),
    "truncated gif": (encoded(scene(), "GIF")[:1000], "truncated"),
    "heic of a telephone": (b"\0\0\0\x18ftypheic" + bytes(200), "HEIC, not supported"),
    "film named .jpg": (b"\0\0\0\x18ftypisom" + bytes(200), "not an image"),
    "git lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "git LFS pointer, not fetched",
    ),
    "zip named .png": (b"PK\x03\x04" + bytes(200), "not an image"),
    "gzip named .png": (gzip.compress(PNG), "not an image"),
    "pdf": (b"%PDF-1.7\n" + bytes(200), "not an image"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "not an image"),
    "utf-16 text": ("not a picture".encode("utf-16"), "not an image"),
    "numpy array": (b"\x93NUMPY\x01\x00" + bytes(120), "not an image"),
    "pickle, which would run a program": (b"\x80\x04cos\nsystem\n.", "not an image"),
    "windows thumbnail cache": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(200), "not an image"),
    "resource fork of a mac": (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X", "not an image"),
    "icon": (encoded(scene(), "ICO"), "not an image"),
    "jpeg 2000": (encoded(scene(), "JPEG2000"), "not an image"),
    "photoshop": (b"8BPS\x00\x01" + bytes(200), "not an image"),
    "only zeros": (bytes(4096), "not an image"),
    "png without pixels": (png_header(0, 0), "not an image"),
    "png without its header": (PNG[8:], "not an image"),
    "png with a broken header": (PNG[:16] + b"\xff" + PNG[17:], "not an image"),
    "jpeg cut off in its header": (JPEG[:100], "truncated"),
    "float tiff": (encoded(scene()[..., 0].astype(np.float32), "TIFF"), "unknown pixel range"),
    "32-bit tiff": (encoded(scene()[..., 0].astype(np.int32) << 16, "TIFF"), "unknown pixel range"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_its_reason(name: str) -> None:
    data, reason = BAD[name]
    with pytest.raises(UnreadableImage, match=f"^{reason}$"):
        decode(data, SIZE, "center")


def rgba(alpha: int) -> Image.Image:
    image = Image.fromarray(scene()).convert("RGBA")
    image.putalpha(alpha)
    return image


def keyed_palette() -> Image.Image:
    """Return a palette image whose red corner is transparent."""
    image = Image.fromarray(scene()).convert("P", palette=Image.Palette.ADAPTIVE)
    image.info["transparency"] = image.getpixel((0, 0))
    return image


GREY = scene().mean(axis=-1).astype(np.uint8)
GREY_REFERENCE = decode(encoded(GREY, "PNG"), SIZE, "center").astype(int)
RED_IS_WHITE = decode(
    encoded(np.where(scene() == (250, 20, 20), 255, scene()).astype(np.uint8), "PNG"),
    SIZE,
    "center",
).astype(int)

ODD: dict[str, tuple[bytes, npt.NDArray[Any]]] = {
    "jpeg": (JPEG, REFERENCE),
    "progressive jpeg": (encoded(scene(), "JPEG", quality=95, progressive=True), REFERENCE),
    "cmyk jpeg": (
        encoded(Image.fromarray(scene()).convert("CMYK"), "JPEG", quality=95, subsampling=0),
        REFERENCE,
    ),
    "multi-picture jpeg of a phone": (frames("MPO"), REFERENCE),
    "webp": (encoded(scene(), "WEBP", lossless=True), REFERENCE),
    "bmp": (encoded(scene(), "BMP"), REFERENCE),
    "ppm": (encoded(scene(), "PPM"), REFERENCE),
    "tiff with lzw": (encoded(scene(), "TIFF", compression="tiff_lzw"), REFERENCE),
    "gif of one frame": (encoded(scene(), "GIF"), REFERENCE),
    "palette png": (
        encoded(Image.fromarray(scene()).convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
        REFERENCE,
    ),
    "palette with a transparent colour": (encoded(keyed_palette(), "PNG"), RED_IS_WHITE),
    "rgb png with a transparent colour": (
        encoded(scene(), "PNG", transparency=(250, 20, 20)),
        RED_IS_WHITE,
    ),
    "opaque rgba": (encoded(rgba(255), "PNG"), REFERENCE),
    "half transparent rgba": (encoded(rgba(128), "PNG"), (REFERENCE + 255) // 2),
    "invisible rgba is white": (encoded(rgba(0), "PNG"), np.full((SIZE, SIZE, 3), 255)),
    "grey": (encoded(GREY, "PNG"), GREY_REFERENCE),
    "grey with alpha": (encoded(Image.fromarray(GREY).convert("LA"), "PNG"), GREY_REFERENCE),
    "16-bit grey png": (encoded(GREY.astype(np.uint16) * 257, "PNG"), GREY_REFERENCE),
    "16-bit pgm": (encoded(GREY.astype(np.uint16) * 257, "PPM"), GREY_REFERENCE),
    "16-bit tiff": (encoded(GREY.astype(np.uint16) * 257, "TIFF"), GREY_REFERENCE),
    "black and white": (
        encoded(Image.fromarray(GREY).point(lambda v: 255 * (v > 150)).convert("1"), "PNG"),
        decode(encoded(255 * (GREY > 150).astype(np.uint8), "PNG"), SIZE, "center"),
    ),
    "png with broken exif": (encoded(scene(), "PNG", exif=b"Exif\0\0garbage"), REFERENCE),
    "bytes after the end": (PNG + b"appended by a careless tool", REFERENCE),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_is_read_as_what_it_shows(name: str) -> None:
    data, expected = ODD[name]
    image = decode(data, SIZE, "center")
    assert image.shape == (SIZE, SIZE, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - expected).mean() < 6  # JPEG, palettes and CMYK are not exact


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    undo: list[Callable[[Image8], Image8]] = [
        lambda a: a,
        lambda a: a[:, ::-1],
        lambda a: a[::-1, ::-1],
        lambda a: a[::-1],
        lambda a: a.transpose(1, 0, 2),
        lambda a: np.rot90(a, 1),
        lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        lambda a: np.rot90(a, -1),
    ]
    stored = np.ascontiguousarray(undo[orientation - 1](scene()))
    data = encoded(stored, "JPEG", quality=95, exif=exif(orientation))
    image = decode(data, SIZE, "center").astype(int)
    assert np.abs(image - REFERENCE).mean() < 6


def test_the_centre_is_cropped_or_the_whole_is_squeezed() -> None:
    wide = np.zeros((SIZE, 3 * SIZE, 3), np.uint8)
    wide[:, SIZE : 2 * SIZE] = scene(SIZE, SIZE)
    data = encoded(wide, "PNG")
    assert np.array_equal(decode(data, SIZE, "center"), scene(SIZE, SIZE))
    squeezed = decode(data, SIZE, "none")
    assert squeezed[:, 0].max() == 0
    assert squeezed[:, SIZE // 2].max() > 0


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    assert np.array_equal(decode(encoded(noise, "PNG"), SIZE, "center"), noise)


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255  # one pixel in every column pair: picking pixels would give 0 or 255
    small = decode(encoded(stripes, "PNG"), SIZE, "center")
    assert np.abs(small.astype(int) - 128).max() <= 8


def test_a_large_jpeg_read_in_draft_looks_like_the_full_one() -> None:
    big = scene(480, 640)
    draft = decode(encoded(big, "JPEG", quality=95), SIZE, "center").astype(int)
    full = decode(encoded(big, "PNG"), SIZE, "center").astype(int)
    assert np.abs(draft - full).max() <= 12


def test_no_warning_leaks_and_the_same_bytes_give_the_same_pixels() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data, _ in ODD.values():
            assert np.array_equal(decode(data, SIZE, "none"), decode(data, SIZE, "none"))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([JPEG, PNG, frames("GIF"), encoded(scene(), "TIFF")]), st.data())
def test_damage_gives_an_image_or_a_reason_and_nothing_else(
    data: bytes, draw: st.DataObject
) -> None:
    damaged = bytearray(data[: draw.draw(st.integers(0, len(data)))])
    for at in draw.draw(st.lists(st.integers(0, max(len(damaged) - 1, 0)), max_size=8)):
        if damaged:
            damaged[at] ^= draw.draw(st.integers(1, 255))
    try:
        image = decode(bytes(damaged), SIZE, "center")
    except UnreadableImage:
        return
    assert image.shape == (SIZE, SIZE, 3)


def test_a_file_is_read_by_its_uri_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = tmp_path / "père & fils #1?.jpg"
    photo.write_bytes(JPEG)
    assert read_source(photo.as_uri()) == JPEG
    with pytest.raises(UnreadableImage, match="^cannot be read$"):
        read_source(tmp_path.as_uri())
    with pytest.raises(UnreadableImage, match="^file is gone$"):
        read_source((tmp_path / "none.jpg").as_uri())
    monkeypatch.setattr("tasks.datasets.sources.MAX_BYTES", len(JPEG) - 1)
    with pytest.raises(UnreadableImage, match="^file too large$"):
        read_source(photo.as_uri())


def test_a_file_that_may_not_be_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UnreadableImage, match="^permission denied$"):
        read_source("file:///photo.jpg")


@pytest.mark.parametrize(
    ("crop", "expected"),
    [
        ("center", (1200, 1200)),
        ("none", (1200, 1600)),
        (CropSpec(pixels=300), (300, 300)),
        (CropSpec(share=0.5), (600, 600)),
    ],
)
def test_the_size_in_the_file_is_told_whatever_was_decoded(
    crop: Crop, expected: tuple[int, int]
) -> None:
    for format in ("JPEG", "PNG"):  # a JPEG is decoded at an eighth of its size
        _, size = decode_part(encoded(scene(1200, 1600), format), SIZE, crop)
        assert np.abs(np.subtract(size, expected)).max() <= 8
