"""VGGFace2: train/n000002/0001_01.jpg and test/..., with loose boxes in CSV (Cao et al. 2018).

train and test hold different people, so they are no split to test a classifier on.
"""

from __future__ import annotations

import csv
import re

import pyarrow as pa

from tasks.datasets.decode import Box
from tasks.datasets.listing import Listing, is_image, table_lines, whole
from tasks.datasets.places import Place
from tasks.datasets.sources import with_box
from tasks.errors import DataError

_PERSON = re.compile(r"(?:^|/)(n\d{6})/([^/]+)\.[^./]+$")


def vggface2(place: Place, boxes: bool) -> pa.Table:
    """List all images; identities are n000002 and so on."""
    files = place.files()
    rectangles: dict[str, Box] = {}
    for path in files if boxes else ():
        name = path.rsplit("/", 1)[-1]
        if name.startswith("loose_bb_") and name.endswith(".csv"):
            rectangles |= _boxes(place, path)
    found = Listing(place.name)
    for path in files:
        match = _PERSON.search(path)
        if match and is_image(path):
            source = place.source(path)
            box = rectangles.get(f"{match[1]}/{match[2]}")
            found.add(path, source if box is None else with_box(source, box), match[1])
    return found.table()


def _boxes(place: Place, path: str) -> dict[str, Box]:
    found: dict[str, Box] = {}
    for number, line in table_lines(place.read(path), path):
        (words,) = csv.reader([line])
        if number == 1:  # NAME_ID,X,Y,W,H
            continue
        if len(words) != 5:
            raise DataError(f"{path}:{number}: {line!r} is not NAME_ID,X,Y,W,H; repair the line")
        x, y, w, h = (whole(word, path, number) for word in words[1:])
        found[words[0].strip()] = (x, y, w, h)
    return found
