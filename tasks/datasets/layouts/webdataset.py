"""WebDataset: tar shards in which key.jpg stands beside key.cls, or key.json with the identity."""

from __future__ import annotations

import json
import tarfile
from typing import Any

import pyarrow as pa

from tasks.datasets.listing import Listing, is_image
from tasks.datasets.places import Place
from tasks.datasets.sources import member_source, open_binary
from tasks.errors import DataError

JSON_KEYS = ("identity", "label", "person", "class")


def webdataset(place: Place, boxes: bool) -> pa.Table:
    """List the samples of all *.tar; a shard is read through once. There are no boxes.

    Raises:
        DataError: a shard is damaged, or a sample says nothing about who it shows.
    """
    found = Listing(place.name)
    for path in place.files():
        if path.endswith(".tar"):
            _shard(place, path, found)
    return found.table()


def _shard(place: Place, path: str, found: Listing) -> None:
    container = place.source(path)
    images: dict[str, tuple[int, int]] = {}
    names: dict[str, str] = {}
    try:
        with open_binary(container) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                folder, slash, base = member.name.rpartition("/")
                key, _, ending = base.partition(".")
                key = folder + slash + key
                if is_image(base):
                    images[key] = (member.offset_data, member.size)
                elif ending in ("cls", "json"):
                    content = tar.extractfile(member)
                    assert content is not None
                    names[key] = _who(content.read(), ending, f"{path}:{member.name}")
    except (tarfile.TarError, OSError, EOFError):
        raise DataError(f"{path} is no tar, or a damaged one; pack it again") from None
    for key, (offset, size) in images.items():
        if key not in names:
            raise DataError(
                f"{path}: sample {key!r} has neither {key}.cls nor {key}.json; who is it?"
            )
        source = member_source("tar", container, f"{offset},{size}")
        found.add(f"{path}!/{offset}", source, names[key])


def _who(data: bytes, ending: str, name: str) -> str:
    try:
        text = data.decode("utf-8").strip()
        if ending == "cls":
            return text
        record: Any = json.loads(text)
        return str(next(record[key] for key in JSON_KEYS if key in record))
    except (UnicodeDecodeError, ValueError, TypeError, StopIteration):
        raise DataError(
            f"{name} does not say who is shown; one of {', '.join(JSON_KEYS)} is needed in it"
        ) from None
