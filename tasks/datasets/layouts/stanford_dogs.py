"""Stanford Dogs: Images/n02085620-Chihuahua/*.jpg, Annotation/, *_list.mat (Khosla et al. 2011)."""

from __future__ import annotations

import io
import re
from urllib.parse import unquote
from xml.etree import ElementTree

import pyarrow as pa

from tasks.datasets.decode import Box
from tasks.datasets.listing import Listing, is_image
from tasks.datasets.places import Place
from tasks.datasets.sources import with_box
from tasks.errors import DataError

_IMAGE = re.compile(r"(?:^|/)Images/(n\d{8}-[^/]+)/([^/]+)\.[^./]+$")


def stanford_dogs(place: Place, boxes: bool) -> pa.Table:
    """List all images by breed; the split is that of train_list.mat and test_list.mat.

    Raises:
        DataError: a list or an annotation is damaged.
    """
    files = place.files()
    split = {
        image: name
        for name in ("train", "test")
        for path in files
        if path.rsplit("/", 1)[-1] == f"{name}_list.mat"
        for image in _list(place, path)
    }
    notes = {path.split("Annotation/", 1)[1]: path for path in files if "Annotation/" in path}
    found = Listing(place.name)
    for path in files:
        match = _IMAGE.search(path)
        if not match or not is_image(path):
            continue
        breed, stem = match[1], match[2]
        source = place.source(path)
        if boxes and (note := notes.get(f"{breed}/{stem}")) is not None:
            source = with_box(source, _box(place, note))
        listed = unquote(f"{breed}/{path.rsplit('/', 1)[-1]}")
        found.add(path, source, unquote(breed), split=split.get(listed, ""))
    return found.table()


def _list(place: Place, path: str) -> list[str]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        cells = loadmat(io.BytesIO(place.read(path)))["file_list"]
        return [str(cell[0].item()) for cell in cells]
    except (MatReadError, KeyError, ValueError, IndexError, TypeError):
        raise DataError(f"{path} is no list of Stanford Dogs, or a damaged one") from None


def _box(place: Place, path: str) -> Box:
    """Return the first dog's box of an annotation (Pascal VOC's XML)."""
    try:
        # Python's own parser does not expand external entities; the text is small.
        box = ElementTree.fromstring(place.read(path)).find("object/bndbox")  # noqa: S314
        assert box is not None
        x1, y1, x2, y2 = (int(box.findtext(side, "")) for side in ("xmin", "ymin", "xmax", "ymax"))
    except (ElementTree.ParseError, AssertionError, ValueError):
        raise DataError(f"{path} is no annotation with a bndbox; repair or remove it") from None
    return (x1, y1, x2 - x1, y2 - y1)
