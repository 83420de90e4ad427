"""Rows of a plan: what becomes of one source image, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.draws import U64, Draws, IntArray, keyed_bits
from tasks.types import TargetClass

Role = Literal[
    "clean",
    "mislabelled",
    "target_noise",
    "surrogate",
    "surrogate_noise",
    "decoy",
    "decoy_mislabelled",
]
ROLES: tuple[Role, ...] = get_args(Role)

PLAN_SCHEMA = pa.schema(
    [
        pa.field("recipe_id", pa.int64(), nullable=False),  # unique; keyed by row, role and copy
        pa.field("source_row", pa.int64(), nullable=False),  # position in the row table
        pa.field("label", pa.int32(), nullable=False),
        pa.field("role", pa.dictionary(pa.int8(), pa.string()), nullable=False),  # one of ROLES
        pa.field("sigma", pa.float32(), nullable=False),  # Gaussian noise, unit range
        pa.field("seed", pa.uint64(), nullable=False),  # of the noise
        pa.field("truncate", pa.bool_(), nullable=False),  # back to 8 bits, as the released code
        # Size at which the noise is drawn, height * 65536 + width: that of the file where it is
        # known, 1 where it is not yet; 0 is the size that the image has here.
        pa.field("native", pa.uint32(), nullable=False),
    ]
)
"""The plan's columns (`DcdPlan`)."""

_FIELD = 1 << 32  # keeps the number of a copy apart from the number of a repetition


@dataclass(frozen=True)
class Recipes:
    """Recipes of one role.

    Attributes:
        role: of all of them.
        owner: position of each one's target among the targets, -1 for a bystander's, (n,).
        source: position in the row table, (n,).
        label: what it is called, (n,).
        sigma: of its noise, (n,).
        repeat: how often the same image came before in this role, (n,).
        copy: number of the noisy copy.
        truncate: noise goes back to 8 bits by truncation.
    """

    role: Role
    owner: npt.NDArray[np.int64]
    source: IntArray
    label: IntArray
    sigma: npt.NDArray[np.float32]
    repeat: IntArray
    copy: int = 0
    truncate: bool = False

    @classmethod
    def plain(
        cls, role: Role, owner: npt.NDArray[np.int64], source: IntArray, label: IntArray
    ) -> Recipes:
        """Return recipes without noise or repetition."""
        n = len(source)
        return cls(role, owner, source, label, np.zeros(n, np.float32), np.zeros(n, np.int64))

    def keep(self, chosen: npt.NDArray[np.bool_]) -> Recipes:
        """Return some of the rows."""
        return replace(
            self,
            owner=self.owner[chosen],
            source=self.source[chosen],
            label=self.label[chosen],
            sigma=self.sigma[chosen],
            repeat=self.repeat[chosen],
        )


def plan_table(
    parts: Sequence[Recipes],
    row_ids: IntArray,
    targets: Sequence[TargetClass],
    seed: int,
    native: npt.NDArray[np.uint32] | None = None,
) -> pa.Table:
    """Return the plan: bystanders' rows first, then each target's in the order of the parts.

    Args:
        parts: of each role.
        row_ids: of the row table.
        targets: the classes under protection.
        seed: of the experiment.
        native: packed size of each row's file, for noise drawn at that size; None draws it at the
            size that the images have here.
    """
    names = [target.identity for target in targets]
    ids = [_recipe_ids(part, row_ids, names) for part in parts]
    owner = np.concatenate([part.owner for part in parts])
    order = np.argsort(owner, kind="stable")

    def column(name: str, type_: type) -> npt.NDArray[Any]:
        return np.concatenate(
            [
                np.broadcast_to(np.asarray(getattr(part, name)), len(part.owner)).astype(type_)
                for part in parts
            ]
        )[order]

    recipe_ids = np.concatenate(ids)[order]
    sources, sigmas = column("source", np.int64), column("sigma", np.float32)
    sizes = np.zeros(len(sources), np.uint32)
    if native is not None:
        sizes = np.where(np.asarray(sigmas) > 0, native[sources], np.uint32(0))
    roles = np.concatenate([np.full(len(p.owner), ROLES.index(p.role), np.int8) for p in parts])
    return pa.table(
        [
            pa.array(recipe_ids),
            pa.array(sources),
            pa.array(column("label", np.int32)),
            pa.DictionaryArray.from_arrays(pa.array(roles[order]), pa.array(list(ROLES))),
            pa.array(sigmas),
            pa.array(Draws(seed, ("noise",)).bits(recipe_ids)[:, 0]),
            pa.array(column("truncate", np.bool_)),
            pa.array(sizes),
        ],
        schema=PLAN_SCHEMA,
    )


def keys_of(names: Sequence[str], seed: int, *path: str | int) -> U64:
    """Return the key of each target's draws for one step, (targets,)."""
    return np.array([Draws(seed, ("dcd", name, *path)).key for name in names], dtype=np.uint64)


def _recipe_ids(part: Recipes, row_ids: IntArray, names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Hash row, role and copy; an image that is lent to several targets has an id for each."""
    ids = row_ids[part.source].astype(np.uint64)
    copies = part.repeat.astype(np.uint64) + np.uint64(part.copy * _FIELD)
    with np.errstate(over="ignore"):
        rows = ids * np.uint64(0x2545F4914F6CDD1D) + copies
    if part.role in ("surrogate", "surrogate_noise", "decoy", "decoy_mislabelled"):
        keys = keys_of(names, 0, "recipe", part.role)[part.owner]
    else:
        keys = np.full(len(rows), Draws(0, ("recipe", part.role)).key, dtype=np.uint64)
    return np.asarray(keyed_bits(keys, rows) >> np.uint64(1)).astype(np.int64)
