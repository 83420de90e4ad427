"""FFHQ: images1024x1024/00000/00000.png or thumbnails128x128/... (Karras et al. 2019).

Nobody is named: every image is an identity of its own, so it serves as public data only.
"""

from __future__ import annotations

import re

import pyarrow as pa

from tasks.datasets.listing import Listing
from tasks.datasets.places import Place

_IMAGE = re.compile(r"(?:^|/)(\d{5})\.(?:png|jpg|webp)$")


def ffhq(place: Place, boxes: bool) -> pa.Table:
    """List all images, of the largest size where a copy holds several. There are no boxes."""
    matches = [(path, match) for path in place.files() if (match := _IMAGE.search(path))]
    large = [pair for pair in matches if "images1024x1024" in pair[0]]
    found = Listing(place.name)
    for path, match in large or matches:
        found.add(path, place.source(path), match[1])
    return found.table()
