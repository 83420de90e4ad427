"""What all trials share: private and lent images, who is attacked, the attacker's knowledge.

Each stage's output is kept under a key of what went into it; a stage whose manifest is there is not
done again, in this run or in any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from orchestrator.images_stage import Progress, images_of
from orchestrator.selection import Selection
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store
from orchestrator.trial import NeverLent, World
from tasks.datasets.spec import BuiltinData
from tasks.spec import fingerprint
from tasks.types import Image8, TargetClass

if TYPE_CHECKING:
    from tasks.evaluation.sampling import TargetSample


DRAWN_HELD_OUT = 10
"""Images of each drawn surrogate beside a folder that are never lent."""


def private_and_lent(
    spec: ExperimentSpec, store: Store, selection: Selection, progress: Progress
) -> list[tuple[pa.Table, Image8, str]]:
    """Return the private images and, with targets, the lent ones: table, mapped images, key."""
    parts = [images_of(spec, store, selection.split("train", "test"), "private", progress)]
    if selection.targets:
        parts.append(images_of(spec, store, selection.split("surrogate"), "lent", progress))
    return parts


def prepare_world(
    spec: ExperimentSpec, store: Store, selection: Selection, progress: Progress
) -> World:
    """Return what all trials share: the private data and the lent surrogate images, decoded."""
    from orchestrator.knowledge import prepare_knowledge

    tables, arrays, digests = zip(*private_and_lent(spec, store, selection, progress), strict=True)
    public_key = f"{spec.seed}" if isinstance(spec.data, BuiltinData) else None
    rows = pa.concat_tables(tables).combine_chunks()
    return World(
        rows=rows,
        images=np.concatenate(arrays),
        targets=selection.targets,
        pseudonyms=tuple(
            store.pseudonym(t.identity, public_key=public_key) for t in selection.targets
        ),
        num_classes=selection.num_classes,
        seed=spec.seed,
        digest=world_digest(list(digests), selection),
        sample=_sample_of_targets(spec, rows, selection.targets),
        knowledge=prepare_knowledge(spec, spec.attacks, store, selection, progress),
        never_lent=_never_lent(spec, store, selection, progress),
    )


def world_digest(keys: list[str], selection: Selection) -> str:
    """Return the hash of the data and of who plays which part, from the images' keys."""
    return fingerprint([keys, [_cast(target) for target in selection.targets]])


def _never_lent(
    spec: ExperimentSpec, store: Store, selection: Selection, progress: Progress
) -> NeverLent | None:
    """Return images of the surrogates that no trial is trained on; None where there are none.

    They are no part of a trial's identity, since nothing but the count of false accepts sees them.
    """
    from tasks.datasets.builtin import held_out_rows, render_rows

    names = sorted({str(who.identity) for t in selection.targets for who in t.surrogates})
    drawn = isinstance(spec.data, BuiltinData) and spec.protect.surrogate_pool != "held-out"
    if names and (drawn or spec.protect.surrogate_pool == "builtin"):
        count = spec.data.test_images if isinstance(spec.data, BuiltinData) else DRAWN_HELD_OUT
        rows = held_out_rows(names, count, spec.seed)
        images = render_rows(rows["source"].to_pylist(), spec.seed, spec.data.image_size)
    else:
        rows = selection.split("held-out")
        if not rows.num_rows:
            return None
        rows, images, _ = images_of(spec, store, rows, "held-out", progress)
    return NeverLent(images, rows["identity"].to_numpy(zero_copy_only=False))


def _sample_of_targets(
    spec: ExperimentSpec, rows: pa.Table, targets: Sequence[TargetClass]
) -> TargetSample | None:
    """Return which targets are attacked, None for all of them."""
    from tasks.draws import Draws
    from tasks.evaluation.sampling import sample_targets

    count = spec.evaluation.sample_targets
    if count is None or count >= len(targets):
        return None
    return sample_targets(
        target_strata(spec.evaluation.sample_by, rows, targets),
        [int(target.label) for target in targets],
        count,
        Draws(spec.seed, ("targets to attack",)),
    )


def target_strata(
    by: Literal["attributes", "train-images", "nothing"],
    rows: pa.Table,
    targets: Sequence[TargetClass],
) -> list[str]:
    """Return each target's stratum: its first image's attributes, or a quarter by its images."""
    if by == "nothing":
        return [""] * len(targets)
    train = np.flatnonzero(rows["split"].to_numpy(zero_copy_only=False) == "train")
    labels, first, counts = np.unique(
        rows["label"].to_numpy()[train], return_index=True, return_counts=True
    )
    own = np.searchsorted(labels, [int(target.label) for target in targets])
    if by == "attributes":
        shown = rows["attributes"].take(pa.array(train[first[own]])).to_pylist()
        return ["+".join(sorted(names)) for names in shown]
    images = counts[own]
    return [f"quarter {q}" for q in np.searchsorted(np.quantile(images, (0.25, 0.5, 0.75)), images)]


def evaluation_plan(world: World) -> pa.Table:
    """Return a plan of clean rows in which each surrogate has a class of its own."""
    from augment.recipes import PLAN_SCHEMA, ROLES

    labels = world.rows["label"].to_numpy().astype(np.int64)
    train, lent = world.mask("train"), world.mask("surrogate")
    own = {str(who.identity): who.label for target in world.targets for who in target.lenders}
    identities = world.rows["identity"].to_numpy(zero_copy_only=False)
    positions = np.flatnonzero(train | lent)
    wanted = np.where(
        lent[positions], [own.get(name, -1) for name in identities[positions]], labels[positions]
    )
    count = len(positions)
    return pa.table(
        [
            pa.array(np.arange(count), pa.int64()),
            pa.array(positions, pa.int64()),
            pa.array(wanted, pa.int32()),
            pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(count, np.int8)), pa.array(list(ROLES))
            ),
            pa.array(np.zeros(count, np.float32)),
            pa.array(np.zeros(count, np.uint64)),
            pa.array(np.zeros(count, np.bool_)),
            pa.array(np.zeros(count, np.uint32)),
        ],
        schema=PLAN_SCHEMA,
    )


def _cast(target: TargetClass) -> list[object]:
    """Return who plays which part, for a hash."""
    parts = (target.surrogates, target.decoys)
    return [target.identity, *([str(who.identity) for who in part] for part in parts)]
