"""Plans of data that are never held: the built-in faces, in any number, as batches of rows.

Who is protected by whom depends on identities alone, so it is decided on one row of each; the rows
themselves are made when they are planned. Memory is that of the identities and of one batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from augment.stream_plan import check_independent
from orchestrator.selection import Selection, select
from orchestrator.spec import ExperimentSpec
from tasks.datasets.builtin import builtin_batches
from tasks.datasets.spec import BuiltinData
from tasks.errors import SpecError

LARGE = 1_000_000
"""Rows from which on they are not held: about 1 GiB with everything that a row table says."""

BATCH = 1 << 20


@dataclass(frozen=True)
class LargeData:
    """Rows that come in batches.

    Attributes:
        data: what they are.
        selection: who is protected by whom; its row table has one row an identity and split.
        train: training rows.
        test: test rows.
        lent: rows of those who lend.
        protected: training rows of targets.
    """

    data: BuiltinData
    selection: Selection
    train: int
    test: int
    lent: int
    protected: int

    def batches(self, size: int = BATCH) -> Iterator[pa.Table]:
        """Yield the rows in the order that their plan has."""
        lenders = {str(who.identity) for t in self.selection.targets for who in t.lenders}
        return builtin_batches(self.data, sorted(lenders), size)


def large_data(spec: ExperimentSpec, least: int = LARGE) -> LargeData | None:
    """Return the data as batches where there are many; None where the row table is held.

    It is held too where pictures decide who lends, images are held back, or a lever makes targets
    depend on each other.

    Args:
        spec: the experiment.
        least: rows that are many.
    """
    data, protect = spec.data, spec.protect
    if not isinstance(data, BuiltinData) or rows_in(data) < least:
        return None
    looks = protect.surrogates == "typical-opposite" or (
        protect.surrogates == "embedding-distant" and not isinstance(protect.embedding, Path)
    )
    if looks or protect.surrogate_held_out or protect.surrogate_pool == "held-out":
        return None
    one = {"train_images": 1, "test_images": 0, "surrogate_images": 1, "public_images": 1}
    selection = select(spec.model_copy(update={"data": data.model_copy(update=one)}))
    try:
        check_independent(spec.dcd, selection.targets)
    except SpecError:
        return None
    lenders = {who.identity for target in selection.targets for who in target.lenders}
    return LargeData(
        data=data,
        selection=selection,
        train=data.identities * data.train_images,
        test=data.identities * data.test_images,
        lent=len(lenders) * data.surrogate_images,
        protected=len(selection.targets) * data.train_images,
    )


def rows_in(data: BuiltinData) -> int:
    """Return how many rows the whole table would have."""
    return (
        data.identities * (data.train_images + data.test_images)
        + data.surrogate_identities * data.surrogate_images
        + data.public_identities * data.public_images
    )
