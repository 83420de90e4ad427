"""What a layout knows of a data set before anybody is chosen: one row an image, no pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

import numpy as np
import pyarrow as pa

from tasks.errors import DataError

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")
    # Not read, but told of: a folder of a telephone's photos must not look empty.
    + (".heic", ".heif")
)

LISTING_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.int64(), nullable=False),  # hash of the path below the root
        pa.field("source", pa.string(), nullable=False),
        pa.field("identity", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),  # never cut by a split; "" is no group
        pa.field("split", pa.string(), nullable=False),  # as published: train, test or ""
        pa.field("attributes", pa.list_(pa.string()), nullable=False),
    ]
)
"""Columns of a listing (`Listing`). Identities come in the order in which the data set has them."""


@dataclass
class Listing:
    """Collects the images of a layout.

    Attributes:
        place: what the data set is called in errors.
        classes: identities that are known to be there, even without an image.
        rows: (path or other key, source, identity, group, split, attributes).
    """

    place: str
    classes: list[str] = field(default_factory=list)
    rows: list[tuple[str, str, str, str, str, Sequence[str]]] = field(default_factory=list)

    def add(
        self,
        path: str,
        source: str,
        identity: str,
        *,
        group: str = "",
        split: str = "",
        attributes: Sequence[str] = (),
    ) -> None:
        """Take one image; `path` is quoted, and names it within the data set."""
        self.rows.append((path, source, identity, group, split, attributes))

    def table(self) -> pa.Table:
        """Return a table of `LISTING_SCHEMA`.

        Raises:
            DataError: two paths share a row id.
        """
        paths, *columns = zip(*self.rows, strict=True) if self.rows else ((),) * 6
        ids = np.array([row_id(unquote_to_bytes(path)) for path in paths], dtype=np.int64)
        if len(np.unique(ids)) != len(ids):
            raise DataError(f"two images of {self.place} have the same row id; rename one of them")
        arrays = [
            pa.array(column, type=kind.type)
            for column, kind in zip([ids, *columns], LISTING_SCHEMA, strict=True)
        ]
        kept = LISTING_SCHEMA.with_metadata({"classes": json.dumps(self.classes)})
        return pa.Table.from_arrays(arrays, schema=kept)


def row_id(path: bytes) -> int:
    """Hash a path below the root to 63 bits: by chance, two of 10^8 files meet once in 2 000 sets.

    One path has one name on every system: `/` as separator, and bytes that are not UTF-8 kept.
    """
    return int.from_bytes(hashlib.blake2b(path, digest_size=8).digest(), "big") >> 1


def is_image(path: str) -> bool:
    """Say whether a path ends as an image's does."""
    return "." in path and f".{path.rsplit('.', 1)[1].lower()}" in IMAGE_SUFFIXES


def table_lines(data: bytes, name: str) -> Iterable[tuple[int, str]]:
    """Yield (line number from 1, text) of a table's lines that are not empty.

    A byte order mark and carriage returns are left out.

    Raises:
        DataError: the file is no text.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{name} is no UTF-8 text; is it the right file?") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line.strip()


def whole(text: str, name: str, number: int) -> int:
    """Return a number of a table.

    Raises:
        DataError: it is none, with file and line.
    """
    try:
        return int(float(text))
    except ValueError:
        raise DataError(f"{name}:{number}: {text!r} is no number; repair the line") from None
