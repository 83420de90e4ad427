"""Who lends to whom, for eight targets or a million: one function over arrays.

How well pool identity j suits target i is the product `wishes[i] @ offers[j]`; a policy is a way to
write down the two arrays (augment/opposites.py, augment/embeddings.py). Targets are served in the
order of the rows, first all of them once, then all of them a second time; each takes the best that
is free, and a keyed draw of its own decides between equals. The entries are integers and the
products stay below 2**24, so float32 holds them exactly: neither the machine, nor the number of
threads, nor the size of a block can change who is chosen.

Up to PROBES * LEAF different offers that is the exact greedy answer. Of more, a target looks at the
PROBES leaves of the pool that promise most; it sees that the rest cannot be better, or takes the
best of those.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from augment.leaves import Leaves, Vectors, Whole, make_leaves
from tasks.draws import U64, Draws, keyed_bits
from tasks.errors import SurrogateError

PROBES = 16
"""Leaves that a target looks into at most."""

WINDOW = 64
"""Of identities that are equal in all columns, a target draws among so many free ones."""

EXACT = float(2**24)
"""Up to here float32 holds every integer."""

_CHUNK = 512  # targets whose bounds are computed at once

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Seats:
    """How many surrogates a target gets, and how many targets a surrogate may serve.

    Attributes:
        per_target: different surrogates (or decoys) for each target.
        per_surrogate: targets that one identity of the pool may serve.
    """

    per_target: int = 1
    per_surrogate: int = 1

    def least_pool(self, targets: int) -> int:
        """Return how many identities of the pool so many targets need."""
        if not targets:
            return 0
        return max(-(-targets * self.per_target // self.per_surrogate), self.per_target)

    def check(self, targets: int, pool: int) -> None:
        """Refuse a pool that is too small.

        Raises:
            SurrogateError: there are fewer seats than targets ask for.
        """
        if pool >= self.least_pool(targets):
            return
        each = f", {self.per_target} for each," if self.per_target > 1 else ""
        shared = (
            f" that serve at most {self.per_surrogate} targets each"
            if self.per_surrogate > 1
            else ""
        )
        raise SurrogateError(
            f"{targets} targets{each} but only {pool} surrogate identities{shared}; protect fewer, "
            "add identities to the surrogate pool, or raise protect.max_targets_per_surrogate"
        )


def assign(wishes: Whole, offers: Whole, keys: U64, seats: Seats, seed: int) -> Positions:
    """Give each target its surrogates out of the pool.

    Args:
        wishes: (targets, d), integers, in the order in which targets are served.
        offers: (pool, d), integers; no |wish| @ |offer| may exceed 2**24.
        keys: of each target's own draws, (targets,).
        seats: surrogates for a target, targets for a surrogate.
        seed: of the experiment; decides which of many equal identities come first.

    Returns:
        Positions in the pool, (targets, seats.per_target): different ones in a row, and none in
        more rows than `seats.per_surrogate`.

    Raises:
        SurrogateError: the pool is too small.
    """
    seats.check(len(wishes), len(offers))
    chosen = np.full((len(wishes), seats.per_target), -1, dtype=np.int64)
    if not len(wishes):
        return chosen
    pool = _Pool(offers, seats, Draws(seed, ("surrogate", "equals")))
    spread = np.zeros(wishes.shape[1])
    for start in range(0, len(wishes), _CHUNK):
        spread += (wishes[start : start + _CHUNK].astype(np.float64) ** 2).sum(axis=0)
    leaves = pool.leaves(spread)
    for slot in range(seats.per_target):
        row = 0
        while row < len(wishes):
            if 2 * pool.left <= len(leaves.ids) and pool.left:
                del leaves
                leaves = pool.leaves(spread)  # smaller boxes and full leaves again
            part = wishes[row : row + _CHUNK].astype(np.float32)
            bounds = leaves.bounds(part)
            for offset in range(len(bounds)):
                own = chosen[row, :slot]
                found = pool.best(leaves, part[offset], bounds[offset], keys[row : row + 1], own)
                if found < 0:
                    chosen[row, slot], found = _swap(chosen, row, slot, pool)
                else:
                    chosen[row, slot] = found
                pool.take(leaves, found)
                row += 1
    return chosen


class _Pool:
    """The pool while it is being given away.

    Identities with the same offer are one unit: their product with any wish is the same. A unit's
    free identities are members[first[u]:last[u]], and the first WINDOW of them can be drawn.
    """

    def __init__(self, offers: Whole, seats: Seats, draws: Draws) -> None:
        count = len(offers)
        self.seats = seats
        self.unit_of, example = distinct_rows(offers)
        self.offers = offers if len(example) == count else offers[example]
        self.rows_of_units = example if len(example) == count else np.arange(len(example))
        order = draws.bits(np.arange(count))[:, 0]
        self.members = np.lexsort((order, self.unit_of))
        ends = np.cumsum(np.bincount(self.unit_of, minlength=len(example)))
        self.last = ends
        self.first = np.append(0, ends[:-1])
        self.load = np.zeros(count, dtype=np.int32)
        self.left = len(example)
        """Units with a free seat."""
        self.place = np.full(len(example), -1, dtype=np.int64)  # leaf of each unit

    def leaves(self, spread: npt.NDArray[np.float64]) -> Leaves:
        """Put the units that have a free seat into leaves."""
        free = np.flatnonzero(self.first < self.last)
        rows = self.rows_of_units[free]
        made = make_leaves(self.offers, rows, spread)
        unit = np.empty(len(self.offers), dtype=np.int64)
        unit[rows] = free
        made.ids[:] = unit[made.ids]
        for leaf, (start, end) in enumerate(zip(made.starts, made.ends, strict=True)):
            self.place[made.ids[start:end]] = leaf
        return made

    def best(self, leaves: Leaves, wish: Vectors, bounds: Vectors, key: U64, own: Positions) -> int:
        """Return the position of the best free identity that is not in `own`, -1 for none."""
        repeats = len(own) > 0 and self.seats.per_surrogate > 1
        top, probes = -np.inf, 0
        tied: list[int] = []
        while probes < PROBES:
            leaf = int(bounds.argmax())
            if bounds[leaf] == -np.inf or bounds[leaf] < top:
                break
            bounds[leaf] = -np.inf
            start, end = leaves.starts[leaf], leaves.ends[leaf]
            if start == end:
                continue
            score = leaves.vectors[start:end] @ wish
            if repeats:
                self._mask(score, leaf, leaves.ids[start:end], own)
            reached = float(score.max())
            if reached == -np.inf:
                continue
            probes += 1
            if reached > top:
                top, tied = reached, []
            if reached == top:
                tied += leaves.ids[start + np.flatnonzero(score == reached)].tolist()
        if not tied:
            return -1
        if len(tied) == 1 and self.last[tied[0]] - self.first[tied[0]] == 1:
            return int(self.members[self.first[tied[0]]])
        free = np.concatenate([self._window(unit) for unit in tied])
        if repeats:
            free = free[~np.isin(free, own)]
        draw = keyed_bits(key, free) >> np.uint64(11)
        return int(free[draw == draw.max()].min())

    def _window(self, unit: int) -> Positions:
        first = self.first[unit]
        return self.members[first : min(first + WINDOW, self.last[unit])]

    def _mask(self, score: Vectors, leaf: int, units: Positions, own: Positions) -> None:
        """Rule out the units of a leaf whose free identities serve this target already."""
        for unit in self.unit_of[own].tolist():
            if self.place[unit] == leaf and np.isin(self._window(unit), own).all():
                score[units == unit] = -np.inf

    def take(self, leaves: Leaves, position: int) -> None:
        """Fill one seat of an identity; without a free seat it leaves the pool."""
        self.load[position] += 1
        if self.load[position] < self.seats.per_surrogate:
            return
        unit = int(self.unit_of[position])
        first = self.first[unit]
        at = first + int(np.flatnonzero(self._window(unit) == position)[0])
        self.members[at] = self.members[first]
        self.members[first] = position
        self.first[unit] = first + 1
        if self.first[unit] == self.last[unit]:
            self.left -= 1
            leaf = int(self.place[unit])
            start, end = leaves.starts[leaf], leaves.ends[leaf]
            leaves.drop(leaf, start + int(np.flatnonzero(leaves.ids[start:end] == unit)[0]))


def _swap(chosen: Positions, row: int, slot: int, pool: _Pool) -> tuple[int, int]:
    """Make room where all that is free serves this target already.

    The last target served that has not the free identity, and has one that this target lacks, takes
    the free one and hands over its own. There always is such a target: all have at least as many
    surrogates as this one, so one without the free identity has something else instead.

    Returns:
        The identity handed over to this target, and the free one, whose seat is now to be filled.
    """
    own = chosen[row, :slot]
    free = int(own[pool.load[own] < pool.seats.per_surrogate].min())
    for other in [*range(row - 1, -1, -1), *range(len(chosen) - 1, row, -1)]:
        theirs = chosen[other]
        others = np.flatnonzero((theirs >= 0) & ~np.isin(theirs, own))
        if free not in theirs and len(others):
            given = int(theirs[others[-1]])
            theirs[others[-1]] = free
            return given, free
    raise AssertionError("a pool with enough seats serves everyone")


def distinct_rows(vectors: Whole) -> tuple[Positions, Positions]:
    """Number the different rows of an array.

    Returns:
        The number of each row, (n,), and for each number a row that has it.
    """
    code = np.zeros(len(vectors), dtype=np.uint64)
    step = max(1, (1 << 20) // max(vectors.shape[1], 1))
    factors = Draws(0, ("columns",)).bits(np.arange(vectors.shape[1]))[:, 0] | np.uint64(1)
    for start in range(0, len(vectors), step):
        part = vectors[start : start + step].astype(np.int64).astype(np.uint64)
        with np.errstate(over="ignore"):
            code[start : start + step] = keyed_bits(
                np.zeros(1, dtype=np.uint64), part * factors
            ).sum(axis=1)
    _, example, number = np.unique(code, return_index=True, return_inverse=True)
    for start in range(0, len(vectors), step):
        same = vectors[example[number[start : start + step]]] == vectors[start : start + step]
        assert same.all(), "two different rows with the same 64-bit hash"
    return number.astype(np.int64), example.astype(np.int64)
