"""A pool cut into leaves, so that the best of a million is found by looking at a few thousand.

A leaf is a box: for each column the least and the greatest value of its vectors. The product of a
wish with any vector inside is at most its product with the box's best corner, so a leaf whose
corner is worse than what was found already need not be opened.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEAF = 512
"""Vectors of a leaf at most: 128 kB of 64 columns, which stay in the processor's cache."""

_ROWS = 1 << 14  # copied at once

Vectors = npt.NDArray[np.float32]

Whole = npt.NDArray[np.float32] | npt.NDArray[np.int16]
"""Integers, in whichever of the two is smaller and holds them."""


@dataclass
class Leaves:
    """Vectors in leaves; those of leaf c are rows starts[c] to ends[c].

    Attributes:
        vectors: (n, d) float32, ordered by leaf.
        ids: whose they are, (n,).
        starts: first row of each leaf.
        ends: one behind the last row that is left of each leaf.
        low: least value of each column in each leaf, (leaves, d).
        high: greatest value of each column in each leaf, (leaves, d).
    """

    vectors: Vectors
    ids: npt.NDArray[np.int64]
    starts: list[int]
    ends: list[int]
    low: Vectors
    high: Vectors

    def bounds(self, wishes: Vectors) -> Vectors:
        """Return what the best vector of each leaf can reach for each wish, (wishes, leaves)."""
        found: Vectors = np.maximum(wishes, 0) @ self.high.T
        found += np.minimum(wishes, 0) @ self.low.T
        return found

    def drop(self, leaf: int, row: int) -> None:
        """Take one row out of a leaf; the leaf's last row moves into its place."""
        self.ends[leaf] -= 1
        last = self.ends[leaf]
        self.vectors[row] = self.vectors[last]
        self.ids[row] = self.ids[last]


def make_leaves(
    vectors: Whole, ids: npt.NDArray[np.int64], spread: npt.NDArray[np.float64]
) -> Leaves:
    """Cut vectors at the median of the column that moves the products most, until leaves are small.

    Args:
        vectors: (n, d), integers; `ids` picks the rows to use.
        ids: rows of `vectors`.
        spread: mean square of each column of the wishes, (d,).
    """
    done: list[npt.NDArray[np.int64]] = []
    stack = [np.sort(ids)]
    while stack:
        here = stack.pop()
        if len(here) <= LEAF:
            done.append(here)
            continue
        column = int(np.argmax(_variances(vectors, here) * spread))
        order = np.argsort(vectors[here, column], kind="stable")
        half = len(here) // 2
        stack += [here[np.sort(order[half:])], here[np.sort(order[:half])]]
    sizes = np.array([len(part) for part in done])
    ends = np.cumsum(sizes)
    rows = np.concatenate(done)
    ordered = np.empty((len(rows), vectors.shape[1]), dtype=np.float32)
    for start in range(0, len(rows), _ROWS):
        ordered[start : start + _ROWS] = vectors[rows[start : start + _ROWS]]
    low = np.minimum.reduceat(ordered, ends - sizes, axis=0)
    high = np.maximum.reduceat(ordered, ends - sizes, axis=0)
    return Leaves(ordered, rows, (ends - sizes).tolist(), ends.tolist(), low, high)


def _variances(vectors: Whole, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the variance of each column; sums of integers in float64 are exact everywhere."""
    total = np.zeros(vectors.shape[1])
    square = np.zeros(vectors.shape[1])
    for start in range(0, len(rows), _ROWS):
        part = vectors[rows[start : start + _ROWS]]
        total += part.sum(axis=0, dtype=np.float64)
        square += np.einsum("ij,ij->j", part, part, dtype=np.float64)
    found: npt.NDArray[np.float64] = square / len(rows) - (total / len(rows)) ** 2
    return found
