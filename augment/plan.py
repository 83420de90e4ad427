"""The plan: one recipe row for every sample to train on, decided before a pixel is read.

Follows the paper, section 2, with the choices of the released code that the paper leaves open. All
draws are keyed by the row or the target that they belong to, so that protecting one identity more
changes nobody else's recipe; only a limit on what a class may receive makes targets depend on each
other. All targets are planned at once, by columns: no loop over rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from augment.official import official_recipes
from augment.paper import paper_recipes
from augment.receivers import Receivers, named_receivers, receiving_classes
from augment.recipes import ROLES, Recipes, plan_table
from augment.spec import DcdSpec
from tasks.errors import SurrogateError, TargetClassError
from tasks.types import TargetClass

Positions = npt.NDArray[np.int64]


def make_plan(
    rows: pa.Table, targets: Sequence[TargetClass], num_classes: int, dcd: DcdSpec, seed: int
) -> pa.Table:
    """Decide what every training sample becomes (paper, section 2).

    Args:
        rows: a row table; its train and surrogate rows are used, test rows never. A column
            `native` with the packed sizes of the files is used where it is there.
        targets: the classes under protection; with none, the plan is the training set as it is.
        num_classes: labels of the target classifier, 0 to num_classes - 1.
        dcd: the levers.
        seed: of the experiment.

    Returns:
        A table of PLAN_SCHEMA: bystander rows first, then each target in the order given.

    Raises:
        TargetClassError: a target has too few training rows, or would keep no clean one; a setting
            names a class that does not exist; wrong labels find no receiver.
        SurrogateError: a surrogate has no rows, or is a target itself.
    """
    row_ids = rows["row_id"].to_numpy()
    labels = rows["label"].to_numpy()
    train = _is(rows, "split", "train")
    protected = [int(target.label) for target in targets]
    bystanders = np.flatnonzero(train & ~np.isin(labels, protected))
    nobody = np.full(len(bystanders), -1, dtype=np.int64)
    parts = [Recipes.plain("clean", nobody, bystanders, labels[bystanders])]
    if targets:
        check_names(dcd, targets)
        receivers = _receivers(rows, train, targets, num_classes, dcd)
        parts += target_recipes(rows, targets, receivers, num_classes, dcd, seed)
    return plan_table(parts, row_ids, targets, seed, native_sizes(rows, dcd))


def target_recipes(
    rows: pa.Table,
    targets: Sequence[TargetClass],
    receivers: Receivers,
    num_classes: int,
    dcd: DcdSpec,
    seed: int,
    protected: Collection[str] | None = None,
) -> list[Recipes]:
    """Return the recipes of targets, from all rows of theirs and of their lenders.

    Args:
        rows: a row table; other rows in it are not used.
        targets: the classes to plan, at least one.
        receivers: hands out wrong labels.
        num_classes: labels of the target classifier.
        dcd: the levers.
        seed: of the experiment.
        protected: names of everybody under protection; None is the targets.

    Raises:
        TargetClassError: a target has too few training rows, or would keep no clean one.
        SurrogateError: a surrogate has no rows, or is a target itself.
    """
    train = np.flatnonzero(_is(rows, "split", "train"))
    labels = rows["label"].to_numpy()
    own = _grouped(train, labels[train], np.array([int(target.label) for target in targets]))
    lent = _lent_rows(rows, targets)
    _check_rows(targets, own, lent, protected or {target.identity for target in targets})
    make = official_recipes if dcd.mode == "official" else paper_recipes
    return make(rows, targets, own, lent, receivers, num_classes, dcd, seed)


def native_sizes(rows: pa.Table, dcd: DcdSpec) -> npt.NDArray[np.uint32] | None:
    """Return the size at which each row's noise is drawn; None is the size that it has here."""
    if dcd.noise_resolution == "network":
        return None
    if "native" in rows.column_names:  # once the images have been looked at
        return np.asarray(rows["native"].to_numpy(), dtype=np.uint32)
    return np.ones(rows.num_rows, dtype=np.uint32)


def count_roles(plan: pa.Table) -> dict[str, int]:
    """Return the number of rows of each role, roles without rows included."""
    found = {pair["values"]: pair["counts"] for pair in pc.value_counts(plan["role"]).to_pylist()}
    return {role: int(found.get(role, 0)) for role in ROLES}


def inflation(plan: pa.Table, rows: pa.Table, targets: Sequence[TargetClass]) -> float:
    """Return the training rows that protecting adds up to, per row of the targets before."""
    labels = rows["label"].to_numpy()
    train = _is(rows, "split", "train")
    before = int(np.count_nonzero(train & np.isin(labels, [int(t.label) for t in targets])))
    others = int(np.count_nonzero(train)) - before
    return (plan.num_rows - others) / before if before else 1.0


def received(plan: pa.Table, rows: pa.Table, num_classes: int) -> npt.NDArray[np.float64]:
    """Return for each class the wrongly labelled rows that it receives, per training row it has.

    Rows that name the class of their own identity, and what outside identities lend to their
    target, are no wrong labels; a decoy under a bystander's label is one.
    """
    own = rows["label"].to_numpy()[plan["source_row"].to_numpy()]
    given = plan["label"].to_numpy()
    lent = pc.is_in(
        plan["role"].cast(pa.string()), pa.array(["surrogate", "surrogate_noise", "decoy"])
    )
    wrong = (own != given) & ~lent.to_numpy(zero_copy_only=False)
    train = _is(rows, "split", "train")
    has = np.bincount(rows["label"].to_numpy()[train], minlength=num_classes)
    gets = np.bincount(given[wrong], minlength=num_classes)
    return np.asarray(gets / np.maximum(has, 1))


def _is(rows: pa.Table, column: str, value: str) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.equal(rows[column], value).to_numpy(zero_copy_only=False), dtype=bool)


def _grouped(
    positions: Positions, keys: npt.NDArray[np.generic], wanted: Positions
) -> list[Positions]:
    """Return the positions whose key is wanted, one ascending array for each wanted key."""
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    starts = np.searchsorted(sorted_keys, wanted, "left")
    ends = np.searchsorted(sorted_keys, wanted, "right")
    return [positions[order[a:b]] for a, b in zip(starts, ends, strict=True)]


def _lent_rows(rows: pa.Table, targets: Sequence[TargetClass]) -> dict[str, Positions]:
    """Return the pool's rows of each identity that lends to a target."""
    names = sorted({lender.identity for target in targets for lender in target.lenders})
    wanted = pa.array(names, pa.string())
    chosen = pc.and_(pc.equal(rows["split"], "surrogate"), pc.is_in(rows["identity"], wanted))
    positions = np.flatnonzero(chosen.to_numpy(zero_copy_only=False))
    codes = pc.index_in(rows["identity"].take(pa.array(positions)), wanted)
    groups = _grouped(positions, codes.to_numpy(), np.arange(len(names)))
    return dict(zip(names, groups, strict=True))


def check_names(dcd: DcdSpec, targets: Sequence[TargetClass]) -> None:
    """Refuse levers of somebody who is no target.

    Raises:
        TargetClassError: a name of `per_target` is none of theirs.
    """
    from tasks.suggestions import did_you_mean

    names = sorted(target.identity for target in targets)
    for name in dcd.per_target:
        if name not in names:
            raise TargetClassError(
                f"dcd.per_target names {name!r}, which is not a target{did_you_mean(name, names)}"
            )


def _check_rows(
    targets: Sequence[TargetClass],
    own: Sequence[Positions],
    lent: dict[str, Positions],
    protected: Collection[str],
) -> None:
    for target, mine in zip(targets, own, strict=True):
        if len(mine) < 2:
            raise TargetClassError(
                f"target {target.identity!r} has {len(mine)} training image"
                f"{'s' * (len(mine) != 1)}; at least 2 are needed to protect it"
            )
        for lender in target.lenders:
            if lender.identity in protected:
                raise SurrogateError(
                    f"surrogate {lender.identity!r} of {target.identity!r} is itself protected; "
                    "choose an identity outside the targets"
                )
            if not len(lent[lender.identity]):
                raise SurrogateError(
                    f"surrogate {lender.identity!r} of {target.identity!r} has no images in the "
                    "surrogate pool; name an identity of the pool"
                )


def _receivers(
    rows: pa.Table,
    train: npt.NDArray[np.bool_],
    targets: Sequence[TargetClass],
    num_classes: int,
    dcd: DcdSpec,
) -> Receivers:
    labels = rows["label"].to_numpy()
    protected = {int(target.label) for target in targets}
    if dcd.receivers is None:
        classes = receiving_classes(num_classes, sorted(protected))
    else:
        pairs = rows.filter(pa.array(train)).group_by(["identity", "label"]).aggregate([])
        known = dict(zip(pairs["identity"].to_pylist(), pairs["label"].to_pylist(), strict=True))
        classes = named_receivers(dcd.receivers, known, protected)
    limit = None
    if dcd.max_received_fraction is not None:
        has = np.bincount(labels[train], minlength=num_classes)[classes]
        limit = np.floor(dcd.max_received_fraction * has).astype(np.int64)
    return Receivers(classes, limit, dealt=dcd.wrong_labels == "dealt")
