"""Where one image's bytes are, as a URI, and how they are read.

    file:///faces/ann/1.jpg                     a file
    s3://bucket/faces/ann/1.jpg                 an object
    zip+file:///faces.zip!/ann/1.jpg            a member of a zip
    tar+s3://bucket/shard-0.tar!/1536,20480     bytes of a tar, from an offset
    parquet+file:///faces.parquet!/0,17,image   a cell: row group, row, column

`#xywh=5,6,40,30` behind any of them is the annotated box in pixels (W3C Media Fragments). Names are
percent-encoded, so that they need not be UTF-8.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from tasks.datasets.decode import MAX_BYTES, Box, UnreadableImage


class Parts(NamedTuple):
    """A source taken apart: kind ("", "zip", "tar", "parquet"), container, member, box."""

    kind: str
    container: str
    member: str
    box: Box | None


def member_source(kind: str, container: str, member: str) -> str:
    """Return the source of a part of a container, whose name is quoted."""
    return f"{kind}+{container}!/{quote(member, safe='/,')}"


def with_box(source: str, box: Box) -> str:
    """Return a source with the annotated box of its image."""
    return f"{source}#xywh={','.join(str(side) for side in box)}"


def take_apart(source: str) -> Parts:
    """Return the parts of a source."""
    place, _, fragment = source.partition("#xywh=")
    box = None
    if fragment:
        left, top, width, height = (int(side) for side in fragment.split(","))
        box = (left, top, width, height)
    kind, plus, rest = place.partition("+")
    if plus and kind in ("zip", "tar", "parquet"):
        container, _, member = rest.rpartition("!/")
        return Parts(kind, container, unquote(member), box)
    return Parts("", place, "", box)


def source_path(source: str) -> Path:
    """Return the local file that a source names or lies in. File names need not be UTF-8."""
    return Path(os.fsdecode(unquote_to_bytes(urlsplit(take_apart(source).container).path)))


def source_name(source: str) -> str:
    """Return what people call an image: the path of its file or object, or of its member."""
    parts = take_apart(source)
    return parts.member or os.fspath(source_path(source))


@functools.lru_cache(maxsize=8)
def filesystem(scheme: str) -> pafs.FileSystem:
    """Return the file system of an object store; s3 also takes AWS_ENDPOINT_URL, as AWS's tools do.

    Raises:
        pa.ArrowInvalid: this Arrow knows no such scheme.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if scheme == "s3" and endpoint:
        parts = urlsplit(endpoint)
        return pafs.S3FileSystem(endpoint_override=parts.netloc, scheme=parts.scheme)
    return pafs.FileSystem.from_uri(f"{scheme}://bucket/key")[0]


def object_path(uri: str) -> str:
    """Return the path of an object within its store: bucket and key."""
    parts = urlsplit(uri)
    return unquote(parts.netloc + parts.path)


def open_binary(uri: str) -> Any:
    """Open a file or an object for reading at random.

    Raises:
        OSError: it cannot be opened, or lies inside another container.
    """
    if uri.startswith("file:"):
        return source_path(uri).open("rb")
    if "+" in urlsplit(uri).scheme:
        raise OSError(f"{uri} lies in another archive, where it cannot be read at random")
    return filesystem(urlsplit(uri).scheme).open_input_file(object_path(uri))


def read_source(source: str) -> bytes:
    """Return the bytes of the image that a row's `source` names.

    Containers stay open in the process that reads them, so that a member costs one seek.

    Raises:
        UnreadableImage: with the reason.
    """
    parts = take_apart(source)
    try:
        data = _READERS[parts.kind](parts)
    except FileNotFoundError:
        raise UnreadableImage("file is gone") from None
    except PermissionError:
        raise UnreadableImage("permission denied") from None
    except KeyError:  # a member that is not there
        raise UnreadableImage("file is gone") from None
    except (OSError, zipfile.BadZipFile, pa.ArrowException, ValueError, RuntimeError, EOFError):
        raise UnreadableImage("cannot be read") from None
    if len(data) > MAX_BYTES:
        raise UnreadableImage("file too large")
    return data


def _whole(parts: Parts) -> bytes:
    with open_binary(parts.container) as file:
        return bytes(file.read(MAX_BYTES + 1))


def _zip_member(parts: Parts) -> bytes:
    archive = open_zip(parts.container)
    if archive.getinfo(parts.member).file_size > MAX_BYTES:
        raise UnreadableImage("file too large")
    return archive.read(parts.member)


def _tar_bytes(parts: Parts) -> bytes:
    offset, size = (int(number) for number in parts.member.split(","))
    if size > MAX_BYTES:
        raise UnreadableImage("file too large")
    file = _kept_open(parts.container)
    file.seek(offset)
    data = bytes(file.read(size))
    if len(data) < size:
        raise UnreadableImage("truncated")
    return data


def _parquet_cell(parts: Parts) -> bytes:
    group, row, column = parts.member.split(",", 2)
    columns = _row_group(parts.container, int(group), column)
    cell = columns[column][int(row)].as_py()
    if isinstance(cell, dict):  # how Hugging Face's datasets keep an image
        cell = cell.get("bytes")
    if cell is None:
        raise UnreadableImage("empty file")
    if isinstance(cell, bytes):
        if "height" not in columns.column_names:
            return cell
        size = (columns["height"][int(row)].as_py(), columns["width"][int(row)].as_py())
        # Our own shards keep plain pixels, others an encoded image: the length tells.
        return _ppm(cell, size) if len(cell) == 3 * size[0] * size[1] else cell
    pixels = np.asarray(cell, dtype=np.uint8)
    return _ppm(pixels.tobytes(), pixels.shape[:2])


def _ppm(pixels: bytes, size: tuple[int, ...]) -> bytes:
    return b"P6 %d %d 255\n" % (size[1], size[0]) + pixels


_READERS = {"": _whole, "zip": _zip_member, "tar": _tar_bytes, "parquet": _parquet_cell}


@functools.lru_cache(maxsize=16)
def _kept_open(uri: str) -> Any:
    return open_binary(uri)


@functools.lru_cache(maxsize=16)
def open_zip(uri: str) -> zipfile.ZipFile:
    """Return an open zip, the same one for the same URI.

    Raises:
        OSError, zipfile.BadZipFile: it cannot be read.
    """
    file = open_binary(uri)
    with contextlib.ExitStack() as closing:
        closing.callback(file.close)
        archive = zipfile.ZipFile(file if uri.startswith("file:") else io.BufferedReader(file))
        closing.pop_all()
    return archive


@functools.lru_cache(maxsize=2)
def _row_group(uri: str, group: int, column: str) -> pa.Table:
    file = pq.ParquetFile(_kept_open(uri))
    size = [name for name in ("height", "width") if name in file.schema_arrow.names]
    return file.read_row_group(group, columns=[column, *size])


def file_stamps(sources: Sequence[str]) -> list[tuple[int, int]]:
    """Return (bytes, modification time in ns) of each source's local file, else (-1, -1).

    Cheap to compare: they tell that a file was replaced, without reading it. Objects of a store
    have none here.
    """
    known: dict[str, tuple[int, int]] = {}
    found = []
    for source in sources:
        container = take_apart(source).container
        if container not in known:
            known[container] = _stamp(container)
        found.append(known[container])
    return found


def _stamp(container: str) -> tuple[int, int]:
    if not container.startswith("file:"):
        return (-1, -1)
    try:
        found = source_path(container).stat()
    except OSError:
        return (-1, -1)
    return (found.st_size, found.st_mtime_ns)
