"""A plan and its images as files: the protected data set that `dcdctl augment` hands over.

<out>/public/    what may be given away: part-00000.parquet, ... (or .tar, or <class>/<id>.png), and
                 manifest.json, written last
<out>/private/   recipe.parquet (which sample came from which row, which ones are decoys, and the
                 hashes of both), sample.key (what made the sample ids), begun.json, a note for each
                 finished shard, and seal.json, which `dcdctl plan --check` starts from

Nothing in the public part says what a sample is: ids are hashes under a secret key, the order is
that of the ids, and there is no role. It cannot hide what pixels show (noise, a repeated image, a
stranger under a label). Pixels are rounded to the nearest of 256 levels, not truncated: truncation
would darken by half a level, and DCD's smallest noise is 0.8 of one.

A run that was killed goes on with the shards that are not complete; every file is whole or absent.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from augment.dcd import apply_recipes_8bit
from augment.encode import Codec
from augment.recipes import PLAN_SCHEMA, ROLES
from orchestrator.block_stream import Batch, cut, map_blocks
from orchestrator.image_files import ImageFiles
from orchestrator.plan_tally import plan_digest
from orchestrator.shards import FILE_TIME, Format, Samples, ShardWriter, parquet_bytes
from orchestrator.store import disk_errors, write_atomic
from tasks.errors import SpecError, StoreError
from tasks.types import Image8

RECIPE, KEY, BEGUN, SEAL, MANIFEST = (
    "recipe.parquet",
    "sample.key",
    "begun.json",
    "seal.json",
    "manifest.json",
)

SHARD_BYTES = 128 << 20  # of pixels: one task, about a second
MAX_SAMPLES_PER_SHARD = 2048
_PART_BYTES = 8 << 20  # of pixels that a worker holds at a time
_NAMED_AT_ONCE = 1 << 16


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


def default_codec(format_: Format) -> Codec:
    """Return the codec of a format: bare pixels where there is a column for them, else PNG."""
    return Codec("raw") if format_ == "parquet" else Codec("png")


def materialise(
    plan: pa.Table,
    rows: pa.Table,
    images: Image8 | ImageFiles,
    out: Path,
    *,
    format_: Format = "parquet",
    codec: Codec | None = None,
    samples_per_shard: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Materialised:
    """Write a protected data set; Ray must be running.

    The content depends on the plan, the images and private/sample.key alone. The key is made when
    it is not there: put an earlier one there to get the same files again.

    Args:
        plan: a table of `augment.recipes.PLAN_SCHEMA`.
        rows: the row table that `source_row` points into.
        images: row i of `rows` is image i, (n, s, s, 3).
        out: an empty or new folder, or one that an earlier call left unfinished.
        format_: Parquet shards, WebDataset tars, or one file a sample in a folder for each class.
        codec: of the images; None takes `default_codec`.
        samples_per_shard: samples of one shard, which is also one task; None takes about 128 MiB of
            pixels.
        on_progress: called with (samples done, samples), first with those that were there already.

    Raises:
        SpecError: the format has no place for bare pixels.
        StoreError: the folder holds another data set, or cannot be written.
        DiskFullError: no space is left.
    """
    codec = codec or default_codec(format_)
    if codec.name == "raw" and format_ != "parquet":
        raise SpecError(f"--codec raw has no file format of its own in {format_}; use png")
    out = out.absolute()  # workers may stand in another folder
    files = images if isinstance(images, ImageFiles) else ImageFiles.of([images])
    per_shard = samples_per_shard or shard_size(files.shape)
    settings = {
        "format": format_,
        "codec": str(codec),
        "samples_per_shard": per_shard,
        "images": files.digest,
    }
    private, public = out / "private", out / "public"
    with disk_errors(out):
        samples = begin(plan, rows, out, settings)
        public.mkdir(exist_ok=True)
        writer = ShardWriter(public, private / "shards", format_, codec, class_names(rows))
        shards = cut(samples, per_shard)
        missing = [i for i, shard in enumerate(shards) if not _is_complete(writer, i, shard)]
        tasks = [
            shards[i].append_column("shard", pa.array(np.full(shards[i].num_rows, i)))
            for i in missing
        ]
        done = samples.num_rows - sum(task.num_rows for task in tasks)
        report = on_progress or (lambda *_: None)
        report(done, samples.num_rows)
        run = partial(write_block, images=files, writer=writer)
        for batch in map_blocks(tasks, run):
            done += int(batch["samples"].sum())
            report(done, samples.num_rows)
        for left in public.rglob(".*.partial"):  # of a run that was killed
            left.unlink()
        _seal(samples, writer, len(shards), files.shape, out)
    return Materialised(public, private / RECIPE, samples.num_rows, len(shards), len(missing))


def write_recipes(plan: pa.Table, rows: pa.Table, out: Path) -> Path:
    """Write the private part alone, no pixels; `materialise` may go on from it.

    Raises:
        StoreError: the folder holds another data set, or cannot be written.
    """
    with disk_errors(out):
        begin(plan, rows, out, None)
    return out / "private" / RECIPE


def shard_size(shape: Sequence[int]) -> int:
    """Return how many images of a shape (h, w, 3) make a shard."""
    return int(np.clip(SHARD_BYTES // int(np.prod(shape)), 1, MAX_SAMPLES_PER_SHARD))


def begin(plan: pa.Table, rows: pa.Table, out: Path, settings: dict[str, Any] | None) -> pa.Table:
    """Write the recipe, or find that the folder was begun with the same one; return its samples.

    Args:
        plan: the recipes.
        rows: the row table that they point into.
        out: the folder.
        settings: of the public part; None where none is to be written yet.

    Raises:
        StoreError: the folder holds other things, or a data set of something else.
    """
    private = out / "private"
    strangers = {path.name for path in out.iterdir()} - {"private"} if out.exists() else set()
    if strangers and not (private / RECIPE).exists():
        raise StoreError(f"{out} is not empty; give --out a new or an empty folder")
    private.mkdir(parents=True, exist_ok=True)
    private.chmod(0o700)
    samples = name_samples(plan, rows, _sample_key(private / KEY))
    # The ids are those of the plan under the key, so equal ids and an equal plan are all of it.
    wanted = {"plan": plan_digest(recipe_of(samples)), "settings": settings}
    path = private / BEGUN
    if path.exists():
        found = json.loads(path.read_bytes())
        if settings is None or found["settings"] is None:
            wanted["settings"] = found["settings"] or settings
            found["settings"] = wanted["settings"]
        if found != wanted:
            raise StoreError(
                f"{out} holds a data set of another plan, other images or another format; give "
                "--out an empty folder"
            )
    if not (path.exists() and (private / RECIPE).exists()):
        write_atomic(private / RECIPE, parquet_bytes(samples))
        (private / RECIPE).chmod(0o600)
    write_atomic(path, json.dumps(wanted, indent=2) + "\n")
    return samples


def recipe_of(samples: pa.Table) -> pa.Table:
    """Return the plan that samples were named from, in its own order."""
    plan = samples.sort_by("plan_row").select(PLAN_SCHEMA.names).combine_chunks()
    # A file keeps the roles in the order in which it meets them; the plan has an order of its own.
    at = PLAN_SCHEMA.get_field_index("role")
    codes = pc.index_in(plan["role"].cast(pa.string()), pa.array(ROLES)).cast(pa.int8())
    roles = pa.DictionaryArray.from_arrays(codes.combine_chunks(), pa.array(ROLES))
    return plan.set_column(at, PLAN_SCHEMA.field(at), roles).cast(PLAN_SCHEMA)


def write_block(block: pa.Table, *, images: ImageFiles, writer: ShardWriter) -> Batch:
    """Make one shard's pixels and write them, a few at a time; runs on a Ray worker."""
    writer.write(block["shard"][0].as_py(), _parts(block, images))
    return {"samples": np.array([block.num_rows])}


def _parts(block: pa.Table, images: ImageFiles) -> Iterator[Samples]:
    step = max(1, _PART_BYTES // int(np.prod(images.shape)))
    for start in range(0, block.num_rows, step):
        part = block.slice(start, step)
        sources = images.take(part["source_row"].to_numpy())
        sigma, seed = part["sigma"].to_numpy(), part["seed"].to_numpy()
        pixels = apply_recipes_8bit(
            sources, sigma, seed, part["truncate"].to_numpy(), part["native"].to_numpy()
        )
        ids, labels = part["sample_id"].to_pylist(), part["label"].to_pylist()
        yield Samples(ids, labels, pixels, sources, sigma > 0)


def _is_complete(writer: ShardWriter, shard: int, samples: pa.Table) -> bool:
    ids, labels = samples["sample_id"].to_pylist(), samples["label"].to_pylist()
    return writer.is_complete(shard, ids, labels)


def name_samples(plan: pa.Table, rows: pa.Table, key: bytes) -> pa.Table:
    """Return the plan with sample ids, source row ids and plan rows, sorted by sample id.

    A recipe id can be computed by anyone who knows the row and the role, so it must not go out.
    """
    chunks = []
    for start in range(0, plan.num_rows, _NAMED_AT_ONCE):
        recipes = plan["recipe_id"].slice(start, _NAMED_AT_ONCE).to_pylist()
        ids = [
            hashlib.blake2b(recipe.to_bytes(8, "little"), key=key, digest_size=8).hexdigest()
            for recipe in recipes
        ]
        chunks.append(pa.array(ids, pa.string()))
    named = plan.add_column(0, "sample_id", pa.chunked_array(chunks, pa.string()))
    named = named.append_column("row_id", rows["row_id"].take(plan["source_row"]))
    named = named.append_column("plan_row", pa.array(np.arange(plan.num_rows)))
    named = named.sort_by("sample_id").combine_chunks()
    ids = named["sample_id"]
    if pc.any(pc.equal(ids.slice(1), ids.slice(0, max(len(ids) - 1, 0)))).as_py():
        raise StoreError("two recipes of the plan have the same id; change the seed")
    return named


def class_names(rows: pa.Table) -> tuple[str, ...]:
    """Return the private identities in the order of their labels."""
    pairs = rows.group_by(["label", "identity"]).aggregate([]).sort_by("label").to_pylist()
    return tuple(pair["identity"] for pair in pairs if pair["label"] >= 0)


def _sample_key(path: Path) -> bytes:
    if not path.exists():
        write_atomic(path, secrets.token_bytes(32))
        path.chmod(0o600)
    return path.read_bytes()


def _seal(
    samples: pa.Table, writer: ShardWriter, count: int, shape: tuple[int, ...], out: Path
) -> None:
    """Put the hashes into the recipe, write the manifest and, last, the seal over both."""
    found = [writer.note(i) for i in range(count)]
    notes = [note for note in found if note is not None]
    assert len(notes) == count
    hashes = pa.concat_tables([table for _, table in notes])
    for name in ("source_sha256", "image_sha256"):
        samples = samples.append_column(hashes.schema.field(name), hashes[name])
    recipe = parquet_bytes(samples)
    manifest = {
        "samples": samples.num_rows,
        "image_size": shape[0],
        "format": writer.format_,
        "codec": str(writer.codec),
        "classes": list(writer.classes),
        "shards": [asdict(shard) for shard, _ in notes],
    }
    text = json.dumps(manifest, indent=2) + "\n"
    path = out / "private" / RECIPE
    write_atomic(path, recipe)
    path.chmod(0o600)
    write_atomic(out / "public" / MANIFEST, text)
    for place in (out / "public").rglob("*"):
        if place.is_dir() or place.name == MANIFEST:
            os.utime(place, (FILE_TIME, FILE_TIME))
    os.utime(out / "public", (FILE_TIME, FILE_TIME))
    seal = {
        "samples": samples.num_rows,
        "plan": plan_digest(recipe_of(samples)),
        "recipe_sha256": hashlib.sha256(recipe).hexdigest(),
        "manifest_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    write_atomic(out / "private" / SEAL, json.dumps(seal, indent=2) + "\n")
