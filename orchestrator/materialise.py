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
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from augment.dcd import apply_recipes
from orchestrator.block_stream import Batch, cut, map_blocks
from orchestrator.store import disk_errors, write_atomic
from tasks.errors import StoreError
from tasks.types import Image8

Layout = Literal["parquet", "imagefolder"]

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


@dataclass(frozen=True)
class Materialised:
    """What was written.

    Attributes:
        public: the folder to hand over.
        recipe: the file to keep.
        samples: images in the public folder.
        shards_written: by this call; the others were there already.
    """

    public: Path
    recipe: Path
    samples: int
    shards_written: int


def materialise(
    plan: pa.Table,
    rows: pa.Table,
    images: Image8,
    out: Path,
    *,
    layout: Layout = "parquet",
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
        layout: Parquet shards, or one PNG a sample in a folder for each class.
        samples_per_shard: samples of one shard, which is also one task.
        on_progress: called with (samples done, samples).

    Raises:
        StoreError: the folder holds another data set, or cannot be written.
        DiskFullError: no space is left.
    """
    private, public = out / "private", out / "public"
    with disk_errors(out):
        private.mkdir(parents=True, exist_ok=True)
        private.chmod(0o700)
        public.mkdir(exist_ok=True)
        settings = {
            "layout": layout,
            "samples_per_shard": samples_per_shard,
            "images": hashlib.sha256(np.ascontiguousarray(images)).hexdigest(),
        }
        recipe = _name_samples(plan, rows, _sample_key(private / "sample.key"))
        _keep_recipe(recipe, settings, private / "recipe.parquet", out)
    writer = _ShardWriter(public, private / "shards", layout, _class_names(rows))
    blocks = cut(recipe.append_column("shard", _shard_numbers(recipe, samples_per_shard)), samples_per_shard)
    missing = [block for number, block in enumerate(blocks) if not writer.note(number).exists()]
    done = recipe.num_rows - sum(block.num_rows for block in missing)
    for batch in map_blocks(missing, partial(_write_shard, writer=writer, images=share(images))):
        done += int(batch["samples"].sum())
        if on_progress is not None:
            on_progress(done, recipe.num_rows)
    _write_manifest(writer, recipe.num_rows, images.shape[1], len(blocks))
    return Materialised(public, private / "recipe.parquet", recipe.num_rows, len(missing))
