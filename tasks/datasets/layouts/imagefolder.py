"""ImageFolder: root/<identity>/**/<image>, and MIBench's private_train, private_test, public."""

from __future__ import annotations

from urllib.parse import unquote

import pyarrow as pa

from tasks.datasets.listing import Listing, is_image
from tasks.datasets.places import Place


def imagefolder(place: Place, boxes: bool) -> pa.Table:
    """List one identity a folder, in the order of their names. There are no boxes."""
    found = Listing(place.name)
    for path in place.files():
        if "/" in path and is_image(path):
            found.add(path, place.source(path), unquote(path.split("/", 1)[0]))
    return found.table()
