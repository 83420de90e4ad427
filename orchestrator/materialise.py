"""A plan and its images as files: the protected data set that `dcdctl augment` hands over.

<out>/public/    what may be given away: part-00000.parquet, ... (or <class>/<sample_id>.png), and
                 manifest.json, written last
<out>/private/   recipe.parquet (which sample came from which row, and which ones are decoys),
                 sample.key (what made the sample ids), and a note for each finished shard

Nothing in the public part says what a sample is: ids are hashes under a secret key, the order is
that of the ids, and there is no role. It cannot hide what pixels show (noise, a repeated image, a
stranger under a label). Pixels are rounded to the nearest of 256 levels, not truncated: truncation
would darken by half a level, and DCD's smallest noise is 0.8 of one.

A run that was killed goes on at the first shard that has no note; every file is whole or absent.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from augment.dcd import apply_recipes
from orchestrator.block_stream import Batch, cut, map_blocks, share
from orchestrator.store import disk_errors, write_atomic
from tasks.errors import StoreError
from tasks.types import Image8

Format = Literal["parquet", "imagefolder"]

SHARD_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),  # PNG, lossless
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
    ]
)
"""Columns of a public shard."""

_PNG_EFFORT = 2  # zlib level: three times as fast as the default 6, for files 15 % larger


@dataclass(frozen=True)
class Materialised:
    """What was written.

    Attributes:
        public: the folder to hand over.
        recipe: the file to keep.
        samples: images in the public folder.
        shards: parts that the samples were cut into.
        written: shards made by this call; the others were there already.
    """

    public: Path
    recipe: Path
    samples: int
    shards: int
    written: int


def materialise(
    plan: pa.Table,
    rows: pa.Table,
    images: Image8,
    out: Path,
    *,
    format_: Format = "parquet",
    samples_per_shard: int = 2048,
    on_progress: Callable[[int, int], None] | None = None,
) -> Materialised:
    """Write a protected data set; Ray must be running.

    The content depends on the plan, the images and private/sample.key alone. The key is made when
    it is not there: put an earlier one there to get the same files again.

    Args:
        plan: a table of `augment.plan.PLAN_SCHEMA`.
        rows: the row table that `source_row` points into.
        images: row i of `rows` is image i, (n, s, s, 3).
        out: an empty or new folder, or one that an earlier call left unfinished.
        format_: Parquet shards, or one PNG a sample in a folder for each class.
        samples_per_shard: samples of one shard, which is also one task.
        on_progress: called with (samples done, samples).

    Raises:
        StoreError: the folder holds another data set, or cannot be written.
        DiskFullError: no space is left.
    """
    out = out.absolute()  # workers may stand in another folder
    private, public = out / "private", out / "public"
    with disk_errors(out):
        strangers = {path.name for path in out.iterdir()} - {"private"} if out.exists() else set()
        if strangers and not (private / "recipe.parquet").exists():
            raise StoreError(f"{out} is not empty; give --out a new or an empty folder")
        private.mkdir(parents=True, exist_ok=True)
        private.chmod(0o700)
        public.mkdir(exist_ok=True)
        samples = _name_samples(plan, rows, _sample_key(private / "sample.key"))
        settings = {
            "format": format_,
            "samples_per_shard": samples_per_shard,
            "images": hashlib.sha256(np.ascontiguousarray(images).data).hexdigest(),
        }
        _keep_recipe(samples, settings, private / "recipe.parquet", out)
        writer = _ShardWriter(public, private / "shards", format_, _class_names(rows))
        shards = cut(samples, samples_per_shard)
        missing = [i for i in range(len(shards)) if not writer.note(i).exists()]
        tasks = [
            shards[i].append_column("shard", pa.array(np.full(shards[i].num_rows, i)))
            for i in missing
        ]
        done = samples.num_rows - sum(task.num_rows for task in tasks)
        run = partial(_apply_and_write, images=share(images), writer=writer)
        for batch in map_blocks(tasks, run):
            done += int(batch["samples"].sum())
            if on_progress is not None:
                on_progress(done, samples.num_rows)
        for left in public.rglob(".*.partial"):  # of a run that was killed
            left.unlink()
        notes = [json.loads(writer.note(i).read_bytes()) for i in range(len(shards))]
    manifest = {
        "samples": samples.num_rows,
        "image_size": images.shape[1],
        "format": format_,
        "classes": list(writer.classes),
        "shards": notes,
    }
    write_atomic(public / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    return Materialised(
        public, private / "recipe.parquet", samples.num_rows, len(shards), len(missing)
    )


@dataclass(frozen=True)
class _ShardWriter:
    """Writes shards, and a note beside the recipe for each that is complete."""

    public: Path
    notes: Path
    format_: Format
    classes: tuple[str, ...]

    def note(self, shard: int) -> Path:
        return self.notes / f"{shard:05d}.json"

    def write(self, shard: int, ids: list[str], labels: list[int], images: Image8) -> None:
        """Write one shard of n samples; images of shape (n, s, s, 3)."""
        pngs = [_png(image) for image in images]
        if self.format_ == "parquet":
            name = f"part-{shard:05d}.parquet"
            content = _shard(ids, labels, pngs, images.shape[1:3])
            write_atomic(self.public / name, content)
            digest = hashlib.sha256(content)
        else:
            name = f"part-{shard:05d}"
            digest = hashlib.sha256()
            for id_, label, png in zip(ids, labels, pngs, strict=True):
                write_atomic(self.public / self.classes[label] / f"{id_}.png", png)
                digest.update(png)
        note = {"name": name, "samples": len(ids), "sha256": digest.hexdigest()}
        write_atomic(self.note(shard), json.dumps(note))


def _apply_and_write(
    block: pa.Table, *, images: Callable[[], Image8], writer: _ShardWriter
) -> Batch:
    """Make one shard's pixels and write them; runs on a Ray worker."""
    pixels = apply_recipes(
        images()[block["source_row"].to_numpy()],
        block["sigma"].to_numpy(),
        block["seed"].to_numpy(),
    )
    writer.write(
        block["shard"][0].as_py(),
        block["sample_id"].to_pylist(),
        block["label"].to_pylist(),
        np.rint(pixels * 255).astype(np.uint8),
    )
    return {"samples": np.array([block.num_rows])}


def _name_samples(plan: pa.Table, rows: pa.Table, key: bytes) -> pa.Table:
    """Return the plan with sample ids and source row ids, sorted by sample id.

    A recipe id can be computed by anyone who knows the row and the role, so it must not go out.
    """
    ids = [
        hashlib.blake2b(recipe.to_bytes(8, "little"), key=key, digest_size=8).hexdigest()
        for recipe in plan["recipe_id"].to_pylist()
    ]
    if len(set(ids)) < len(ids):
        raise StoreError("two recipes of the plan have the same id; change the seed")
    named = plan.add_column(0, "sample_id", pa.array(ids, pa.string()))
    named = named.append_column("row_id", rows["row_id"].take(plan["source_row"]))
    return named.sort_by("sample_id")


def _sample_key(path: Path) -> bytes:
    if not path.exists():
        write_atomic(path, secrets.token_bytes(32))
        path.chmod(0o600)
    return path.read_bytes()


def _keep_recipe(samples: pa.Table, settings: dict[str, Any], path: Path, out: Path) -> None:
    """Write the recipe, or find that the folder was begun with the same one."""
    recipe = samples.replace_schema_metadata({"dcdctl": json.dumps(settings)})
    if path.exists():
        if not pq.read_table(path, partitioning=None).equals(recipe, check_metadata=True):
            raise StoreError(
                f"{out} holds a data set of another plan, other images or another format; give "
                "--out an empty folder"
            )
        return
    write_atomic(path, _parquet(recipe))
    path.chmod(0o600)


def _class_names(rows: pa.Table) -> tuple[str, ...]:
    """Return the private identities in the order of their labels."""
    pairs = rows.group_by(["label", "identity"]).aggregate([]).sort_by("label").to_pylist()
    return tuple(pair["identity"] for pair in pairs if pair["label"] >= 0)


def _shard(ids: list[str], labels: list[int], pngs: list[bytes], size: tuple[int, ...]) -> bytes:
    heights, widths = ([side] * len(ids) for side in size)
    arrays = [
        pa.array(column, field.type)
        for column, field in zip((ids, labels, pngs, heights, widths), SHARD_SCHEMA, strict=True)
    ]
    return _parquet(pa.Table.from_arrays(arrays, schema=SHARD_SCHEMA))


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())


def _png(image: Image8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=_PNG_EFFORT)
    return buffer.getvalue()
