"""Random draws that belong to a thing, not to an order.

A draw is a function of (seed, names, id, position): adding a target, or changing the number of
workers, shards or the batch size, changes nobody else's draw. A `torch.Generator` cannot promise
that, since it hands out numbers in the order in which they are asked for.

The bits come from the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) applied twice to
a keyed counter; good for simulation, not for secrets.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
IntArray = npt.NDArray[np.integer[Any]]
FloatArray = npt.NDArray[np.float64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)

_TURNS = 12  # of the shuffle; with 4 some pairs of cards of a small deck came twice too often


@dataclass(frozen=True)
class Draws:
    """A named source of keyed draws.

    Attributes:
        seed: the experiment's seed.
        path: names that tell this use from every other, such as ("ppa", "crop").
    """

    seed: int
    path: tuple[str | int, ...] = ()

    def child(self, *names: str | int) -> Draws:
        """Return an independent source for a use, a step or an attempt."""
        return Draws(self.seed, self.path + names)

    @property
    def key(self) -> int:
        """64 bits that stand for seed and path."""
        text = repr((self.seed, self.path)).encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")

    def bits(self, ids: IntArray, count: int = 1) -> U64:
        """Return uint64 of shape (len(ids), count): row i depends on ids[i] alone."""
        rows = np.asarray(ids).astype(np.uint64).reshape(-1, 1)
        columns = np.arange(1, count + 1, dtype=np.uint64).reshape(1, -1)
        with np.errstate(over="ignore"):
            state = _mix(rows * _GAMMA + np.uint64(self.key))
            return _mix(state + columns * _GAMMA)

    def uniform(self, ids: IntArray, count: int = 1) -> FloatArray:
        """Return floats in [0, 1) of shape (len(ids), count)."""
        return (self.bits(ids, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, ids: IntArray, count: int = 1) -> FloatArray:
        """Return standard normal floats of shape (len(ids), count), by Box and Muller."""
        pairs = (count + 1) // 2
        u = self.uniform(ids, 2 * pairs)
        radius = np.sqrt(-2.0 * np.log1p(-u[:, :pairs]))
        angle = 2.0 * np.pi * u[:, pairs:]
        both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        return both[:, :count]

    def integers(self, ids: IntArray, low: int, high: int, count: int = 1) -> npt.NDArray[np.int64]:
        """Return integers in [low, high) of shape (len(ids), count)."""
        return low + np.floor(self.uniform(ids, count) * (high - low)).astype(np.int64)

    def generator(self, id_: int = 0) -> np.random.Generator:
        """Return a NumPy generator for one id, for draws whose number is not known beforehand."""
        return np.random.Generator(np.random.Philox(key=int(self.bits(np.array([id_]))[0, 0])))


def keyed_bits(keys: U64, ids: IntArray) -> U64:
    """Return one uint64 for each row, shape (n,): that of `Draws.bits` of its key and id.

    Args:
        keys: `Draws.key` of each row's own source, (n,).
        ids: (n,).
    """
    with np.errstate(over="ignore"):
        return _mix(_mix(np.asarray(ids).astype(np.uint64) * _GAMMA + keys) + _GAMMA)


def keyed_shuffle(keys: U64, positions: IntArray, sizes: IntArray) -> npt.NDArray[np.int64]:
    """Return where each position lies after a shuffle of range(size) under each row's own key.

    A Feistel network over a power of four, walked until it falls into the range: a permutation that
    needs no table, so that a million rows may each ask for one card of a deck of a million.

    Args:
        keys: of each row's deck, (n,).
        positions: in [0, size), (n,).
        sizes: of each row's deck, at least 1, (n,).

    Returns:
        (n,) in [0, size); equal keys and sizes and different positions never meet.
    """
    size = np.asarray(sizes).astype(np.uint64)
    bits = np.frexp(size.astype(np.float64) - 1)[1]  # of the largest position
    half = (np.maximum(bits + 1, 2) // 2).astype(np.uint64)
    low = (np.uint64(1) << half) - np.uint64(1)
    value = np.asarray(positions).astype(np.uint64)
    found = np.empty(len(value), dtype=np.int64)
    waiting = np.arange(len(value))
    while len(waiting):
        shift, mask = half[waiting], low[waiting]
        left, right = value >> shift, value & mask
        for turn in range(_TURNS):
            mixed = keyed_bits(keys[waiting] + np.uint64(turn), right)
            left, right = right, left ^ (mixed & mask)
        value = (left << shift) | right
        inside = value < size[waiting]
        found[waiting[inside]] = value[inside]
        waiting, value = waiting[~inside], value[~inside]
    return found


def _mix(x: U64) -> U64:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
