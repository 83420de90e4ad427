"""What a plan that comes in parts adds up to: counts, wrong labels, and one hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from augment.plan import count_roles
from augment.recipes import PLAN_SCHEMA, ROLES


class PlanTally:
    """Adds up tables of recipes without keeping them; 17 bytes a class.

    Args:
        num_classes: labels of the target classifier.
        protected: those of the targets.
    """

    def __init__(self, num_classes: int, protected: Iterable[int]) -> None:
        self.rows = 0
        self.counts: dict[str, int] = dict.fromkeys(ROLES, 0)
        self._received = np.zeros(num_classes, dtype=np.int64)
        self._own = np.zeros(num_classes, dtype=np.int64)
        self._bystander = np.ones(num_classes, dtype=bool)
        self._bystander[list(protected)] = False
        self._hashes = {name: hashlib.sha256() for name in PLAN_SCHEMA.names}

    def add(self, plan: pa.Table) -> None:
        """Take the next recipes, a table of PLAN_SCHEMA."""
        if not plan.num_rows:
            return
        self.rows += plan.num_rows
        for role, count in count_roles(plan).items():
            self.counts[role] += count
        labels = plan["label"].to_numpy()
        clean = pc.equal(plan["role"].cast(pa.string()), "clean").to_numpy(zero_copy_only=False)
        others = self._bystander[labels]
        self._own += np.bincount(labels[clean & others], minlength=len(self._own))
        self._received += np.bincount(labels[~clean & others], minlength=len(self._own))
        for name, digest in self._hashes.items():
            digest.update(_bytes(plan[name]))

    @property
    def received(self) -> float:
        """Most wrongly labelled rows that a bystander's class receives, for each of its own."""
        return float((self._received / np.maximum(self._own, 1)).max(initial=0.0))

    @property
    def fingerprint(self) -> str:
        """A hash of the recipes in their order, however they were cut; not `plan_digest`'s."""
        whole = hashlib.sha256(b"".join(digest.digest() for digest in self._hashes.values()))
        return whole.hexdigest()[:12]


def _bytes(column: pa.ChunkedArray) -> bytes:
    if pa.types.is_dictionary(column.type):
        # Parts may list the roles in another order, or not all of them.
        column = pc.index_in(column.cast(pa.string()), pa.array(ROLES)).cast(pa.int8())
    values: npt.NDArray[np.generic] = column.to_numpy()
    return values.tobytes()
