"""A plan counted in batches says what the plan in memory says, the fingerprint included."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augment.plan import count_roles, make_plan, received
from augment.spec import DcdSpec, ProtectSpec
from orchestrator.large_data import large_data
from orchestrator.plan_tally import (
    PlanDigest,
    plan_digest,
    rows_in_order,
    tally_batches,
    tally_plan,
)
from orchestrator.planning import plan_summary
from orchestrator.selection import select
from orchestrator.spec import ExperimentSpec
from tasks.datasets.spec import BuiltinData
from tests.augment.test_stream_plan import RECIPES, ROWS, SHARED

LEVERS = RECIPES | {
    # No target of these can be planned alone, so they are planned at once.
    "official": DcdSpec(mode="official"),
    "places": DcdSpec(max_received_fraction=2.0),
}


@pytest.mark.parametrize("dcd", LEVERS.values(), ids=LEVERS)
@settings(max_examples=10, deadline=None)
@given(batch=st.integers(1, 120), seed=st.integers(0, 3), number=st.integers(0, 3))
def test_it_adds_up_to_the_plan_in_memory(dcd: DcdSpec, batch: int, seed: int, number: int) -> None:
    targets = SHARED[:number]
    if dcd.per_target:
        targets = SHARED
    if dcd.max_inflation is not None:
        targets = (SHARED[0], SHARED[2])[:number]
    plan = make_plan(ROWS, targets, 8, dcd, seed)
    found = tally_plan(ROWS, targets, 8, dcd, seed, batch)
    assert (found.rows, found.counts) == (plan.num_rows, count_roles(plan))
    assert found.fingerprint == plan_digest(plan)
    assert found.received == pytest.approx(received(plan, ROWS, 8).max(initial=0))


@settings(deadline=None)
@given(cuts=st.lists(st.integers(1, 40), max_size=6))
def test_a_fingerprint_does_not_depend_on_how_a_plan_is_cut(cuts: list[int]) -> None:
    plan, digest, start = make_plan(ROWS, SHARED, 8, DcdSpec(), 0), PlanDigest(), 0
    for length in [*cuts, plan.num_rows]:
        digest.add(plan.slice(start, length))
        start += length
    assert digest.value == plan_digest(plan)
    assert digest.value != plan_digest(plan.take(pa.array(range(plan.num_rows - 1, -1, -1))))
    other = make_plan(ROWS, SHARED, 8, DcdSpec(), 1)
    assert digest.value != plan_digest(other)


@settings(max_examples=15, deadline=None)
@given(
    targets=st.integers(0, 4),
    train=st.integers(2, 5),
    size=st.integers(1, 60),
    seed=st.integers(0, 2),
    decoys=st.integers(0, 1),
    twofold=st.booleans(),
)
def test_data_that_are_never_held_have_the_plan_of_the_table(
    targets: int, train: int, size: int, seed: int, decoys: int, twofold: bool
) -> None:
    data = BuiltinData(
        identities=6,
        train_images=train,
        test_images=1,
        surrogate_identities=12,
        surrogate_images=3,
        public_identities=3,
        public_images=1,
    )
    spec = ExperimentSpec(
        seed=seed,
        data=data,
        protect=ProtectSpec(targets=targets, surrogates="attribute-opposite", decoys=decoys),
        dcd=DcdSpec(preset="twofold" if twofold else None),
    )
    large = large_data(spec, least=0)
    assert large is not None
    held = select(spec)
    rows = rows_in_order(held)
    assert large.selection.targets == held.targets
    assert large.train + large.test + large.lent == rows.num_rows
    batches = pa.concat_tables(large.batches(size))
    names = ["row_id", "identity", "label", "split"]
    assert batches.select(names).to_pydict() == rows.select(names).to_pydict()
    number = held.num_classes
    whole = tally_plan(rows, held.targets, number, spec.dcd, seed)
    found = tally_batches(large.batches(size), held.targets, number, spec.dcd, seed)
    assert (found.fingerprint, found.counts) == (whole.fingerprint, whole.counts)
    assert found.received == whole.received


def test_what_has_to_be_looked_at_is_held() -> None:
    spec = ExperimentSpec(protect=ProtectSpec(surrogates="attribute-opposite"))
    assert large_data(spec) is None  # a few thousand rows
    assert large_data(spec, least=0) is not None
    for changes in (
        {"protect": ProtectSpec(surrogates="typical-opposite")},
        {"protect": ProtectSpec(surrogates="embedding-distant")},
        {"dcd": DcdSpec(mode="official")},
    ):
        assert large_data(spec.model_copy(update=changes), least=0) is None


def test_the_command_says_the_same_either_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = BuiltinData(identities=6, train_images=4, surrogate_identities=12, public_identities=3)
    spec = ExperimentSpec(
        storage=str(tmp_path),
        data=data,
        protect=ProtectSpec(targets=2, surrogates="attribute-opposite"),
    )
    held = plan_summary(spec)
    monkeypatch.setattr("orchestrator.large_data.large_data", lambda s: large_data(s, least=0))
    assert plan_summary(spec) == held
