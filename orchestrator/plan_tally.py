"""What a plan that comes in parts adds up to: counts, wrong labels, and its fingerprint."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from augment.plan import count_roles, make_plan
from augment.recipes import PLAN_SCHEMA, ROLES
from augment.spec import DcdSpec
from augment.stream_plan import COLUMNS, check_independent, stream_plan
from tasks.errors import SpecError
from tasks.types import TargetClass

if TYPE_CHECKING:
    from orchestrator.large_data import LargeData
    from orchestrator.selection import Selection

BATCH = 1 << 18
"""Rows that are planned at once."""


class PlanDigest:
    """A plan's fingerprint, the same however the plan is cut into tables."""

    def __init__(self) -> None:
        self._hashes = {name: hashlib.sha256() for name in PLAN_SCHEMA.names}

    def add(self, plan: pa.Table) -> None:
        """Take the next recipes, a table of PLAN_SCHEMA."""
        for name, digest in self._hashes.items():
            digest.update(_bytes(name, plan[name]))

    @property
    def value(self) -> str:
        """Of everything that was taken, in its order."""
        whole = hashlib.sha256(b"".join(digest.digest() for digest in self._hashes.values()))
        return whole.hexdigest()[:12]


def plan_digest(plan: pa.Table) -> str:
    """Return a hash of a plan's content, the same for equal recipes in the same order."""
    digest = PlanDigest()
    digest.add(plan)
    return digest.value


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
        self._digest = PlanDigest()

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
        self._digest.add(plan)

    @property
    def received(self) -> float:
        """Most wrongly labelled rows that a bystander's class receives, for each of its own."""
        return float((self._received / np.maximum(self._own, 1)).max(initial=0.0))

    @property
    def fingerprint(self) -> str:
        """Of the recipes in their order: `plan_digest` of the whole."""
        return self._digest.value


class PlannedRows:
    """Training rows under one recipe or another; each recipe is planned once.

    Args:
        before: rows of the data as they are.
        make: plans a recipe.
    """

    def __init__(self, before: int, make: Callable[[DcdSpec], PlanTally]) -> None:
        self.before = before
        self._make = make
        self._known: dict[str, PlanTally] = {}

    def tally(self, dcd: DcdSpec) -> PlanTally:
        """Return what the plan of a recipe adds up to."""
        name = dcd.model_dump_json()
        if name not in self._known:
            self._known[name] = self._make(dcd)
        return self._known[name]

    def __call__(self, dcd: DcdSpec | None) -> int:
        """Return how many rows are trained on; None is the data as they are."""
        return self.before if dcd is None else self.tally(dcd).rows


def held_rows(selection: Selection, rows: pa.Table, seed: int) -> PlannedRows:
    """Return the counts of plans of a table that is held.

    Args:
        selection: who is protected.
        rows: `rows_in_order` of it.
        seed: of the experiment.
    """

    def make(dcd: DcdSpec) -> PlanTally:
        return tally_plan(rows, selection.targets, selection.num_classes, dcd, seed)

    return PlannedRows(selection.split("train").num_rows, make)


def large_rows(large: LargeData, seed: int) -> PlannedRows:
    """Return the counts of plans of data that are never held.

    Args:
        large: the data.
        seed: of the experiment.
    """

    def make(dcd: DcdSpec) -> PlanTally:
        who = large.selection
        return tally_batches(large.batches(), who.targets, who.num_classes, dcd, seed)

    return PlannedRows(large.train, make)


def rows_in_order(selection: Selection) -> pa.Table:
    """Return the rows in the order of the decoded images, so that plans have one fingerprint.

    Images that turn out to be unreadable are still among them.
    """
    from tasks.datasets.selection import ROW_ORDER

    parts = [selection.split(*names) for names in (("train", "test"), ("surrogate",))]
    return pa.concat_tables([part.sort_by(ROW_ORDER) for part in parts]).combine_chunks()


def tally_plan(
    rows: pa.Table,
    targets: Sequence[TargetClass],
    num_classes: int,
    dcd: DcdSpec,
    seed: int,
    batch: int = BATCH,
) -> PlanTally:
    """Plan rows a batch at a time, and add up what comes out; the plan itself is never held.

    Levers that let targets depend on each other are planned at once.

    Args:
        rows: a row table.
        targets: the classes under protection.
        num_classes: labels of the target classifier.
        dcd: the levers.
        seed: of the experiment.
        batch: rows at a time.

    Raises:
        TargetClassError, SurrogateError: as `make_plan` does.
    """
    try:
        check_independent(dcd, targets)
    except SpecError:
        tally = PlanTally(num_classes, [int(target.label) for target in targets])
        tally.add(make_plan(rows, targets, num_classes, dcd, seed))
        return tally
    return tally_batches(_cut(rows, batch), targets, num_classes, dcd, seed)


def tally_batches(
    batches: Iterable[pa.Table],
    targets: Sequence[TargetClass],
    num_classes: int,
    dcd: DcdSpec,
    seed: int,
) -> PlanTally:
    """Do the same for a row table that comes in batches, and is never held either.

    Raises:
        SpecError: a lever makes targets depend on each other.
        TargetClassError, SurrogateError: as `make_plan` does.
    """
    tally = PlanTally(num_classes, [int(target.label) for target in targets])
    with tempfile.TemporaryDirectory(prefix="dcd-plan-") as folder:
        parts = stream_plan(batches, targets, num_classes, dcd, seed, Path(folder))
        for part in parts:
            tally.add(part)
    return tally


def _cut(rows: pa.Table, batch: int) -> Iterator[pa.Table]:
    rows = rows.select([n for n in (*COLUMNS, "native") if n in rows.column_names])
    for start in range(0, rows.num_rows, batch):
        yield rows.slice(start, batch).combine_chunks()


def _bytes(name: str, column: pa.ChunkedArray) -> bytes:
    if pa.types.is_dictionary(column.type):
        # Parts may list the roles in another order, or not all of them.
        column = pc.index_in(column.cast(pa.string()), pa.array(ROLES)).cast(pa.int8())
    values: npt.NDArray[np.generic] = column.to_numpy()
    if name == "native":  # the sizes are the images' own; the plan is that they count
        values = np.asarray(values, np.uint32) > 0
    return values.tobytes()
