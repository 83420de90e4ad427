"""One image file's bytes to one square RGB image of 8 bits, or the reason why not.

What is done with what: EXIF orientation is applied; transparency is laid over white; 16-bit grey is
scaled to 8 bits; CMYK and palettes become RGB; colour profiles are ignored. A multi-picture JPEG
(what many phones write) gives its main picture. Animations and multi-page files are refused, since
which frame shows the person is a guess.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tasks.datasets.folder import source_path
from tasks.types import Image8

MAX_PIXELS = 2**26
"""A larger header is refused before anything is decoded: 67 megapixels take 200 MB as RGB."""

# What the file holds counts, not its name. A closed list: PIL would hand PostScript to a program.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF")

_HEIC = frozenset((b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1"))
"""What telephones write; Pillow does not read it. Told apart, since converting it helps."""

MAX_BYTES = 2**28
"""A larger file is refused before it is read: no photograph has 256 MB, but a film may."""

_DRAFT = 2  # a JPEG may be decoded smaller, down to this many times the size that is asked for

Reason = Literal[
    "empty file",
    "not an image",
    "HEIC, not supported",
    "git LFS pointer, not fetched",
    "too many pixels",
    "animated or multi-page",
    "truncated",
    "corrupt",
    "unknown pixel range",
    "file is gone",
    "permission denied",
    "file too large",
    "cannot be read",
]
"""Why an image is quarantined: a closed list without names, so that reasons can be counted."""


class UnreadableImage(Exception):  # noqa: N818  (a verdict about a file, counted, never shown)
    """An image cannot be used; caught where rows are quarantined."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


def read_source(source: str) -> bytes:
    """Return the bytes of the file that a row's `source` names.

    Args:
        source: a file URI, as `folder_rows` writes it; object stores would be opened here.

    Raises:
        UnreadableImage: with the reason.
    """
    try:
        with source_path(source).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UnreadableImage("file is gone") from None
    except PermissionError:
        raise UnreadableImage("permission denied") from None
    except OSError:
        raise UnreadableImage("cannot be read") from None
    if len(data) > MAX_BYTES:
        raise UnreadableImage("file too large")
    return data


def decode(data: bytes, size: int, crop: Literal["center", "none"]) -> Image8:
    """Decode, orient, crop and resize one image.

    Args:
        data: the file's bytes.
        size: height and width of the result, in pixels.
        crop: "center" takes the largest centred square, "none" squeezes the whole image.

    Returns:
        uint8 of shape (size, size, 3), RGB; the same bytes give the same pixels. An image that has
        this size already is not resampled.

    Raises:
        UnreadableImage: with the reason.
    """
    rgb = decode_upright(data, _DRAFT * size)
    with _verdicts():
        width, height = rgb.size
        box = (0, 0, width, height)
        if crop == "center":
            side = min(width, height)
            # Whole pixels: no blur at scale 1.
            left, top = (width - side) // 2, (height - side) // 2
            box = (left, top, left + side, top + side)
        small = rgb.resize((size, size), Image.Resampling.BICUBIC, box=box)
        return np.asarray(small, dtype=np.uint8)


def decode_upright(data: bytes, draft: int) -> Image.Image:
    """Decode and orient one image as 8-bit RGB; all metadata is left behind.

    Args:
        data: the file's bytes.
        draft: a JPEG may be decoded smaller, with sides of at least so many pixels.

    Raises:
        UnreadableImage: with the reason.
    """
    if not data:
        raise UnreadableImage("empty file")
    if data[4:12] in _HEIC:
        raise UnreadableImage("HEIC, not supported")
    if data.startswith(b"version https://git-lfs"):
        raise UnreadableImage("git LFS pointer, not fetched")
    with _verdicts(), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        return _upright(image, draft)


@contextlib.contextmanager
def _verdicts() -> Iterator[None]:
    """Turn whatever a parser raises into a reason."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata that is not used here
            yield
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage("not an image") from None
    except Image.DecompressionBombError:
        raise UnreadableImage("too many pixels") from None
    # Parsers that are fed hostile bytes raise whatever they like, from struct.error to
    # RecursionError. Nothing is lost: the row is quarantined and counted.
    except Exception as error:
        truncated = isinstance(error, EOFError) or "truncated" in str(error).lower()
        raise UnreadableImage("truncated" if truncated else "corrupt") from None


def _upright(image: Image.Image, draft: int) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage("too many pixels")
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise UnreadableImage("animated or multi-page")
    image.draft(None, (draft, draft))
    image.load()
    with contextlib.suppress(Exception):  # broken metadata around good pixels: taken as upright
        ImageOps.exif_transpose(image, in_place=True)
    return _to_rgb(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return _sixteen_bit_grey(image).convert("RGB")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    return image.convert("RGB")


def _sixteen_bit_grey(image: Image.Image) -> Image.Image:
    """Scale 0..65535 to 0..255, where PIL would clip. PIL reads 16-bit PGM as 32-bit "I"."""
    pixels = np.asarray(image)
    if pixels.dtype.kind == "f" or pixels.min() < 0 or pixels.max() > 65535:
        raise UnreadableImage("unknown pixel range")
    return Image.fromarray(np.rint(pixels / 257.0).astype(np.uint8))
