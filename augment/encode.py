"""One image to bytes: PNG, lossless WebP, JPEG, or the bare pixels.

PNG is written here and not by PIL, which tries five filters on every row: one filter (each pixel
minus its left neighbour) and entropy coding without a search for repeats takes a tenth of the time,
for files within 5 % of PIL's default where there is noise. In noise nothing repeats.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from augment.deflate import LiteralCode, compress
from tasks.errors import SpecError
from tasks.types import Image8

LOSSLESS: tuple[Literal["png", "webp-lossless", "raw"], ...] = ("png", "webp-lossless", "raw")

_SUB = 1  # PNG's number for the filter "minus the left neighbour"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGB8 = (8, 2, 0, 0, 0)  # bit depth, colour, and PNG's only compression, filters and order
_MEMORY = 9  # of zlib: longer blocks, fewer code tables
_LARGE = 1 << 15  # bytes of an image from which on zlib is the slower one
_EVERY = 8  # rows of an image from one that the shared code is made from to the next


@dataclass(frozen=True)
class Codec:
    """How pixels become bytes.

    Attributes:
        name: png and webp-lossless keep every pixel, raw is the pixels themselves, row by row.
        quality: of jpeg, 1 to 100.
    """

    name: Literal["png", "webp-lossless", "jpeg", "raw"]
    quality: int = 95

    @classmethod
    def parse(cls, text: str) -> Codec:
        """Read `png`, `webp-lossless`, `jpeg:95` or `raw`.

        Raises:
            SpecError: it is something else.
        """
        for lossless in LOSSLESS:
            if text == lossless:
                return cls(lossless)
        name, _, quality = text.partition(":")
        if name == "jpeg" and quality.isdecimal() and 1 <= int(quality) <= 100:
            return cls("jpeg", int(quality))
        raise SpecError(
            f"--codec {text!r} is not known; write png, webp-lossless, raw, or jpeg:95 with a "
            "quality from 1 to 100"
        )

    def __str__(self) -> str:
        return f"jpeg:{self.quality}" if self.name == "jpeg" else self.name

    @property
    def suffix(self) -> str:
        """Ending of a file of this codec, without the dot."""
        return {"png": "png", "webp-lossless": "webp", "jpeg": "jpg", "raw": "npy"}[self.name]

    def encode(self, images: Image8) -> list[bytes]:
        """Return images (n, h, w, 3) as bytes, one each."""
        if self.name == "png":
            return encode_pngs(images)
        if self.name == "raw":
            return [image.tobytes() for image in images]
        return [self._by_pil(Image.fromarray(image)) for image in images]

    def _by_pil(self, image: Image.Image) -> bytes:
        file = io.BytesIO()
        if self.name == "jpeg":
            image.save(file, "JPEG", quality=self.quality)
        else:
            image.save(file, "WEBP", lossless=True, quality=0, method=0)
        return file.getvalue()


def encode_pngs(images: Image8) -> list[bytes]:
    """Return images (n, h, w, 3) as PNG files without metadata.

    Large ones share a code, so the bytes of one depend on which others it comes with.
    """
    count, height, width, _ = images.shape
    header = _chunk(b"IHDR", struct.pack(">2I5B", width, height, *_RGB8))
    end = _chunk(b"IEND", b"")
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = _SUB
    code = None
    if rows.size >= _LARGE:
        some = images[:, ::_EVERY].reshape(-1, 3 * width)
        code = LiteralCode.of(some[:, 3:] - some[:, :-3])
    files = []
    for image in images:
        pixels = image.reshape(height, 3 * width)
        rows[:, 1:4] = pixels[:, :3]
        np.subtract(pixels[:, 3:], pixels[:, :-3], out=rows[:, 4:])
        body = _small(rows) if code is None else compress(rows.reshape(-1), code)
        files.append(b"".join((_SIGNATURE, header, _chunk(b"IDAT", body), end)))
    return files


def _small(rows: npt.NDArray[np.uint8]) -> bytes:
    deflate = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, _MEMORY, zlib.Z_HUFFMAN_ONLY)
    return deflate.compress(rows.data) + deflate.flush()


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(content, zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(content)), kind, content, struct.pack(">I", check)))
