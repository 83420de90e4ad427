"""Pixels in, once: every row of a data set is read, decoded, cropped and resized by Ray Data.

A folder of the result holds
  rows.parquet        the row table without the quarantined rows, sorted by ROW_ORDER
  images.npy          uint8 (n, s, s, 3); row i of the table is image i; every process that maps it
                      shares its pages
  sizes.npy           uint32 (n,), height * 65536 + width of what was taken of each file
  quarantine.parquet  the rows that cannot be read, each with its reason
  images.json         counts, sizes and the digest; written last, so its presence means complete
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from augment.dcd import pack_size
from orchestrator.block_stream import Batch, cut, map_blocks
from orchestrator.store import disk_errors, write_atomic
from tasks.datasets.decode import UnreadableImage, decode_part
from tasks.datasets.selection import ROW_ORDER
from tasks.datasets.sources import read_source, source_name, take_apart
from tasks.datasets.spec import BuiltinData, FolderData
from tasks.errors import DataError, QuarantineError, StoreError, TargetClassError
from tasks.spec import fingerprint
from tasks.types import ROW_SCHEMA, Image8

Progress = Callable[[int, int], None]
"""Called with (done, total)."""

MappedImages = np.memmap[tuple[int, ...], np.dtype[np.uint8]]

_MANIFEST, _ROWS, _IMAGES, _SIZES, _QUARANTINE = (
    "images.json",
    "rows.parquet",
    "images.npy",
    "sizes.npy",
    "quarantine.parquet",
)

_COPY_ROWS = 4096  # images moved or hashed at a time: 12 MB at 32 x 32


@dataclass(frozen=True)
class IngestResult:
    """What came in.

    Attributes:
        rows: images kept.
        quarantined: images dropped, by reason.
        manifest: what images.json holds; `manifest["digest"]` changes with any row or pixel.
    """

    rows: int
    quarantined: dict[str, int]
    manifest: dict[str, Any]


def ingest(
    rows: pa.Table,
    data: BuiltinData | FolderData,
    seed: int,
    out: Path,
    *,
    rows_per_block: int = 512,
    on_progress: Progress | None = None,
) -> IngestResult:
    """Read or render the pixels of a row table into a folder; Ray must be running.

    The result does not depend on `rows_per_block`, the number of workers, or the order of `rows`.

    Args:
        rows: a row table.
        data: where the pixels come from, their size, and how many may be unreadable.
        seed: the experiment's seed (of the built-in faces; a folder's pixels ignore it).
        out: the folder to write; what an earlier call left there is replaced.
        rows_per_block: rows of one task.
        on_progress: called after each block.

    Raises:
        QuarantineError: more images are unreadable than the settings allow.
        TargetClassError: a private class has no readable training or test image left.
        DataError: no surrogate image, or no public image, is left.
        DiskFullError, StoreError: the folder cannot be written.
    """
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / _MANIFEST).unlink(missing_ok=True)
        rows = rows.sort_by(ROW_ORDER)
        partial_file = out / f".{_IMAGES}.partial"
        try:
            shape = (rows.num_rows, data.image_size, data.image_size, 3)
            images = _allocate(partial_file, shape)
            reasons, sizes = _fill(images, rows, data, seed, rows_per_block, on_progress)
            bad = reasons != ""
            _judge(rows, reasons, data, out)
            rows = rows.filter(pa.array(~bad))
            if bad.any():
                packed_file = out / f".{_IMAGES}.packed.partial"
                images = _without(images, bad, packed_file)
                os.replace(packed_file, partial_file)
            images.flush()
            _write_table(rows, out / _ROWS)
            np.save(out / _SIZES, sizes[~bad], allow_pickle=False)
            os.replace(partial_file, out / _IMAGES)
        finally:
            for left in out.glob(".*.partial"):
                left.unlink()
        quarantined = dict(sorted(Counter(reasons[bad].tolist()).items()))
        manifest = {
            "rows": rows.num_rows,
            "splits": dict(sorted(Counter(rows["split"].to_pylist()).items())),
            "image_size": data.image_size,
            "quarantined": quarantined,
            "digest": _digest(rows, images),
            "settings": fingerprint({"data": data, "seed": seed}),
            "bytes": {name: (out / name).stat().st_size for name in (_ROWS, _IMAGES, _SIZES)},
        }
    write_atomic(out / _MANIFEST, json.dumps(manifest, indent=2) + "\n")
    return IngestResult(rows.num_rows, quarantined, manifest)


def load_images(folder: Path) -> tuple[pa.Table, Image8]:
    """Open what `ingest` wrote.

    Sizes and counts are checked, so that a torn file is found; the pixels are not hashed again,
    since every process of a sweep opens them.

    Returns:
        The row table, and the images of shape (n, s, s, 3), mapped read-only.

    Raises:
        StoreError: the folder is missing, unfinished, or not what its manifest says.
    """
    again = f"delete the folder {folder} and run again to make it anew"
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        for name, size in manifest["bytes"].items():
            if (found := (folder / name).stat().st_size) != size:
                raise StoreError(f"{folder / name} has {found} bytes, not {size}; {again}")
        rows = pq.read_table(folder / _ROWS, partitioning=None)
        images: Image8 = np.load(folder / _IMAGES, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise StoreError(
            f"the images in {folder} are missing or unfinished ({Path(error.filename).name} is not "
            f"there); {again}"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise StoreError(f"the images in {folder} are damaged; {again}") from error
    size = manifest.get("image_size")
    if rows.schema != ROW_SCHEMA or images.shape != (rows.num_rows, size, size, 3):
        raise StoreError(f"the rows and the images in {folder} do not belong together; {again}")
    return rows, images


def load_sizes(folder: Path) -> npt.NDArray[np.uint32]:
    """Return the packed size that each image of `load_images` has in its file, uint32 (n,)."""
    sizes: npt.NDArray[np.uint32] = np.load(folder / _SIZES, allow_pickle=False)
    return sizes


def _fill(
    images: Image8,
    rows: pa.Table,
    data: BuiltinData | FolderData,
    seed: int,
    rows_per_block: int,
    on_progress: Progress | None,
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.uint32]]:
    """Write every row's pixels to its place; return reasons, "" where it can be read, and sizes."""
    reasons = np.full(len(images), "", dtype="U32")
    content = np.zeros(len(images), dtype=np.uint64)
    sizes = np.zeros(len(images), dtype=np.uint32)
    task = pa.table(
        {
            "position": np.arange(len(images)),
            "source": rows["source"],
            "public": pc.equal(rows["split"], "public"),
        }
    )
    # As the bytes lie, not as the ids do: a row group is decoded once, an archive read in one go.
    task = task.sort_by("source")
    done = 0
    for batch in map_blocks(cut(task, rows_per_block), partial(_pixels_of, data=data, seed=seed)):
        images[batch["position"]] = batch["pixels"]
        reasons[batch["position"]] = batch["reason"]
        content[batch["position"]] = batch["content"]
        sizes[batch["position"]] = batch["size"]
        done += len(batch["position"])
        if on_progress is not None:
            on_progress(done, len(images))
    reasons[_under_two_names(rows, content)] = TWO_NAMES
    return reasons, sizes


TWO_NAMES = "under two identities"
"""Why an image is set aside that one data set gives to several people: nobody knows whose it is."""


def _under_two_names(rows: pa.Table, content: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Mark the images that occur, pixel for pixel, under more than one identity.

    Args:
        rows: the row table.
        content: hash of each row's pixels, 0 where there are none to compare.
    """
    whose = rows["identity"].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.lexsort((whose, content))
    same = content[order][1:] == content[order][:-1]
    other = whose[order][1:] != whose[order][:-1]
    shared = np.unique(content[order][1:][same & other])
    return np.isin(content, shared[shared != 0])


def _pixels_of(block: pa.Table, *, data: BuiltinData | FolderData, seed: int) -> Batch:
    """Return the pixels of a block's rows; runs on a Ray worker."""
    sources = block["source"].to_pylist()
    reasons = [""] * len(sources)
    content = np.zeros(len(sources), dtype=np.uint64)
    public = block["public"].to_numpy()
    sizes = np.full(len(sources), pack_size(data.image_size, data.image_size), dtype=np.uint32)
    from tasks.datasets.builtin import BUILTIN, render_rows

    if isinstance(data, BuiltinData):
        pixels = render_rows(sources, seed, data.image_size)
    else:
        pixels = np.zeros((len(sources), data.image_size, data.image_size, 3), np.uint8)
        drawn = [i for i, source in enumerate(sources) if source.startswith(BUILTIN)]
        pixels[drawn] = render_rows([sources[i] for i in drawn], seed, data.image_size)
        for i, source in enumerate(sources):
            if source.startswith(BUILTIN):
                continue
            try:
                crop = data.public_from.crop if public[i] and data.public_from else data.crop
                box = take_apart(source).box
                pixels[i], size = decode_part(read_source(source), data.image_size, crop, box)
                sizes[i] = pack_size(*size)
            except UnreadableImage as verdict:
                reasons[i] = verdict.reason
            else:
                digest = hashlib.blake2b(pixels[i].tobytes(), digest_size=8).digest()
                content[i] = int.from_bytes(digest, "little")
    return {
        "position": block["position"].to_numpy(),
        "pixels": pixels,
        "reason": np.array(reasons),
        "content": content,
        "size": sizes,
    }


def _judge(
    rows: pa.Table, reasons: npt.NDArray[np.str_], data: BuiltinData | FolderData, out: Path
) -> None:
    """Write the list of quarantined rows; raise if too many or the wrong ones are on it."""
    bad = reasons != ""
    listed = rows.filter(pa.array(bad)).select(["row_id", "identity", "split", "source"])
    _write_table(listed.append_column("reason", pa.array(reasons[bad])), out / _QUARANTINE)
    if isinstance(data, BuiltinData) or not bad.any():
        return
    n, total = listed.num_rows, rows.num_rows
    see = f"all are listed in {out / _QUARANTINE}"
    if n > data.max_quarantine_fraction * total:
        first = source_name(listed["source"][0].as_py()).removeprefix(f"{data.root}/")
        raise QuarantineError(
            f"{n} of {total} images ({n / total:.1%}) cannot be used, and "
            f"data.max_quarantine_fraction allows {data.max_quarantine_fraction:.1%}; the first is "
            f"{first} ({reasons[bad][0]}), {see}; repair or remove them, or raise the limit"
        )
    kept = rows.filter(pa.array(~bad))
    for label, split, identity in sorted(_groups(rows) - _groups(kept)):
        if label >= 0:
            use = "train on" if split == "train" else "test on"
            raise TargetClassError(
                f"private class {identity!r} has no readable image left to {use}; {see}; "
                "replace some"
            )
    for split in sorted(set(rows["split"].to_pylist()) - set(kept["split"].to_pylist())):
        raise DataError(f"no {split} image can be used; {see}; replace some")


def _groups(rows: pa.Table) -> set[tuple[int, str, str]]:
    columns = ["label", "split", "identity"]
    groups = rows.group_by(columns).aggregate([]).to_pylist()
    return {(g["label"], g["split"], g["identity"]) for g in groups}


def _allocate(path: Path, shape: tuple[int, ...]) -> MappedImages:
    """Return a mapped array whose blocks the disk has granted.

    Without them a full disk would kill the process at some later write to the map (SIGBUS); now it
    is an error at the beginning.
    """
    images: MappedImages = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    return images


def _without(images: Image8, bad: npt.NDArray[np.bool_], path: Path) -> MappedImages:
    kept = np.flatnonzero(~bad)
    packed = _allocate(path, (len(kept), *images.shape[1:]))
    for part in _parts(len(kept)):
        packed[part] = images[kept[part]]
    return packed


def _parts(count: int) -> Iterator[slice]:
    return (slice(a, a + _COPY_ROWS) for a in range(0, count, _COPY_ROWS))


def _digest(rows: pa.Table, images: Image8) -> str:
    """Hash all rows and pixels, but not where the files lie: a moved folder is the same data."""
    digest = hashlib.sha256(json.dumps(rows.drop_columns("source").to_pydict()).encode())
    for part in _parts(len(images)):
        digest.update(images[part].tobytes())
    return digest.hexdigest()


def _write_table(table: pa.Table, path: Path) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_atomic(path, sink.getvalue().to_pybytes())
