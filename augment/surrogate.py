"""Surrogates: for each target class the outside identity whose images borrow its label.

The paper asks for an irrelevant class. The released code for CelebA takes the opposite gender and
hair; attribute-opposite is the general form of that rule. docs/surrogates.md compares the policies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from augment.assignment import Seats, assign
from augment.embeddings import Embedding, distant_arrays
from augment.opposites import attribute_flags, opposite_arrays
from augment.surrogate_list import Listed, listed_surrogates
from augment.surrogate_spec import OppositeSpec
from tasks.draws import Draws
from tasks.errors import TargetClassError
from tasks.suggestions import did_you_mean
from tasks.types import ClassId, IdentityId, Lender, TargetClass

TYPICAL_SHARE = 1 / 3
"""Of the pool: the most typical people are kept, as many as there are targets at least."""


SINGLE = Seats()
"""One surrogate each, used once."""


def choose_targets(rows: pa.Table, targets: int | Sequence[str], seed: int) -> list[IdentityId]:
    """Return the identities under protection: those named, or a keyed draw of so many.

    Raises:
        TargetClassError: a name is not a private identity, or more are asked for than there are.
    """
    private = _identities(rows, "train")
    if isinstance(targets, int):
        if not 0 <= targets <= len(private):
            raise TargetClassError(
                f"protect.targets={targets}, but there are {len(private)} private identities; "
                "ask for at most so many"
            )
        draws = Draws(seed, ("targets",))
        order = {name: draws.child(name).key for name in private}
        chosen = sorted(sorted(private, key=order.__getitem__)[:targets])
        return [IdentityId(name) for name in chosen]
    known, times = set(private), Counter(targets)
    for name in targets:
        if name not in known:
            raise TargetClassError(
                f"protect.targets names {name!r}, which is not a private identity"
                f"{did_you_mean(name, private)}"
            )
        if times[name] > 1:
            raise TargetClassError(f"protect.targets names {name!r} twice; name it once")
    return [IdentityId(name) for name in targets]


def assign_surrogates(
    rows: pa.Table,
    targets: Sequence[IdentityId],
    surrogates: Listed | str,
    num_classes: int,
    seed: int,
    typicality: Mapping[str, float] | None = None,
    *,
    seats: Seats = SINGLE,
    decoys: int = 0,
    opposite: OppositeSpec | None = None,
    embedding: Embedding | None = None,
) -> list[TargetClass]:
    """Give each target its surrogates, and its decoys, out of the pool.

    Targets are served in the order of their names, whatever the order in which they are given. One
    target more takes one seat in each round: others change only where they wanted that very seat,
    or one that was given up for it. (typical-opposite opens more of the pool where it must.)

    Args:
        rows: row table; identities with split "surrogate" are the pool.
        targets: identities under protection.
        surrogates: "attribute-opposite", "typical-opposite" or "embedding-distant", or a mapping
            from target to surrogates, which is followed even where it shares a surrogate.
        num_classes: the evaluation classifier's extra classes start here.
        seed: of the experiment; breaks ties.
        typicality: of the identities of the pool, higher is more typical; for "typical-opposite",
            which without it takes all of them.
        seats: surrogates of each target, decoys among them, and targets of each surrogate.
        decoys: how many of a target's seats, the last ones, are decoys.
        opposite: what counts as opposite in attributes.
        embedding: of targets and pool; for "embedding-distant".

    Raises:
        SurrogateError: fewer surrogates than targets, a target without one, or a bad name.
    """
    pool = _identities(rows, "surrogate")
    if isinstance(surrogates, str):
        seats.check(len(targets), len(pool))
        if surrogates == "typical-opposite" and typicality is not None:
            pool = _most_typical(pool, typicality, seats.least_pool(len(targets)))
        order = np.array(sorted(range(len(targets)), key=targets.__getitem__), dtype=np.int64)
        served = [targets[at] for at in order.tolist()]
        if surrogates == "embedding-distant":
            assert embedding is not None
            at = embedding.of(served, "targets"), embedding.of(pool, "of the pool")
            pa.default_memory_pool().release_unused()  # a fleet's tables of names
            wishes, offers = distant_arrays(embedding, *at)
        else:
            flags, names = attribute_flags(rows, [*served, *pool])
            wishes, offers = opposite_arrays(
                flags[: len(served)], flags[len(served) :], names, opposite or OppositeSpec()
            )
        keys = np.array([Draws(seed, ("surrogate", name)).key for name in served], np.uint64)
        found = assign(wishes, offers, keys, seats, seed)
        del wishes, offers, served  # make room for the target classes
        chosen = [tuple(pool[at] for at in row) for row in found[np.argsort(order)].tolist()]
    else:
        private = _identities(rows, "train")
        chosen = listed_surrogates(targets, surrogates, pool, private, seats.per_target)
    return _classes(rows, targets, chosen, num_classes, decoys)


def _classes(
    rows: pa.Table,
    targets: Sequence[IdentityId],
    chosen: Sequence[Sequence[str]],
    num_classes: int,
    decoys: int,
) -> list[TargetClass]:
    """Number the lenders behind the classes of the model, in the order of their names."""
    names = sorted({name for names in chosen for name in names})
    lenders = {
        name: Lender(IdentityId(name), num_classes + number) for number, name in enumerate(names)
    }
    private = rows.filter(pc.greater_equal(rows["label"], 0))
    first = pc.index_in(pa.array(targets, pa.string()), private["identity"].combine_chunks())
    labels = private["label"].take(first).to_pylist()
    parts = [tuple(lenders[name] for name in names) for names in chosen]
    return [
        TargetClass(ClassId(label), target, part[: len(part) - decoys], part[len(part) - decoys :])
        for label, target, part in zip(labels, targets, parts, strict=True)
    ]


def _most_typical(pool: Sequence[str], typicality: Mapping[str, float], least: int) -> list[str]:
    count = max(least, round(TYPICAL_SHARE * len(pool)))
    order = sorted(pool, key=lambda name: (-typicality.get(name, -np.inf), name))
    return sorted(order[:count])


def _identities(rows: pa.Table, split: str) -> list[str]:
    found: list[str] = pc.unique(
        rows["identity"].filter(pc.equal(rows["split"], split))
    ).to_pylist()
    return sorted(found)
