"""A plan counted in batches says what the plan in memory says, the fingerprint included."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augment.plan import count_roles, make_plan, received
from augment.spec import DcdSpec
from orchestrator.plan_tally import PlanDigest, plan_digest, tally_plan
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
