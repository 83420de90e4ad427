"""Which images of its lenders a target borrows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from augment.spec import Count
from augment.target_draws import Positions, TargetDraws, places
from tasks.types import Lender


@dataclass(frozen=True)
class Lent:
    """Lent images: to which target, where they are, and how often each came before, (n,)."""

    owner: Positions
    source: Positions
    repeat: Positions


def lend(
    draws: TargetDraws,
    lent: Mapping[str, Positions],
    lenders: Sequence[tuple[Lender, ...]],
    match: Positions,
    policies: Sequence[Count],
    distinct: int | None,
    path: str,
) -> Lent:
    """Choose images of each target's lenders; several lenders share the number evenly.

    Args:
        draws: of the targets.
        lent: positions of each lender's rows.
        lenders: of each target, any number of them.
        match: training images of each target.
        policies: how many images each target borrows.
        distinct: different images taken of a lender before they repeat; None is all.
        path: names this use of the draws.
    """
    pairs = [
        (t, who.identity, i, len(of)) for t, of in enumerate(lenders) for i, who in enumerate(of)
    ]
    if not pairs:
        nothing = np.empty(0, dtype=np.int64)
        return Lent(nothing, nothing, nothing)
    have = np.array([len(lent[name]) for _, name, _, _ in pairs])
    want = np.empty(len(pairs), dtype=np.int64)
    for j, (t, _, i, sharers) in enumerate(pairs):
        policy = policies[t]
        total = int(match[t]) if policy == "match" else policy
        want[j] = have[j] if total == "all" else total // sharers + (i < total % sharers)
    pair = np.repeat(np.arange(len(pairs)), have)
    owner = np.array([t for t, _, _, _ in pairs])
    source = np.concatenate([lent[name] for _, name, _, _ in pairs])
    ranks = draws.ranks(source, pair, draws.keys(path)[owner[pair]])
    shuffled = np.empty(len(source), dtype=np.int64)
    starts = np.cumsum(have) - have
    shuffled[starts[pair] + ranks] = source
    taken = np.repeat(np.arange(len(pairs)), want)
    place = places(taken)
    deck = have if distinct is None else np.minimum(have, distinct)
    return Lent(owner[taken], shuffled[starts[taken] + place % deck[taken]], place // deck[taken])
