"""The plan of a fleet whose row table is never held: batches of rows in, tables of recipes out.

A bystander's recipe depends on its own row, so it leaves with its batch. A target's recipes depend
on its own rows and its lenders': which of them are mislabelled is a threshold on a hash of the row,
and the threshold is known when all rows of the class are. So these rows, and no others, are spilled
to files, one for a group of targets, and every group is planned alone once the last batch is read.
What comes out is `augment.plan.make_plan` of the whole table, row by row in the same order.

Memory: one batch, one group, what waits for the files, the targets themselves and 4 bytes a class;
it does not grow with the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from augment.plan import check_names, native_sizes, target_recipes
from augment.receivers import Receivers, named_receivers, receiving_classes
from augment.recipes import Recipes, plan_table
from augment.spec import DcdSpec
from tasks.errors import SpecError
from tasks.types import ROW_SCHEMA, TargetClass

COLUMNS = ("row_id", "identity", "label", "split")
"""Of the row table, what a plan needs; `native` is taken too where noise is drawn at that size."""

GROUP = 1024
"""Targets that are planned at once, and whose rows share a file."""

_AT = "position"
_SPILL_ROWS = 1 << 16


def stream_plan(
    batches: Iterable[pa.Table],
    targets: Sequence[TargetClass],
    num_classes: int,
    dcd: DcdSpec,
    seed: int,
    scratch: Path,
    *,
    group: int = GROUP,
) -> Iterator[pa.Table]:
    """Plan row batches; `source_row` counts over all of them.

    Args:
        batches: of the row table, in order; each with at least `COLUMNS`.
        targets: the classes under protection.
        num_classes: labels of the target classifier.
        dcd: the levers.
        seed: of the experiment.
        scratch: an empty folder for the rows of targets and lenders.
        group: targets that are planned at once.

    Yields:
        Tables of PLAN_SCHEMA; one after another they are the plan.

    Raises:
        SpecError: a lever makes targets depend on each other: no group can be planned alone.
        TargetClassError: as `make_plan` does.
        SurrogateError: as `make_plan` does.
    """
    check_independent(dcd, targets)
    check_names(dcd, targets)
    spill = _Spill(targets, num_classes, scratch, group)
    wanted, known = set(dcd.receivers or ()), dict[str, int]()
    start = 0
    try:
        for rows in batches:
            spill.take(rows, start)
            known |= _labels_of(rows, wanted - set(known))
            clean = spill.bystanders(rows)
            nobody = np.full(len(clean), -1, dtype=np.int64)
            labels = rows["label"].to_numpy()[clean]
            made = plan_table(
                [Recipes.plain("clean", nobody, clean, labels)], rows["row_id"].to_numpy(), (), seed
            )
            yield _moved(made, np.arange(start, start + rows.num_rows))
            start += rows.num_rows
    finally:
        spill.close()
    if not targets:
        return
    protected = {int(target.label) for target in targets}
    classes = (
        receiving_classes(num_classes, sorted(protected))
        if dcd.receivers is None
        else named_receivers(dcd.receivers, known, protected)
    )
    receivers = Receivers(classes, None, dealt=dcd.wrong_labels == "dealt")
    names = {target.identity for target in targets}
    for number, some in enumerate(spill.groups):
        rows = spill.read(number)
        parts = target_recipes(rows, some, receivers, num_classes, dcd, seed, names)
        row_ids = rows["row_id"].to_numpy()
        made = plan_table(parts, row_ids, some, seed, native_sizes(rows, dcd))
        yield _moved(made, rows[_AT].to_numpy())


class _Spill:
    """Rows of targets and of their lenders, in a file for each group of targets."""

    def __init__(
        self, targets: Sequence[TargetClass], num_classes: int, scratch: Path, group: int
    ) -> None:
        self.groups = [targets[i : i + group] for i in range(0, len(targets), group)]
        self._paths = [scratch / f"rows-{i:05d}.arrow" for i in range(len(self.groups))]
        self._files: list[pa.ipc.RecordBatchStreamWriter | None] = [None] * len(self.groups)
        self._schema: pa.Schema | None = None
        self._waiting: list[list[pa.Table]] = [[] for _ in self.groups]
        self._group_of = np.full(num_classes, -1, dtype=np.int32)
        lenders: dict[str, set[int]] = {}
        for number, some in enumerate(self.groups):
            for target in some:
                self._group_of[int(target.label)] = number
                for lender in target.lenders:
                    lenders.setdefault(lender.identity, set()).add(number)
        self._lenders = pa.array(list(lenders), pa.string())
        self._lent_to = [np.array(sorted(groups)) for groups in lenders.values()]

    def take(self, rows: pa.Table, start: int) -> None:
        """Keep the rows that plans of targets need."""
        labels = rows["label"].to_numpy()
        train = _split(rows, "train") & (labels >= 0)
        own = np.flatnonzero(train)
        groups = self._group_of[labels[own]]
        positions, groups = own[groups >= 0], groups[groups >= 0]
        pool = np.flatnonzero(_split(rows, "surrogate"))
        if len(pool) and len(self._lenders):
            codes = pc.index_in(rows["identity"].take(pa.array(pool)), self._lenders)
            found = pc.fill_null(codes, -1).to_numpy()
            lent = pool[found >= 0]
            to = [self._lent_to[code] for code in found[found >= 0]]
            positions = np.concatenate([positions, np.repeat(lent, [len(one) for one in to])])
            groups = np.concatenate([groups, *to])
        if not len(positions):
            return
        order = np.lexsort((positions, groups))
        positions, groups = positions[order], groups[order]
        kept = rows.take(pa.array(positions)).append_column(_AT, pa.array(positions + start))
        edges = np.flatnonzero(np.diff(groups)) + 1
        for a, b in zip([0, *edges], [*edges, len(groups)], strict=True):
            self._keep(int(groups[a]), kept.slice(a, b - a))

    def bystanders(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        """Return the training rows of nobody who is protected."""
        labels = rows["label"].to_numpy()
        plain = (labels < 0) | (self._group_of[np.maximum(labels, 0)] < 0)
        return np.flatnonzero(_split(rows, "train") & plain)

    def read(self, number: int) -> pa.Table:
        """Return the rows of a group, as they came; those of nobody are an empty table."""
        if not self._paths[number].exists():
            empty = pa.schema([ROW_SCHEMA.field(n) for n in COLUMNS]).empty_table()
            return empty.append_column(_AT, pa.array([], pa.int64()))
        with pa.memory_map(str(self._paths[number])) as file:
            rows = pa.ipc.open_stream(file).read_all()
        # A lender of several groups comes in the order of the groups; the table has its own.
        return rows.sort_by(_AT).combine_chunks()

    def close(self) -> None:
        """Write what waits."""
        for number, waiting in enumerate(self._waiting):
            if waiting:
                self._write(number)
        for file in self._files:
            if file is not None:
                file.close()

    def _keep(self, number: int, rows: pa.Table) -> None:
        waiting = self._waiting[number]
        waiting.append(rows)
        if sum(part.num_rows for part in waiting) >= _SPILL_ROWS:
            self._write(number)

    def _write(self, number: int) -> None:
        rows = pa.concat_tables(self._waiting[number]).combine_chunks()
        self._waiting[number] = []
        file = self._files[number]
        if file is None:
            file = pa.ipc.new_stream(str(self._paths[number]), rows.schema)
            self._files[number] = file
        file.write_table(rows)


def check_independent(dcd: DcdSpec, targets: Sequence[TargetClass]) -> None:
    """Refuse levers that make targets depend on each other.

    Raises:
        SpecError: no group of them can be planned alone.
    """
    if dcd.mode == "official":
        raise SpecError(
            "dcd.mode=official looks at all targets together, so it cannot be planned in batches; "
            "use dcd.mode=paper"
        )
    if dcd.max_received_fraction is not None:
        raise SpecError(
            f"dcd.max_received_fraction={dcd.max_received_fraction:g} makes targets share places, "
            "so it cannot be planned in batches; set it to null"
        )
    # What is thinned is numbered by role and copy, over all targets together.
    differ = len({len(target.decoys) for target in targets}) > 1 or bool(dcd.per_target)
    if dcd.max_inflation is not None and differ:
        raise SpecError(
            f"dcd.max_inflation={dcd.max_inflation:g} can be planned in batches only where all "
            "targets have the same levers and number of decoys; set it to null"
        )


def _moved(plan: pa.Table, positions: npt.NDArray[np.int64]) -> pa.Table:
    """Let `source_row` point into the whole table instead of into a part of it."""
    at = plan.schema.get_field_index("source_row")
    whole = pa.array(positions[plan["source_row"].to_numpy()])
    return plan.set_column(at, plan.schema.field(at), whole)


def _labels_of(rows: pa.Table, names: set[str]) -> dict[str, int]:
    if not names:
        return {}
    mine = rows.filter(pc.is_in(rows["identity"], pa.array(sorted(names), pa.string())))
    mine = mine.filter(pc.equal(mine["split"], "train"))
    pairs = zip(mine["identity"].to_pylist(), mine["label"].to_pylist(), strict=True)
    return {name: int(label) for name, label in pairs}


def _split(rows: pa.Table, name: str) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.equal(rows["split"], name).to_numpy(zero_copy_only=False), dtype=bool)
