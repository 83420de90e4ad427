"""Draws of all targets at once: shuffles, choices and wrong labels, without a loop over targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from augment.receivers import Receivers
from augment.recipes import keys_of
from tasks.draws import U64, IntArray, keyed_bits
from tasks.types import TargetClass

Positions = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TargetDraws:
    """Draws of all targets: each one's are keyed by its name, so nobody depends on another.

    Attributes:
        targets: the classes under protection.
        row_ids: of all rows.
        receivers: hands out wrong labels.
        seed: of the experiment.
    """

    targets: Sequence[TargetClass]
    row_ids: IntArray
    receivers: Receivers
    seed: int

    @property
    def label(self) -> Positions:
        """The targets' labels, (targets,)."""
        return np.array([int(target.label) for target in self.targets], dtype=np.int64)

    def keys(self, *path: str | int) -> U64:
        """Return the key of each target's draws for a use, (targets,)."""
        return keys_of([target.identity for target in self.targets], self.seed, *path)

    def ranks(self, source: IntArray, group: Positions, keys: U64) -> Positions:
        """Return each row's place in its shuffled group, (n,); `keys` are one a row."""
        ids = self.row_ids[source]
        return ranks(keyed_bits(keys, ids), ids, group)

    def choose(
        self, source: IntArray, owner: Positions, fraction: Floats, *path: str | int
    ) -> npt.NDArray[np.bool_]:
        """Mark round(fraction * n) of each target's rows; `fraction` is one a target."""
        count = np.bincount(owner, minlength=len(self.targets))
        wanted = np.rint(fraction * count).astype(np.int64)
        return self.ranks(source, owner, self.keys(*path)[owner]) < wanted[owner]

    def wrong_labels(self, source: IntArray, owner: Positions, *path: str | int) -> Positions:
        """Return a wrong label for each row, (n,)."""
        keys = self.keys(*path)[owner]
        card = self.ranks(source, owner, keys)
        names = [target.identity for target in self.targets]
        return self.receivers.give(card, keys, self.label[owner], owner, names)


def ranks(bits: U64, ties: IntArray, group: Positions) -> Positions:
    """Return each row's place in its group in the order of `bits`, then of `ties`, (n,)."""
    order = np.lexsort((ties, bits, group))
    found = np.empty(len(group), dtype=np.int64)
    found[order] = places(group[order])
    return found


def places(groups: Positions) -> Positions:
    """Return 0, 1, ... within each run of equal, sorted groups, (n,)."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups, "left")
