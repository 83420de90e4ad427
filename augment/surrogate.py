"""Surrogates: for each target class the outside identity whose images borrow its label.

The paper asks for an irrelevant class. The released code for CelebA takes the opposite gender and
hair; attribute-opposite is the general form of that rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from tasks.draws import Draws
from tasks.errors import SurrogateError, TargetClassError
from tasks.suggestions import did_you_mean
from tasks.types import ClassId, IdentityId, Lender, TargetClass

TYPICAL_SHARE = 1 / 3
"""Of the pool: the most typical people are kept, as many as there are targets at least."""

RARITY_WEIGHT = 0.5
"""Of a bit of rarity: being one in four costs what an attribute that half of people have gains."""


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
    for name in targets:
        if name not in private:
            raise TargetClassError(
                f"protect.targets names {name!r}, which is not a private identity"
                f"{did_you_mean(name, private)}"
            )
        if list(targets).count(name) > 1:
            raise TargetClassError(f"protect.targets names {name!r} twice; name it once")
    return [IdentityId(name) for name in targets]


def assign_surrogates(
    rows: pa.Table,
    targets: Sequence[IdentityId],
    surrogates: Mapping[str, str] | str,
    num_classes: int,
    seed: int,
    typicality: Mapping[str, float] | None = None,
) -> list[TargetClass]:
    """Give each target its own surrogate out of the pool.

    Args:
        rows: row table; identities with split "surrogate" are the pool.
        targets: identities under protection.
        surrogates: "attribute-opposite" or "typical-opposite", or a mapping from target to
            surrogate.
        num_classes: the evaluation classifier's extra classes start here.
        seed: of the experiment; breaks ties.
        typicality: of the identities of the pool, higher is more typical; for "typical-opposite",
            which without it takes all of them.

    Raises:
        SurrogateError: fewer surrogates than targets, a target without one, or a bad name.
    """
    pool = _identities(rows, "surrogate")
    if isinstance(surrogates, str):
        if len(pool) < len(targets):
            raise SurrogateError(
                f"{len(targets)} targets but only {len(pool)} surrogate identities; protect fewer, "
                "or add identities to the surrogate pool"
            )
        if surrogates == "typical-opposite" and typicality is not None:
            pool = _most_typical(pool, typicality, len(targets))
        chosen = _opposite(rows, targets, pool, seed)
    else:
        chosen = _listed(rows, targets, surrogates, pool)
    labels = _labels(rows)
    lenders = sorted(set(chosen))
    return [
        TargetClass(
            label=ClassId(labels[target]),
            identity=target,
            surrogates=(Lender(IdentityId(name), num_classes + lenders.index(name)),),
        )
        for target, name in zip(targets, chosen, strict=True)
    ]


def _most_typical(pool: Sequence[str], typicality: Mapping[str, float], targets: int) -> list[str]:
    count = max(targets, round(TYPICAL_SHARE * len(pool)))
    order = sorted(pool, key=lambda name: (-typicality.get(name, -np.inf), name))
    return sorted(order[:count])


def _opposite(
    rows: pa.Table, targets: Sequence[IdentityId], pool: Sequence[str], seed: int
) -> list[str]:
    """Serve targets one by one with the most dissimilar free identity, ties by a keyed draw.

    Dissimilar means differing in attributes that divide people (of frequency p, weight 4p(1 - p)),
    as gender and hair do in the released code. An identity that is rare in itself is held back: an
    attacker's prior hardly ever shows it, so the search would find the target instead.
    """
    attributes = _attributes(rows)
    vocabulary = sorted({a for name in pool for a in attributes[name]})
    has = np.array([[a in attributes[name] for a in vocabulary] for name in pool], dtype=bool)
    share = (has.sum(axis=0) + 1) / (len(pool) + 2)
    surprise = -np.where(has, np.log2(share), np.log2(1 - share)).sum(axis=1)  # bits
    weight = 4 * share * (1 - share)
    free = np.ones(len(pool), dtype=bool)
    chosen = []
    for target in targets:
        own = np.array([a in attributes[target] for a in vocabulary], dtype=bool)
        score = (has != own) @ weight - RARITY_WEIGHT * surprise
        score += 1e-6 * Draws(seed, ("surrogate", target)).uniform(np.arange(len(pool)))[:, 0]
        best = int(np.argmax(np.where(free, score, -np.inf)))
        free[best] = False
        chosen.append(pool[best])
    return chosen


def _listed(
    rows: pa.Table, targets: Sequence[IdentityId], listed: Mapping[str, str], pool: Sequence[str]
) -> list[str]:
    private = set(_identities(rows, "train"))
    for target in targets:
        if target not in listed:
            raise SurrogateError(
                f"protect.surrogates names no surrogate for target {target!r}; add one"
            )
    for served, name in listed.items():
        if name in private:
            raise SurrogateError(
                f"protect.surrogates gives {served!r} the surrogate {name!r}, which is a private "
                "class of the model; choose an identity outside it"
            )
        if name not in pool:
            raise SurrogateError(
                f"protect.surrogates names {name!r}, which is not in the surrogate pool"
                f"{did_you_mean(name, pool)}"
            )
    return [listed[target] for target in targets]


def _identities(rows: pa.Table, split: str) -> list[str]:
    mask = rows["split"].to_numpy(zero_copy_only=False) == split
    return sorted(set(rows["identity"].to_numpy(zero_copy_only=False)[mask].tolist()))


def _labels(rows: pa.Table) -> dict[str, int]:
    pairs = zip(rows["identity"].to_pylist(), rows["label"].to_pylist(), strict=True)
    return {identity: label for identity, label in pairs if label >= 0}


def _attributes(rows: pa.Table) -> dict[str, frozenset[str]]:
    """Return each identity's attributes: those that most of its rows carry."""
    held: dict[str, dict[str, int]] = {}
    total: dict[str, int] = {}
    for identity, names in zip(
        rows["identity"].to_pylist(), rows["attributes"].to_pylist(), strict=True
    ):
        total[identity] = total.get(identity, 0) + 1
        counts = held.setdefault(identity, {})
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    return {
        identity: frozenset(name for name, count in counts.items() if 2 * count > total[identity])
        for identity, counts in held.items()
    }
