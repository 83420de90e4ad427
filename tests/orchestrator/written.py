"""A small data set to write: two private classes, a surrogate, every role among the recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from augment.recipes import PLAN_SCHEMA, ROLES
from orchestrator.materialise import Materialised, materialise
from tasks.types import ROW_SCHEMA, Image8

SIZE = 8
ROWS = 12
SAMPLES = 36


def row_table() -> pa.Table:
    """Return two private classes of four rows, and a surrogate of four."""
    who = [("ann", 0, "train")] * 4 + [("bob", 1, "train")] * 4 + [("cat", -1, "surrogate")] * 4
    return pa.Table.from_pylist(
        [
            {
                "row_id": 1000 + i,
                "identity": identity,
                "label": label,
                "split": split,
                "source": f"file:///secret/{identity}/{i}.png",
                "attributes": [],
            }
            for i, (identity, label, split) in enumerate(who)
        ],
        schema=ROW_SCHEMA,
    )


def pixel_array(size: int = SIZE) -> Image8:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (ROWS, size, size, 3), dtype=np.uint8)


def plan_table(copies: int = 3) -> pa.Table:
    """Return `copies` recipes of each row, every role and noise among them, decoys last."""
    recipes = [
        {
            "recipe_id": 10_000 + len(ROLES) * i + copy,
            "source_row": i,
            "label": (i // 4 + copy) % 2,
            "role": ROLES[copy + (i >= 8)],
            "sigma": 0.1 * copy,
            "seed": 77 * i + copy,
            "truncate": i % 3 == 0,
            "native": 0,
        }
        for copy in range(copies)
        for i in range(ROWS)
    ]
    plan = pa.Table.from_pylist(recipes, schema=PLAN_SCHEMA)
    codes = pa.array([ROLES.index(recipe["role"]) for recipe in recipes], pa.int8())
    roles = pa.DictionaryArray.from_arrays(codes, pa.array(ROLES))  # as `make_plan` has them
    return plan.set_column(3, PLAN_SCHEMA.field("role"), roles)


def with_key(out: Path, byte: bytes = b"k") -> Path:
    (out / "private").mkdir(parents=True)
    (out / "private" / "sample.key").write_bytes(byte * 32)
    return out


def write(out: Path, **options: Any) -> Materialised:
    defaults: dict[str, Any] = {"samples_per_shard": 10}
    return materialise(plan_table(), row_table(), pixel_array(), out, **(defaults | options))


def public_files(out: Path) -> dict[str, bytes]:
    public = out / "public"
    return {str(p.relative_to(public)): p.read_bytes() for p in public.rglob("*") if p.is_file()}
