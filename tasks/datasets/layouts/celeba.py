"""CelebA, aligned: img_align_celeba/, identity_CelebA.txt, list_attr_celeba.txt (Liu et al. 2015).

The tables may also be CSV, as Kaggle's copy has them, and the images PNG where the tables say .jpg,
as croppers write them. The published partition keeps identities apart, so no classifier can be
tested on it; it is not used.
"""

from __future__ import annotations

import re

import pyarrow as pa

from tasks.datasets.listing import Listing, is_image, table_lines, whole
from tasks.datasets.places import Place
from tasks.datasets.sources import with_box
from tasks.errors import DataError, MissingDataError

_IMAGE = re.compile(r"^\d{6}$")
_FOLDER = "img_align_celeba"


def celeba(place: Place, boxes: bool) -> pa.Table:
    """List all images in the order of the identity table, with the attributes that they have.

    Raises:
        MissingDataError: the identity table is not there.
        DataError: a malformed line.
    """
    files = place.files()
    tables = {path.rsplit("/", 1)[-1].lower(): path for path in files if not is_image(path)}
    images: dict[str, str] = {}
    for path in files:
        stem = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        if is_image(path) and _IMAGE.match(stem):
            # The folder may hold one of its own name, and a cropper's output beside it.
            images.setdefault(stem, path)
    identities = _table(place, tables, "identity_celeba")
    if identities is None:
        raise MissingDataError(
            f"{place.name} has no identity_CelebA.txt, the table of who is on which image; it "
            "comes with the data set's other tables"
        )
    attributes = _attributes(place, tables)
    rectangles = _boxes(place, tables) if boxes else {}
    found = Listing(place.name)
    for number, words in identities[1]:
        if len(words) != 2:
            raise DataError(
                f"{identities[0]}:{number}: {' '.join(words)!r} is not `image identity`; repair "
                "the line"
            )
        stem = words[0].rsplit(".", 1)[0]
        path = images.get(stem, f"{_FOLDER}/{words[0]}")  # what is gone is set aside and counted
        source = place.source(path)
        if stem in rectangles:
            source = with_box(source, rectangles[stem])
        person = str(whole(words[1], identities[0], number))
        found.add(f"{_FOLDER}/{stem}", source, person, attributes=attributes.get(stem, ()))
    return found.table()


Rows = list[tuple[int, list[str]]]


def _table(place: Place, tables: dict[str, str], stem: str) -> tuple[str, Rows] | None:
    """Return a table's name and its lines in words, without its header."""
    for suffix in (".txt", ".csv"):
        path = tables.get(stem + suffix)
        if path is None:
            continue
        comma = suffix == ".csv"
        rows = [
            (number, [word.strip() for word in (line.split(",") if comma else line.split())])
            for number, line in table_lines(place.read(path), path)
        ]
        return path, [row for row in rows if "." in row[1][0]]
    return None


def _header(place: Place, tables: dict[str, str], stem: str) -> list[str]:
    for suffix in (".txt", ".csv"):
        path = tables.get(stem + suffix)
        if path is None:
            continue
        for _, line in table_lines(place.read(path), path):
            words = line.split(",") if suffix == ".csv" else line.split()
            if len(words) > 1:  # the text version begins with the number of images
                return [word.strip() for word in words][suffix == ".csv" :]
    return []


def _attributes(place: Place, tables: dict[str, str]) -> dict[str, list[str]]:
    table = _table(place, tables, "list_attr_celeba")
    if table is None:
        return {}
    names = _header(place, tables, "list_attr_celeba")
    found = {}
    for number, (image, *values) in table[1]:
        if len(values) != len(names):
            raise DataError(
                f"{table[0]}:{number}: {len(values)} values for {len(names)} attributes; repair "
                "the line"
            )
        stem = image.rsplit(".", 1)[0]
        found[stem] = [name for name, value in zip(names, values, strict=True) if value == "1"]
    return found


def _boxes(place: Place, tables: dict[str, str]) -> dict[str, tuple[int, int, int, int]]:
    table = _table(place, tables, "list_bbox_celeba")
    if table is None:
        return {}
    found = {}
    for number, (image, *values) in table[1]:
        sides = [whole(value, table[0], number) for value in values[:4]]
        if len(sides) < 4:
            raise DataError(f"{table[0]}:{number}: not `image x y width height`; repair the line")
        found[image.rsplit(".", 1)[0]] = (sides[0], sides[1], sides[2], sides[3])
    return found
