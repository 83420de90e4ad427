"""The levers beyond the published recipe: steps, receivers, budgets, decoys, single targets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from augment.plan import count_roles, inflation, make_plan, received
from augment.spec import PRESETS, DcdSpec
from tasks.errors import TargetClassError
from tasks.types import IdentityId, Lender, TargetClass
from tests.augment.test_plan import by_role, row_table, target


def dcd(**changes: Any) -> DcdSpec:
    return DcdSpec.model_validate(changes)


def plan_of(spec: DcdSpec, rows: pa.Table, *targets: TargetClass, classes: int = 6) -> pa.Table:
    return make_plan(rows, targets or [target(0)], classes, spec, 0)


@pytest.mark.parametrize(
    ("left_out", "roles"),
    [
        ("injection", {"clean", "mislabelled", "target_noise"}),
        ("loss", {"clean", "surrogate", "surrogate_noise", "target_noise"}),
        ("curvature", {"clean", "mislabelled", "surrogate"}),
    ],
)
def test_each_step_can_be_left_out(left_out: str, roles: set[str]) -> None:
    steps = [step for step in ("injection", "loss", "curvature") if step != left_out]
    counts = count_roles(plan_of(dcd(steps=steps), row_table(6, 10)))
    assert {role for role, count in counts.items() if count} == roles


def test_presets_are_settings() -> None:
    assert dcd(preset="published") == dcd().model_copy(update={"preset": "published"})
    half = dcd(preset="twofold")
    assert (half.mislabel_fraction, half.target_copies) == (0.4, 0)
    assert dcd(preset="twofold", mislabel_fraction=0.3).mislabel_fraction == 0.3
    rows = row_table(6, 10)
    assert inflation(plan_of(half, rows), rows, [target(0)]) == 2.0
    for name in PRESETS:  # what is written down and read again is the same
        spec = dcd(preset=name)
        assert DcdSpec.model_validate(spec.model_dump(mode="json")) == spec


def test_a_target_may_have_its_own_levers() -> None:
    rows = row_table(6, 10)
    spec = dcd(per_target={"p1": {"mislabel_fraction": 0.5, "target_copies": 3}})
    plan = plan_of(spec, rows, target(0), target(1))
    labels = rows["label"].to_numpy()
    for role, counts in (("mislabelled", (2, 5)), ("target_noise", (10, 30))):
        own = labels[by_role(plan, role)["source_row"]]
        assert tuple(np.bincount(own, minlength=2)) == counts

    def of_the_other(plan: pa.Table) -> list[dict[str, Any]]:
        mine = pa.array(labels[plan["source_row"].to_numpy()] == 0)
        return list(plan.filter(mine).to_pylist())

    assert of_the_other(plan) == of_the_other(plan_of(dcd(), rows, target(0), target(1)))


def test_levers_for_somebody_who_is_no_target_are_refused() -> None:
    with pytest.raises(TargetClassError, match="'p00', which is not a target; did you mean 'p0'"):
        plan_of(dcd(per_target={"p00": {"target_copies": 0}}), row_table(6, 10))


def test_named_receivers_get_all_wrong_labels() -> None:
    rows = row_table(6, 10)
    plan = plan_of(dcd(receivers=["p4", "p2"]), rows)
    own = rows["label"].to_numpy()[plan["source_row"].to_numpy()]
    given_ = plan["label"].to_numpy()
    lent = own < 0
    assert set(given_[(given_ != own) & ~lent]) == {2, 4}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["p9"], "'p9', which is not a private identity"),
        (["p0"], "'p0', which is itself protected"),
    ],
)
def test_receivers_that_cannot_receive_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(TargetClassError, match=message):
        plan_of(dcd(receivers=names), row_table(6, 10))
    with pytest.raises(ValidationError, match="receivers is an empty list"):
        dcd(receivers=[])


def test_drawn_labels_are_uneven_and_dealt_ones_are_not() -> None:
    rows = row_table(11, 50, lent=50)
    for how in ("dealt", "drawn"):
        plan = plan_of(dcd(wrong_labels=how, surrogate_count=0), rows, classes=11)
        got = np.bincount(by_role(plan, "target_noise")["label"], minlength=11)[1:]
        assert got.sum() == 50
        assert (got.max() == got.min()) == (how == "dealt")


@settings(max_examples=40, deadline=None)
@given(
    protected=st.integers(1, 3),
    limit=st.floats(0.05, 3),
    how=st.sampled_from(["dealt", "drawn"]),
    seed=st.integers(0, 999),
)
def test_no_class_receives_more_than_its_limit(
    protected: int, limit: float, how: str, seed: int
) -> None:
    rows = row_table(6, 10)
    spec = dcd(max_received_fraction=limit, wrong_labels=how)
    targets = [target(label) for label in range(protected)]
    places = (6 - protected) * int(limit * 10 + 1e-12)
    try:
        plan = make_plan(rows, targets, 6, spec, seed)
    except TargetClassError as error:
        assert places < 12 * protected  # 2 mislabelled and 10 noisy ones each  # noqa: PT017
        assert "places are left" in str(error)  # noqa: PT017
        return
    assert places >= 12 * protected
    assert received(plan, rows, 6).max() <= limit
    assert count_roles(plan)["target_noise"] == 10 * protected


@settings(max_examples=40, deadline=None)
@given(budget=st.floats(1, 5), copies=st.integers(0, 3), train=st.integers(2, 30))
def test_the_inflation_budget_is_kept_and_used(budget: float, copies: int, train: int) -> None:
    rows = row_table(6, train)
    spec = dcd(max_inflation=budget, target_copies=copies, mislabel_fraction=0)
    whole = count_roles(plan_of(spec.model_copy(update={"max_inflation": None}), rows))
    plan = plan_of(spec, rows)
    found = count_roles(plan)
    assert found["clean"] == whole["clean"]  # what is the target's own stays
    full = 1 + copies + 2
    factor = inflation(plan, rows, [target(0)])
    assert factor <= budget + 1e-9
    assert factor >= min(budget, full) - (copies + 3) / train  # rounded down once for each part
    if budget >= full:
        assert found == whole


def test_several_surrogates_share_the_number() -> None:
    rows = row_table(6, 11, pool=3)
    three = replace(
        target(0), surrogates=tuple(Lender(IdentityId(f"s{i}"), 6 + i) for i in range(3))
    )
    part = by_role(plan_of(dcd(), rows, three), "surrogate")
    identities = rows["identity"].to_numpy(zero_copy_only=False)[part["source_row"]]
    assert sorted(np.unique(identities, return_counts=True)[1].tolist()) == [3, 4, 4]


def test_decoys_carry_the_targets_own_mislabel_rate() -> None:
    rows = row_table(6, 20, lent=30)
    with_decoys = replace(
        target(0), decoys=(Lender(IdentityId("s1"), 7), Lender(IdentityId("s2"), 8))
    )
    plan = plan_of(dcd(mislabel_fraction=0.4), rows, with_decoys)
    counts = count_roles(plan)
    assert (counts["decoy"], counts["decoy_mislabelled"]) == (24, 16)
    named, hidden = by_role(plan, "decoy"), by_role(plan, "decoy_mislabelled")
    assert set(named["label"]) == {0}
    assert 0 not in set(hidden["label"])
    identities = rows["identity"].to_numpy(zero_copy_only=False)
    for name in ("s1", "s2"):
        assert np.count_nonzero(identities[hidden["source_row"]] == name) == 8
    assert len(set(plan["recipe_id"].to_pylist())) == plan.num_rows


def test_a_surrogate_that_serves_two_targets_has_recipes_for_each() -> None:
    rows = row_table(6, 10)
    plan = plan_of(dcd(), rows, target(0, surrogate=1), target(2, surrogate=1))
    assert len(set(plan["recipe_id"].to_pylist())) == plan.num_rows
    assert len(set(by_role(plan, "surrogate_noise")["seed"])) == 20


@pytest.mark.parametrize(("distinct", "expected"), [(5, 5), (None, 10), (99, 10)])
def test_distinct_surrogates(distinct: int | None, expected: int) -> None:
    rows = row_table(6, 20, lent=10)
    part = by_role(plan_of(dcd(distinct_surrogates=distinct), rows), "surrogate")
    assert len(part["source_row"]) == 20
    assert len(set(part["source_row"])) == expected


def test_records_name_nobody() -> None:
    spec = dcd(receivers=["p4"], per_target={"alice": {"target_copies": 0}})
    assert "alice" not in str(spec.public())
    assert "p4" not in str(spec.public())


def test_noise_at_the_files_size_takes_the_size_where_it_is_known() -> None:
    rows = row_table(6, 10)
    spec = dcd(noise_resolution="native")
    noisy = {"target_noise", "surrogate_noise"}
    for table, expected in (
        (rows, 1),
        (rows.append_column("native", pa.array([77] * rows.num_rows, pa.uint32())), 77),
    ):
        plan = plan_of(spec, table)
        sizes = dict.fromkeys(
            zip(plan["role"].to_pylist(), plan["native"].to_pylist(), strict=True)
        )
        assert all(size == (expected if role in noisy else 0) for role, size in sizes)
    assert set(plan_of(dcd(), rows)["native"].to_pylist()) == {0}
