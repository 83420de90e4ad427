"""TSRD, the Chinese traffic sign data: flat folders of images and annotation tables (Huang 2015).

Lines are name;width;height;x1;y1;x2;y2;class; with a semicolon at the end.
"""

from __future__ import annotations

import re

import pyarrow as pa

from tasks.datasets.listing import Listing, is_image, table_lines, whole
from tasks.datasets.places import Place
from tasks.datasets.sources import with_box
from tasks.errors import DataError, MissingDataError

_TABLE = re.compile(r"TsignRecg(Train|Test)\d+Annotation\.txt$", re.IGNORECASE)


def tsrd(place: Place, boxes: bool) -> pa.Table:
    """List training, then test images in the order of their tables; identities are 00 to 57.

    Raises:
        MissingDataError: there is no annotation table.
        DataError: a malformed line.
    """
    files = place.files()
    images = {path.rsplit("/", 1)[-1].lower(): path for path in files if is_image(path)}
    tables = sorted(
        (path for path in files if _TABLE.search(path)), key=lambda path: "test" in path.lower()
    )
    if not tables:
        raise MissingDataError(
            f"{place.name} has no TsignRecgTrain4170Annotation.txt or the one for test; the "
            "classes of the images are in there"
        )
    found = Listing(place.name)
    for table in tables:
        split = "test" if "test" in table.rsplit("/", 1)[-1].lower() else "train"
        for number, line in table_lines(place.read(table), table):
            words = line.rstrip(";").split(";")
            if len(words) != 8:
                raise DataError(
                    f"{table}:{number}: {len(words)} fields, not name;width;height;x1;y1;x2;y2;"
                    "class; repair the line"
                )
            x1, y1, x2, y2, sign = (whole(word, table, number) for word in words[3:])
            path = images.get(words[0].strip().lower(), words[0].strip())
            source = place.source(path)
            if boxes:
                source = with_box(source, (x1, y1, x2 - x1, y2 - y1))
            found.add(path, source, f"{sign:02d}", split=split)
    return found.table()
