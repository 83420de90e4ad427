"""Samples into the files of the public part: Parquet, WebDataset tar, or a folder for each class.

A shard is written sample by sample, so its size costs no memory, and is whole or absent. Beside the
recipe it gets a note, written last: with it the shard is complete, and the note has the hashes that
the shard is checked against.

All files bear the same time, and a tar has no owner: what a file system adds must not tell in which
order, or how fast, a sample was made.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from augment.encode import Codec
from orchestrator.store import atomic_file, disk_errors, write_atomic
from tasks.types import Image8

Format = Literal["parquet", "imagefolder", "webdataset"]

FILE_TIME = 315532800  # 1 January 1980, the first day that a zip can hold

SHARD_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),  # as the metadata's `codec` says
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
    ]
)
"""Columns of a public Parquet shard. With codec raw an image is height x width x 3 bytes, RGB."""

DIGEST = pa.binary(32)
NOTE_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("source_sha256", DIGEST, nullable=False),  # of the source's pixels
        pa.field("image_sha256", DIGEST, nullable=False),  # of the bytes in the shard
    ]
)

_BLOCK, _RECORD = 512, 10240  # bytes: a tar is padded to whole ones


@dataclass(frozen=True)
class Samples:
    """Some samples of a shard.

    Attributes:
        ids: (n,).
        labels: (n,).
        images: (n, h, w, 3).
        sources: what they were made from, (n, h, w, 3).
        noisy: which images are not their sources, (n,).
    """

    ids: list[str]
    labels: list[int]
    images: Image8
    sources: Image8
    noisy: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Shard:
    """What the public manifest says of a shard.

    Attributes:
        name: its file; of a folder only a name for the samples of one task.
        samples: how many it holds.
        bytes: its size, or that of its images.
        sha256: of the file, or of its images one after the other.
    """

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ShardWriter:
    """Writes the shards of one data set.

    Attributes:
        public: where they go.
        notes: where the note of each goes.
        format_: of the shards.
        codec: of the images in them.
        classes: names of the labels.
    """

    public: Path
    notes: Path
    format_: Format
    codec: Codec
    classes: tuple[str, ...]

    def write(self, shard: int, parts: Iterable[Samples]) -> None:
        """Write one shard, and then its note."""
        note: list[pa.Table] = []
        noted = self._noted(parts, note)
        name = self.name(shard)
        if self.format_ == "imagefolder":
            size, digest = self._write_files(noted)
        else:
            with atomic_file(self.public / name) as file:
                sink = _Hashed(file)
                (self._write_parquet if self.format_ == "parquet" else _write_tar)(sink, noted)
            os.utime(self.public / name, (FILE_TIME, FILE_TIME))
            size, digest = sink.size, sink.digest
        table = pa.concat_tables(note)
        made = Shard(name, table.num_rows, size, digest.hexdigest())
        table = table.replace_schema_metadata({"shard": json.dumps(asdict(made))})
        write_atomic(self._note_path(shard), parquet_bytes(table))

    def note(self, shard: int) -> tuple[Shard, pa.Table] | None:
        """Return what is noted of a shard, None where it is not complete."""
        path = self._note_path(shard)
        if not path.exists():
            return None
        table = pq.read_table(path, partitioning=None)
        return Shard(**json.loads(table.schema.metadata[b"shard"])), table

    def is_complete(self, shard: int, ids: list[str], labels: list[int]) -> bool:
        """Return whether a shard is noted and its files have the sizes that they had then."""
        noted = self.note(shard)
        if noted is None:
            return False
        if self.format_ == "imagefolder":
            files = [self.file_of(id_, label) for id_, label in zip(ids, labels, strict=True)]
        else:
            files = [self.public / noted[0].name]
        try:
            return sum(file.stat().st_size for file in files) == noted[0].bytes
        except FileNotFoundError:
            return False

    def name(self, shard: int) -> str:
        """Return the name of a shard."""
        ending = {"parquet": ".parquet", "webdataset": ".tar", "imagefolder": ""}[self.format_]
        return f"part-{shard:05d}{ending}"

    def file_of(self, sample_id: str, label: int) -> Path:
        """Return where the image of a sample lies in a folder of images."""
        return self.public / self.classes[label] / f"{sample_id}.{self.codec.suffix}"

    def _note_path(self, shard: int) -> Path:
        return self.notes / f"{shard:05d}.parquet"

    def _noted(self, parts: Iterable[Samples], note: list[pa.Table]) -> Iterator[_Encoded]:
        """Encode samples, and keep the hashes of what came in and of what goes out."""
        for part in parts:
            images = (
                _without_copy(part.images)
                if self.codec.name == "raw"
                else pa.array(self.codec.encode(part.images), pa.binary())
            )
            sources = [hashlib.sha256(source.data).digest() for source in part.sources]
            # Bare pixels without noise are their source, whose hash is known.
            known = ~part.noisy if self.codec.name == "raw" else np.zeros(len(sources), np.bool_)
            made = [
                source if same else hashlib.sha256(image.as_buffer()).digest()
                for same, source, image in zip(known, sources, images, strict=True)
            ]
            columns = [part.ids, sources, made]
            note.append(_table(columns, NOTE_SCHEMA))
            yield _Encoded(part.ids, part.labels, images, part.images.shape[1:3], self.codec)

    def _write_parquet(self, sink: _Hashed, parts: Iterable[_Encoded]) -> None:
        schema = SHARD_SCHEMA.with_metadata({"codec": str(self.codec)})
        # The images are compressed already, or noise; dictionaries and statistics of them are
        # nothing but time.
        with pq.ParquetWriter(
            sink,
            schema,
            compression="none",
            use_dictionary=["label", "height", "width"],
            write_statistics=["sample_id", "label"],
        ) as writer:
            for part in parts:
                heights, widths = ([side] * len(part.ids) for side in part.size)
                columns = [part.ids, part.labels, part.images, heights, widths]
                writer.write_table(_table(columns, schema))

    def _write_files(self, parts: Iterable[_Encoded]) -> tuple[int, Any]:
        size, digest = 0, hashlib.sha256()
        for part in parts:
            for id_, label, image in zip(part.ids, part.labels, part.images, strict=True):
                path, data = self.file_of(id_, label), image.as_buffer()
                _write_small(path, data)
                size += data.size
                digest.update(data)
        return size, digest


@dataclass(frozen=True)
class _Encoded:
    ids: list[str]
    labels: list[int]
    images: pa.BinaryArray
    size: tuple[int, ...]
    codec: Codec


class _Hashed:
    """A file to write to that keeps the hash and the size of what goes by."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        self.digest.update(data)
        count = self._file.write(data)
        self.size += count
        return count

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Leave the file to whoever opened it."""


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as the bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def _write_tar(sink: _Hashed, parts: Iterable[_Encoded]) -> None:
    for part in parts:
        for id_, label, image in zip(part.ids, part.labels, part.images, strict=True):
            _write_member(sink, f"{id_}.{part.codec.suffix}", image.as_buffer())
            _write_member(sink, f"{id_}.cls", str(label).encode())
    sink.write(bytes(2 * _BLOCK))
    sink.write(bytes(-sink.size % _RECORD))


def _write_member(sink: _Hashed, name: str, data: Any) -> None:
    member = tarfile.TarInfo(name)  # of nobody, readable for all, at time 0
    member.size = len(data)
    sink.write(member.tobuf(tarfile.USTAR_FORMAT))
    sink.write(data)
    sink.write(bytes(-len(data) % _BLOCK))


def _write_small(path: Path, data: Any) -> None:
    """Write one image whole or not at all, without waiting for the disk.

    A thousand waits would take a second. After a power cut the sizes tell, on going on.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        partial.write_bytes(data)
        os.utime(partial, (FILE_TIME, FILE_TIME))
        os.replace(partial, path)


def _without_copy(images: Image8) -> pa.BinaryArray:
    """Return images (n, h, w, 3) as n binaries over the same memory."""
    count, size = len(images), int(np.prod(images.shape[1:]))
    offsets = np.arange(count + 1, dtype=np.int32) * np.int32(size)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(images))]
    return pa.Array.from_buffers(pa.binary(), count, buffers)


def _table(columns: list[Any], schema: pa.Schema) -> pa.Table:
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
