"""Opposite in attributes, as arrays for `augment.assignment.assign`.

The score of a surrogate is what its contrasts of the settings are worth (a step is worth more than
all later ones and all weights together), plus the weights of the attributes in which it differs
from the target, less what its rarity costs. An identity that is rare in itself is held back: an
attacker's prior hardly ever shows it, so the search would find the target instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from augment.assignment import EXACT
from augment.leaves import Vectors
from augment.surrogate_spec import Contrast, OppositeSpec
from tasks.errors import SurrogateError
from tasks.suggestions import did_you_mean

FINEST = 2.0**20
"""Steps of the integers in a unit of weight, where they fit: ties are then true ties."""

Flags = npt.NDArray[np.bool_]


def attribute_flags(rows: pa.Table, identities: Sequence[str]) -> tuple[Flags, list[str]]:
    """Return which attributes each identity has: those that more than half of its rows carry.

    Args:
        rows: a row table.
        identities: names, without repetition; rows of others are left out.

    Returns:
        (identities, attributes) and the attributes' names, sorted: all that the rows carry.
    """
    number = pc.index_in(rows["identity"].combine_chunks(), pa.array(identities, pa.string()))
    who = number.fill_null(-1).to_numpy(zero_copy_only=False)
    lists = rows["attributes"].combine_chunks()
    words = pc.list_flatten(lists)
    names = sorted(pc.unique(words).to_pylist())
    if not names:
        return np.zeros((len(identities), 0), dtype=np.bool_), []
    which = pc.index_in(words, pa.array(names, pa.string())).to_numpy(zero_copy_only=False)
    of = who[pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)]
    known = of >= 0
    total = np.bincount(who[who >= 0], minlength=len(identities))
    flags = np.empty((len(identities), len(names)), dtype=np.bool_)
    for column in range(len(names)):
        carried = np.bincount(of[known & (which == column)], minlength=len(identities))
        flags[:, column] = 2 * carried > total
    return flags, names


def opposite_arrays(
    targets: Flags, pool: Flags, names: Sequence[str], rule: OppositeSpec
) -> tuple[Vectors, Vectors]:
    """Return wishes and offers whose product is the score above, for `assign`.

    Args:
        targets: attributes of the targets, (n, a).
        pool: of the pool, (m, a).
        names: of the attributes.
        rule: what counts.

    Raises:
        SurrogateError: the rule names an attribute that nobody has.
    """
    _check(rule, names)
    held = np.flatnonzero(pool.any(axis=0))  # what nobody in the pool has tells nobody apart
    share = (pool[:, held].sum(axis=0) + 1) / (len(pool) + 2)
    weight = _weights(rule, [names[column] for column in held.tolist()], share)
    cost = np.zeros(len(pool))
    if rule.rarity:
        for column, part in zip(held, share, strict=True):
            cost += np.where(pool[:, column], -np.log2(part), -np.log2(1 - part))
        cost = rule.rarity * (cost - cost.min(initial=math.inf))

    spread = float(weight.sum() + cost.max(initial=0))
    steps = rule.contrasts
    scale = min(FINEST, 2.0 ** math.floor(math.log2(EXACT / 2 ** (len(steps) + 2) / (spread + 1))))
    whole = np.rint(weight * scale)
    used = np.flatnonzero(whole)
    costs = np.rint(cost * scale)
    wishes = [np.where(targets[:, held[used]], -whole[used], whole[used])]
    offers = [pool[:, held[used]]]
    wishes.append(np.ones((len(targets), 1)))
    offers.append(-costs[:, None])
    worth = float(whole.sum() + costs.max(initial=0)) + 1
    for step in reversed(steps):
        wanted = _pattern(targets, names, [(c.target, c.turned) for c in step])
        found = _pattern(pool, names, [(c.surrogate, False) for c in step])
        kinds = np.arange(2 ** len(step))
        wishes.append(worth * (wanted[:, None] == kinds))
        offers.append(found[:, None] == kinds)
        worth *= 2
    return _join(wishes), _join(offers)


def _weights(
    rule: OppositeSpec, names: Sequence[str], share: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    if rule.weights == "balanced":
        return 4 * share * (1 - share)  # what divides people, as gender and hair do
    if rule.weights == "none":
        return np.zeros(len(names))
    return np.array([rule.weights.get(name, 0.0) for name in names])


def _pattern(
    flags: Flags, names: Sequence[str], groups: Sequence[tuple[tuple[str, ...], bool]]
) -> npt.NDArray[np.int64]:
    """Number everyone by whether they have one of each group of attributes."""
    number = np.zeros(len(flags), dtype=np.int64)
    for bit, (group, turned) in enumerate(groups):
        has = flags[:, [names.index(name) for name in group]].any(axis=1)
        number += (has ^ turned).astype(np.int64) << bit
    return number


def _check(rule: OppositeSpec, names: Sequence[str]) -> None:
    wanted = list(rule.weights) if isinstance(rule.weights, dict) else []
    contrasts: list[Contrast] = [contrast for step in rule.contrasts for contrast in step]
    wanted += [name for c in contrasts for name in (*c.target, *c.surrogate)]
    for name in wanted:
        if not names:
            raise SurrogateError(
                f"protect.opposite uses the attribute {name!r}, but the data carries no "
                "attributes; use protect.surrogates=embedding-distant"
            )
        if name not in names:
            raise SurrogateError(
                f"protect.opposite uses the attribute {name!r}, which nobody has"
                f"{did_you_mean(name, names)}"
            )


def _join(parts: Sequence[npt.NDArray[np.generic]]) -> Vectors:
    joined: Vectors = np.empty((len(parts[0]), sum(p.shape[1] for p in parts)), np.float32)
    at = 0
    for part in parts:
        joined[:, at : at + part.shape[1]] = part
        at += part.shape[1]
    return joined
