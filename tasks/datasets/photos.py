"""One person's photos: a folder, a single file or a zip, read one by one.

Nothing is extracted to disk. What cannot be used is given back with its reason, so that the others
go on.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.datasets.decode import MAX_BYTES, Reason, UnreadableImage
from tasks.datasets.listing import IMAGE_SUFFIXES
from tasks.datasets.sources import read_source
from tasks.errors import DataError, MissingDataError


@dataclass(frozen=True)
class Photo:
    """A photo's bytes, or the reason why there are none.

    Attributes:
        name: its path below the folder or inside the zip.
        data: the file's bytes.
        reason: why it cannot be used.
    """

    name: str
    data: bytes = b""
    reason: Reason | None = None


def read_photos(place: Path) -> Iterator[Photo]:
    """Yield the photos of a folder (with its subfolders), a zip or a single file, sorted by name.

    Raises:
        MissingDataError: there is nothing at that path, or no image by its name.
        DataError: the zip is damaged.
    """
    place = place.expanduser()
    if not place.exists():
        raise MissingDataError(f"{place} does not exist; name a folder, a zip or a photo")
    if place.is_file() and zipfile.is_zipfile(place):
        found = _in_zip(place)
    elif place.is_file() and place.suffix.lower() == ".zip":
        raise DataError(f"{place} is not a zip, or a damaged one; pack it again")
    elif place.is_file():
        found = iter([_from_file(place, place.name)])
    else:
        files = sorted(p for p in place.rglob("*") if _is_image(p.name) and not p.is_dir())
        found = (_from_file(p, os.fspath(p.relative_to(place))) for p in files)
    count = 0
    for count, photo in enumerate(found, start=1):  # noqa: B007  (counted for the check below)
        yield photo
    if count == 0:
        raise MissingDataError(
            f"{place} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}); name a folder, a zip "
            "or a photo that does"
        )


def _is_image(name: str) -> bool:
    base = name.rpartition("/")[2]
    return os.path.splitext(base)[1].lower() in IMAGE_SUFFIXES and not base.startswith(".")


def _from_file(path: Path, name: str) -> Photo:
    try:
        return Photo(name, read_source(path.absolute().as_uri()))
    except UnreadableImage as verdict:
        return Photo(name, reason=verdict.reason)


def _in_zip(place: Path) -> Iterator[Photo]:
    with zipfile.ZipFile(place) as archive:
        members = [m for m in archive.infolist() if not m.is_dir() and _is_image(m.filename)]
        for member in sorted(members, key=lambda m: m.filename):
            if member.file_size > MAX_BYTES:
                yield Photo(member.filename, reason="file too large")
                continue
            try:
                with archive.open(member) as file:
                    data = file.read(MAX_BYTES + 1)
            # A damaged or encrypted member raises what its decompressor likes.
            except Exception:
                yield Photo(member.filename, reason="cannot be read")
                continue
            yield Photo(member.filename, data)
