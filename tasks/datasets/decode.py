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

from tasks.datasets.spec import Crop, CropSpec
from tasks.types import Image8

Box = tuple[int, int, int, int]
"""Left, top, width, height in pixels."""

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


def decode(data: bytes, size: int, crop: Crop, box: Box | None = None) -> Image8:
    """Decode, orient, crop and resize one image; see `decode_part`."""
    return decode_part(data, size, crop, box)[0]


def decode_part(
    data: bytes, size: int, crop: Crop, box: Box | None = None
) -> tuple[Image8, tuple[int, int]]:
    """Decode, orient, crop and resize one image; say how large that part is in the file.

    Args:
        data: the file's bytes.
        size: height and width of the result, in pixels.
        crop: "center" takes the largest centred square, "none" squeezes the whole image, a
            CropSpec takes a part. What reaches over the edge of the image is moved inside.
        box: the annotated box (left, top, width, height) in pixels, for a crop by box; None takes
            the largest centred square instead.

    Returns:
        uint8 of shape (size, size, 3), RGB; the same bytes give the same pixels. An image that has
        this size already is not resampled. And height and width of the part, in the file's pixels.

    Raises:
        UnreadableImage: with the reason.
    """
    part = crop if isinstance(crop, CropSpec) else None
    # Pixels of the file count only while it has its own size.
    exact = part is not None and part.share is None
    share = part.share if part is not None and part.share is not None else 1.0
    rgb, scale = _decode_upright(data, 0 if exact else round(_DRAFT * size / share))
    with _verdicts():
        area = (0, 0, rgb.width, rgb.height) if crop == "none" else _area(rgb.size, part, box)
        small = rgb.resize((size, size), Image.Resampling.BICUBIC, box=area)
        taken = (round((area[3] - area[1]) * scale), round((area[2] - area[0]) * scale))
        return np.asarray(small, dtype=np.uint8), taken


def _area(
    size: tuple[int, int], part: CropSpec | None, box: Box | None
) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a square inside an image, in whole pixels.

    Whole, so that an image at scale 1 is not blurred.
    """
    width, height = size
    side, middle = min(size), (width / 2, height / 2)
    if part is not None:
        if part.pixels is not None:
            side = min(part.pixels, side)
        elif part.share is not None:
            side = max(1, round(part.share * side))
        elif part.box is not None and box is not None:
            side = min(max(1, round(part.box * max(box[2:]))), side)
            middle = (box[0] + box[2] / 2, box[1] + box[3] / 2)
    left = min(max(0, int(middle[0] - side / 2)), width - side)
    top = min(max(0, int(middle[1] - side / 2)), height - side)
    return (left, top, left + side, top + side)


def decode_upright(data: bytes, draft: int) -> Image.Image:
    """Decode and orient one image as 8-bit RGB; all metadata is left behind.

    Args:
        data: the file's bytes.
        draft: a JPEG may be decoded smaller, with sides of at least so many pixels; 0 is never.

    Raises:
        UnreadableImage: with the reason.
    """
    return _decode_upright(data, draft)[0]


def _decode_upright(data: bytes, draft: int) -> tuple[Image.Image, float]:
    """Return the image, and how many times larger it is in its file."""
    if not data:
        raise UnreadableImage("empty file")
    if data[4:12] in _HEIC:
        raise UnreadableImage("HEIC, not supported")
    if data.startswith(b"version https://git-lfs"):
        raise UnreadableImage("git LFS pointer, not fetched")
    with _verdicts(), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        longest = max(image.size)
        upright = _upright(image, draft)
        return upright, longest / max(upright.size)


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
    if draft:
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
