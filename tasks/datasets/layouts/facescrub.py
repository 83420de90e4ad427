"""FaceScrub: actors/faces/<Name>/*.jpg and actresses/faces/<Name>/*.jpg (Ng and Winkler 2014).

Some copies say images/ instead of faces/, or have neither. A name in both lists is two identities.
"""

from __future__ import annotations

from urllib.parse import unquote

import pyarrow as pa

from tasks.datasets.listing import Listing, is_image
from tasks.datasets.places import Place


def facescrub(place: Place, boxes: bool) -> pa.Table:
    """List actors, then actresses, each by name. There are no boxes.

    Identities are `actors/<Name>` and `actresses/<Name>`.
    """
    files = [path for path in place.files() if is_image(path)]
    found = Listing(place.name)
    for group in ("actors", "actresses"):
        for path in files:
            folders = path.split("/")[:-1]
            if group not in folders:
                continue
            below = folders[folders.index(group) + 1 :]
            if below and below[0] in ("faces", "images"):
                below = below[1:]
            if below:
                found.add(path, place.source(path), f"{group}/{unquote(below[0])}")
    return found.table()
