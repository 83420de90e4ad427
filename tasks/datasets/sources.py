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
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from tasks.datasets.decode import MAX_BYTES, Box, UnreadableImage
from tasks.errors import DataError

Stamp = tuple[int, int]
"""Bytes and modification time of a file: whether it was replaced, without reading it."""


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


CONNECT_S, REQUEST_S, ATTEMPTS = 10, 60, 4
"""An object store that does not answer in that time, so often, cannot be reached."""


@functools.lru_cache(maxsize=64)
def filesystem(scheme: str, bucket: str = "") -> pafs.FileSystem:
    """Return the file system of an object store; s3 also takes AWS_ENDPOINT_URL, as AWS's tools do.

    Args:
        scheme: s3, gs.
        bucket: whose region is asked for where neither a region nor an endpoint is set: buckets of
            one owner lie in several.

    Raises:
        pa.ArrowInvalid: this Arrow knows no such scheme.
        DataError: the store cannot be reached.
    """
    if scheme != "s3":
        return pafs.FileSystem.from_uri(f"{scheme}://{bucket or 'bucket'}/key")[0]
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not region and not endpoint and bucket:
        try:
            region = pafs.resolve_s3_region(bucket)
        except OSError as error:
            raise _unreachable(f"s3://{bucket}") from error
    return pafs.S3FileSystem(
        endpoint_override=endpoint,
        region=region,
        connect_timeout=CONNECT_S,
        request_timeout=REQUEST_S,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )


_NO_ANSWER = ("NETWORK_CONNECTION", "curlCode", "REQUEST_TIMEOUT", "SLOW_DOWN")
"""What Arrow says of a store that does not answer: nothing is known of the object then."""


def _unreachable(uri: str) -> DataError:
    return DataError(
        f"cannot reach the object store of {uri}; check the network, AWS_ENDPOINT_URL and "
        "AWS_REGION, and run again"
    )


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
    parts = urlsplit(uri)
    return filesystem(parts.scheme, parts.netloc).open_input_file(object_path(uri))


def read_source(source: str) -> bytes:
    """Return the bytes of the image that a row's `source` names.

    Containers stay open in the process that reads them, so that a member costs one seek.

    Raises:
        UnreadableImage: with the reason.
        DataError: an object store does not answer; that is no verdict on the image.
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
    except (
        OSError,
        zipfile.BadZipFile,
        pa.ArrowException,
        ValueError,
        RuntimeError,
        EOFError,
    ) as error:
        remote = not parts.container.startswith("file:")
        if remote and any(word in str(error) for word in _NO_ANSWER):
            raise _unreachable(parts.container) from None
        raise UnreadableImage("cannot be read") from None
    if len(data) > MAX_BYTES:
        raise UnreadableImage("file too large")
    return data


def _whole(parts: Parts) -> bytes:
    with open_binary(parts.container) as file:
        return bytes(file.read(MAX_BYTES + 1))


def _zip_member(parts: Parts) -> bytes:
    archive = open_zip(parts.container, container_stamp(parts.container))
    if archive.getinfo(parts.member).file_size > MAX_BYTES:
        raise UnreadableImage("file too large")
    return archive.read(parts.member)


def _tar_bytes(parts: Parts) -> bytes:
    offset, size = (int(number) for number in parts.member.split(","))
    if size > MAX_BYTES:
        raise UnreadableImage("file too large")
    file = _kept_open(parts.container, container_stamp(parts.container))
    file.seek(offset)
    data = bytes(file.read(size))
    if len(data) < size:
        raise UnreadableImage("truncated")
    return data


def _parquet_cell(parts: Parts) -> bytes:
    group, row, column = parts.member.split(",", 2)
    columns = _row_group(parts.container, container_stamp(parts.container), int(group), column)
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
    return _tensor_ppm(np.asarray(cell), tensor_shape(columns.schema.field(column)))


def tensor_shape(field: pa.Field) -> tuple[int, ...] | None:
    """Return the shape that a column's type tells of its tensors (Arrow's own or Ray's), or None.

    Where Ray is not imported its type is unknown, and only the field's metadata tell.
    """
    shape = getattr(field.type, "shape", None)
    if shape is None:
        with contextlib.suppress(ValueError):
            shape = json.loads((field.metadata or {}).get(b"ARROW:extension:metadata", b"null"))
        shape = shape.get("shape") if isinstance(shape, dict) else shape
    numbers = isinstance(shape, list | tuple) and all(isinstance(n, int) for n in shape)
    return tuple(shape) if shape and numbers else None


def _tensor_ppm(pixels: npt.NDArray[Any], shape: tuple[int, ...] | None) -> bytes:
    """Write (h, w), (h, w, 1 or 3) or (1 or 3, h, w) as a PPM; ValueError where it is no image."""
    pixels = pixels if shape is None else pixels.reshape(shape)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
        raise ValueError("no image of 8 bits")
    if pixels.shape[2] not in (1, 3):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.shape[2] not in (1, 3):
        raise ValueError("neither grey nor RGB")
    pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).astype(np.uint8)
    return _ppm(pixels.tobytes(), pixels.shape[:2])


def _ppm(pixels: bytes, size: tuple[int, ...]) -> bytes:
    return b"P6 %d %d 255\n" % (size[1], size[0]) + pixels


_READERS = {"": _whole, "zip": _zip_member, "tar": _tar_bytes, "parquet": _parquet_cell}


@functools.lru_cache(maxsize=16)
def _kept_open(uri: str, stamp: Stamp) -> Any:
    return open_binary(uri)


@functools.lru_cache(maxsize=16)
def open_zip(uri: str, stamp: Stamp) -> zipfile.ZipFile:
    """Return an open zip, the same one for the same URI until its `container_stamp` changes.

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
def _row_group(uri: str, stamp: Stamp, group: int, column: str) -> pa.Table:
    file = pq.ParquetFile(_kept_open(uri, stamp))
    size = [name for name in ("height", "width") if name in file.schema_arrow.names]
    return file.read_row_group(group, columns=[column, *size])


def file_stamps(sources: Sequence[str]) -> list[Stamp]:
    """Return (bytes, modification time in ns) of each source's local file, else (-1, -1).

    Cheap to compare: they tell that a file was replaced, without reading it. Objects of a store
    have none here.
    """
    known: dict[str, Stamp] = {}
    found = []
    for source in sources:
        container = take_apart(source).container
        if container not in known:
            known[container] = container_stamp(container)
        found.append(known[container])
    return found


def container_stamp(container: str) -> Stamp:
    """Return (bytes, modification time in ns) of a local file, else (-1, -1)."""
    if not container.startswith("file:"):
        return (-1, -1)
    try:
        found = source_path(container).stat()
    except OSError:
        return (-1, -1)
    return (found.st_size, found.st_mtime_ns)
