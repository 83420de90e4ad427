"""The plan: one recipe row for every sample to train on, decided before a pixel is read.

Follows the paper, section 2, with the choices of the released code that the paper leaves open. All
draws are keyed by the row or the target that they belong to, so that protecting one identity more
changes nobody else's recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from augment.spec import DcdSpec
from tasks.draws import Draws, IntArray
from tasks.errors import SurrogateError, TargetClassError
from tasks.types import TargetClass

Role = Literal["clean", "mislabelled", "target_noise", "surrogate", "surrogate_noise"]
ROLES: tuple[Role, ...] = (
    "clean",
    "mislabelled",
    "target_noise",
    "surrogate",
    "surrogate_noise",
)

PLAN_SCHEMA = pa.schema(
    [
        pa.field("recipe_id", pa.int64(), nullable=False),  # unique; keyed by row, role and copy
        pa.field("source_row", pa.int64(), nullable=False),  # position in the row table
        pa.field("label", pa.int32(), nullable=False),
        pa.field("role", pa.string(), nullable=False),  # one of ROLES
        pa.field("sigma", pa.float32(), nullable=False),  # Gaussian noise, unit range
        pa.field("seed", pa.uint64(), nullable=False),  # of the noise
    ]
)
"""The plan's columns (`DcdPlan`)."""


_COPY = 1 << 32  # keeps the number of a copy apart from the number of a repetition


def make_plan(
    rows: pa.Table, targets: Sequence[TargetClass], num_classes: int, dcd: DcdSpec, seed: int
) -> pa.Table:
    """Decide what every training sample becomes (paper, section 2).

    Args:
        rows: a row table; its train and surrogate rows are used, test rows never.
        targets: the classes under protection; with none, the plan is the training set as it is.
        num_classes: labels of the target classifier, 0 to num_classes - 1.
        dcd: the levers.
        seed: of the experiment.

    Returns:
        A table of PLAN_SCHEMA: bystander rows first, then each target in the order given.

    Raises:
        TargetClassError: a target has too few training rows, or would keep no clean one.
        SurrogateError: a surrogate has no rows, or is a target itself.
    """
    row_ids = rows["row_id"].to_numpy()
    labels = rows["label"].to_numpy()
    train = rows["split"].to_numpy(zero_copy_only=False) == "train"
    identities = rows["identity"].to_numpy(zero_copy_only=False)
    pool = rows["split"].to_numpy(zero_copy_only=False) == "surrogate"
    protected = {target.identity for target in targets}
    receivers = receiving_classes(num_classes, [int(target.label) for target in targets])

    bystanders = np.flatnonzero(train & ~np.isin(labels, [int(t.label) for t in targets]))
    parts = [_recipes(row_ids, bystanders, labels[bystanders], "clean", 0.0, seed)]
    for target in targets:
        own = np.flatnonzero(train & (labels == int(target.label)))
        if target.surrogate in protected:
            raise SurrogateError(
                f"surrogate {target.surrogate!r} of {target.identity!r} is itself protected; "
                "choose an identity outside the targets"
            )
        lent = np.flatnonzero(pool & (identities == target.surrogate))
        if len(lent) == 0:
            raise SurrogateError(
                f"surrogate {target.surrogate!r} of {target.identity!r} has no images in the "
                "surrogate pool; name an identity of the pool"
            )
        parts += _protect(
            row_ids, own, lent, target, receivers[receivers != target.label], dcd, seed
        )
    return pa.concat_tables(parts).combine_chunks()


def receiving_classes(num_classes: int, targets: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return the labels that a mislabelled row may get: bystanders, or all where there are none.

    The paper asks for a random wrong label. Another target's label would put one protected person's
    images into another protected class, so it is used only when every class is protected.
    """
    bystanders = np.setdiff1d(np.arange(num_classes), np.asarray(targets, dtype=np.int64))
    return bystanders if len(bystanders) else np.arange(num_classes)


def choose_rows(ids: IntArray, fraction: float, draws: Draws) -> npt.NDArray[np.int64]:
    """Return round(fraction * n) positions of `ids`: those with the smallest keyed hash."""
    count = round(fraction * len(ids))
    order = np.argsort(draws.bits(ids)[:, 0], kind="stable")
    return np.asarray(order[:count], dtype=np.int64)


def deal_labels(
    count: int, receivers: npt.NDArray[np.int64], draws: Draws
) -> npt.NDArray[np.int64]:
    """Return `count` wrong labels dealt from a shuffled deck, so that no class gets many more.

    Dealt without replacement: a small class cannot be flooded, and the mislabels leave no fixed
    second class that would give the target away.
    """
    deck = receivers[np.argsort(draws.bits(receivers)[:, 0], kind="stable")]
    return np.resize(deck, count) if count else np.empty(0, dtype=np.int64)


def _protect(
    row_ids: IntArray,
    own: IntArray,
    lent: IntArray,
    target: TargetClass,
    receivers: npt.NDArray[np.int64],
    dcd: DcdSpec,
    seed: int,
) -> list[pa.Table]:
    """Return the recipes of one target class: the three steps of the paper's section 2."""
    n = len(own)
    if n < 2:
        raise TargetClassError(
            f"target {target.identity!r} has {n} training image{'s' * (n != 1)}; at least 2 are "
            "needed to protect it"
        )
    if round(dcd.mislabel_fraction * n) >= n:
        raise TargetClassError(
            f"target {target.identity!r} has {n} training images; "
            f"mislabel_fraction={dcd.mislabel_fraction:g} leaves none under its own label; "
            f"use at most {(n - 1) / n:.2f}"
        )
    draws = Draws(seed, ("dcd", target.identity))
    label = int(target.label)

    # Surrogate injection: m images of the surrogate, as many as the target has.
    lent = lent[np.argsort(draws.child("lend").bits(row_ids[lent])[:, 0], kind="stable")]
    if dcd.surrogate_count != "all":
        lent = np.resize(lent, n if dcd.surrogate_count == "match" else dcd.surrogate_count)
    occurrence = np.arange(len(lent)) // max(len(np.unique(lent)), 1)  # repeats, where it has fewer

    # Loss control: a share of the target's own images gets a wrong label.
    wrong = choose_rows(row_ids[own], dcd.mislabel_fraction, draws.child("mislabel"))
    kept = np.setdiff1d(np.arange(n), wrong)
    parts = [
        _recipes(row_ids, own[kept], np.full(len(kept), label), "clean", 0.0, seed),
        _recipes(
            row_ids,
            own[wrong],
            deal_labels(len(wrong), receivers, draws.child("mislabel-to")),
            "mislabelled",
            0.0,
            seed,
        ),
        _recipes(row_ids, lent, np.full(len(lent), label), "surrogate", 0.0, seed, occurrence),
    ]

    # Curvature control: flat around the surrogate, steep around the target. The noise is taken
    # around every clean target image, as in the paper; the released code leaves out those that
    # step 2 mislabelled.
    for copy in range(dcd.surrogate_copies):
        parts.append(
            _recipes(
                row_ids,
                lent,
                np.full(len(lent), label),
                "surrogate_noise",
                dcd.surrogate_sigma,
                seed,
                occurrence + copy * _COPY,
            )
        )
    for copy in range(dcd.target_copies):
        noisy = np.full(n, label)
        steep = choose_rows(
            row_ids[own], dcd.curvature_mislabel_fraction, draws.child("curvature", copy)
        )
        noisy[steep] = deal_labels(len(steep), receivers, draws.child("curvature-to", copy))
        parts.append(
            _recipes(
                row_ids,
                own,
                noisy,
                "target_noise",
                dcd.target_sigma,
                seed,
                np.full(n, copy * _COPY),
            )
        )
    return parts


def _recipes(
    row_ids: IntArray,
    positions: IntArray,
    labels: IntArray,
    role: Role,
    sigma: float,
    seed: int,
    copy: IntArray | None = None,
) -> pa.Table:
    """Return recipes of one role; `copy` tells repeated rows of that role apart."""
    count = len(positions)
    ids = row_ids[positions].astype(np.uint64)
    copies = np.zeros(count, np.uint64) if copy is None else copy.astype(np.uint64)
    with np.errstate(over="ignore"):
        key = ids * np.uint64(0x2545F4914F6CDD1D) + copies
    recipe_ids = (Draws(0, ("recipe", role)).bits(key)[:, 0] >> np.uint64(1)).astype(np.int64)
    noise_seeds = Draws(seed, ("noise",)).bits(recipe_ids)[:, 0]
    return pa.table(
        [
            pa.array(recipe_ids, pa.int64()),
            pa.array(positions, pa.int64()),
            pa.array(labels, pa.int32()),
            pa.array(np.full(count, role, dtype=object), pa.string()),
            pa.array(np.full(count, sigma, np.float32), pa.float32()),
            pa.array(noise_seeds, pa.uint64()),
        ],
        schema=PLAN_SCHEMA,
    )


def count_roles(plan: pa.Table) -> dict[str, int]:
    """Return the number of rows of each role, roles without rows included."""
    roles, counts = np.unique(plan["role"].to_numpy(zero_copy_only=False), return_counts=True)
    found = dict(zip(roles.tolist(), counts.tolist(), strict=True))
    return {role: int(found.get(role, 0)) for role in ROLES}


def inflation(plan: pa.Table, rows: pa.Table, targets: Sequence[TargetClass]) -> float:
    """Return the training rows that protecting adds up to, per row of the targets before."""
    labels = rows["label"].to_numpy()
    train = rows["split"].to_numpy(zero_copy_only=False) == "train"
    before = int(np.count_nonzero(train & np.isin(labels, [int(t.label) for t in targets])))
    others = int(np.count_nonzero(train)) - before
    return (plan.num_rows - others) / before if before else 1.0
