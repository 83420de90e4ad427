"""GTSRB: Final_Training/Images/000CC/TTTTT_FFFFF.ppm with GT-000CC.csv, and Final_Test.

(Stallkamp et al. 2012.) Thirty frames of one drive past a sign are one track: nearly the same
picture, so no split may cut a track.
"""

from __future__ import annotations

import re

import pyarrow as pa

from tasks.datasets.decode import Box
from tasks.datasets.listing import Listing, is_image, table_lines, whole
from tasks.datasets.places import Place
from tasks.datasets.sources import with_box
from tasks.errors import DataError, MissingDataError

_TRAINING = re.compile(r"(?:^|/)Images/(\d{5})/(\d{5})_(\d{5})\.[^./]+$")
_TEST = re.compile(r"Final_Test/Images/(\d{5}\.[^./]+)$")


def gtsrb(place: Place, boxes: bool) -> pa.Table:
    """List training images by class and track, then test images; identities are 00 to 42.

    Raises:
        MissingDataError: test images without their table of classes.
        DataError: a malformed line.
    """
    files = place.files()
    tables = {path.rsplit("/", 1)[-1]: path for path in files if path.endswith(".csv")}
    lines: dict[str, dict[str, tuple[Box, str]]] = {}
    found = Listing(place.name)
    for path in files:
        match = _TRAINING.search(path)
        if not match or not is_image(path) or "Final_Test/" in path:
            continue
        sign, track = int(match[1]), match[2]
        source = place.source(path)
        table = tables.get(f"GT-{match[1]}.csv")
        if boxes and table is not None:
            if table not in lines:
                lines[table] = _annotations(place, table)
            known = lines[table].get(path.rsplit("/", 1)[-1])
            source = source if known is None else with_box(source, known[0])
        found.add(path, source, f"{sign:02d}", group=f"{sign:02d}/{track}", split="train")
    tests = {match[1]: path for path in files if (match := _TEST.search(path))}
    if tests:
        table = tables.get("GT-final_test.csv")
        if table is None:
            raise MissingDataError(
                f"{place.name} has Final_Test/Images and no GT-final_test.csv, the table of their "
                "classes; add it, or leave Final_Test out"
            )
        for name, (box, sign_text) in _annotations(place, table).items():
            path = tests.get(name, f"Final_Test/Images/{name}")
            source = place.source(path)
            found.add(
                path,
                with_box(source, box) if boxes else source,
                f"{int(sign_text):02d}",
                split="test",
            )
    return found.table()


def _annotations(place: Place, path: str) -> dict[str, tuple[Box, str]]:
    """Return box and class of each file: Filename;Width;Height;X1;Y1;X2;Y2;ClassId."""
    found: dict[str, tuple[Box, str]] = {}
    for number, line in table_lines(place.read(path), path):
        words = [word.strip() for word in line.rstrip(";").split(";")]
        if words[0] == "Filename":
            continue
        if len(words) != 8:
            raise DataError(
                f"{path}:{number}: {len(words)} fields, not Filename;Width;Height;Roi.X1;Roi.Y1;"
                "Roi.X2;Roi.Y2;ClassId; repair the line"
            )
        x1, y1, x2, y2, sign = (whole(word, path, number) for word in words[3:])
        found[words[0]] = ((x1, y1, x2 - x1, y2 - y1), str(sign))
    return found
