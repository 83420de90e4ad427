"""A plan of batches is the plan of the whole table, however it is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augment.plan import make_plan
from augment.spec import DcdSpec
from augment.stream_plan import stream_plan
from tasks.errors import SpecError, SurrogateError, TargetClassError
from tasks.types import ClassId, IdentityId, Lender, TargetClass
from tests.augment.test_plan import row_table, target

ROWS = row_table(8, 9, pool=4, lent=7)
SHARED = (
    target(2),
    TargetClass(
        ClassId(5),
        IdentityId("p5"),
        (Lender(IdentityId("s2"), 102), Lender(IdentityId("s3"), 103)),
        (Lender(IdentityId("s0"), 100),),
    ),
    target(0, 1),
)
RECIPES = {
    "published": DcdSpec(),
    "copies": DcdSpec(target_copies=2, surrogate_copies=3, surrogate_count="all"),
    "drawn": DcdSpec(wrong_labels="drawn", mislabel_fraction=0.5),
    "thin": DcdSpec(max_inflation=2.5),
    "receivers": DcdSpec(receivers=("p1", "p3")),
    "one alone": DcdSpec.model_validate({"per_target": {"p5": {"mislabel_fraction": 0.7}}}),
    "native": DcdSpec(noise_resolution="native"),
}


def cut(rows: pa.Table, batch: int) -> list[pa.Table]:
    return [rows.slice(i, batch) for i in range(0, rows.num_rows, batch)]


@pytest.mark.parametrize("dcd", RECIPES.values(), ids=RECIPES)
@settings(max_examples=8, deadline=None)
@given(batch=st.integers(1, 120), group=st.integers(1, 4), seed=st.integers(0, 3), data=st.data())
def test_it_is_the_plan_of_the_whole_table(
    tmp_path_factory: pytest.TempPathFactory,
    dcd: DcdSpec,
    batch: int,
    group: int,
    seed: int,
    data: st.DataObject,
) -> None:
    targets = SHARED if dcd.max_inflation is None else (SHARED[0], SHARED[2])
    order = data.draw(st.permutations(range(ROWS.num_rows)))
    rows = ROWS.take(pa.array(order))
    scratch = tmp_path_factory.mktemp("rows")
    parts = list(stream_plan(cut(rows, batch), targets, 8, dcd, seed, scratch, group=group))
    found = pa.concat_tables(parts).combine_chunks()
    assert found.equals(make_plan(rows, targets, 8, dcd, seed).combine_chunks())


def test_without_targets_it_is_the_training_set(tmp_path: Path) -> None:
    found = pa.concat_tables(stream_plan(cut(ROWS, 10), (), 8, DcdSpec(), 0, tmp_path))
    assert np.array_equal(found["source_row"], make_plan(ROWS, (), 8, DcdSpec(), 0)["source_row"])
    assert list(tmp_path.iterdir()) == []


def test_what_the_whole_plan_refuses_is_refused(tmp_path: Path) -> None:
    def plan(*targets: TargetClass, dcd: DcdSpec | None = None) -> None:
        list(stream_plan(cut(ROWS, 10), targets, 8, dcd or DcdSpec(), 0, tmp_path))

    with pytest.raises(SurrogateError, match=r"surrogate 's9' of 'p1' has no images"):
        plan(target(1, 9))
    protected = TargetClass(ClassId(1), IdentityId("p1"), (Lender(IdentityId("p2"), 100),))
    with pytest.raises(SurrogateError, match=r"surrogate 'p2' of 'p1' is itself protected"):
        plan(protected, target(2))
    with pytest.raises(TargetClassError, match=r"dcd.receivers names 'p9', which is not a private"):
        plan(target(1), dcd=DcdSpec(receivers=("p9",)))
    with pytest.raises(TargetClassError, match=r"dcd.per_target names 'p3', which is not a target"):
        plan(target(1), dcd=DcdSpec.model_validate({"per_target": {"p3": {}}}))
    with pytest.raises(SpecError, match=r"dcd.mode=official looks at all targets together"):
        plan(target(1), dcd=DcdSpec(mode="official"))
    with pytest.raises(SpecError, match=r"max_inflation=2 can be planned in batches only where"):
        plan(*SHARED, dcd=DcdSpec(max_inflation=2))
    with pytest.raises(SpecError, match=r"max_received_fraction=0.5 makes targets share places"):
        plan(target(1), dcd=DcdSpec(max_received_fraction=0.5))
