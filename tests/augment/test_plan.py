"""The plan: counts and labels by role, and whose recipe depends on what."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augment.plan import count_roles, inflation, make_plan
from augment.receivers import receiving_classes
from augment.recipes import PLAN_SCHEMA
from augment.spec import DcdSpec
from tasks.errors import SurrogateError, TargetClassError
from tasks.types import ROW_SCHEMA, ClassId, IdentityId, Lender, TargetClass


def row_table(classes: int, train: int, test: int = 2, pool: int = 3, lent: int = 10) -> pa.Table:
    """A row table of `classes` private identities and `pool` surrogate ones."""
    rows = []
    for label in range(classes):
        for image in range(train + test):
            split = "train" if image < train else "test"
            rows.append((label * 1000 + image, f"p{label}", label, split))
    for person in range(pool):
        rows += [(10**6 + person * 1000 + i, f"s{person}", -1, "surrogate") for i in range(lent)]
    return pa.table(
        [
            pa.array([r[0] for r in rows], pa.int64()),
            pa.array([r[1] for r in rows]),
            pa.array([r[2] for r in rows], pa.int32()),
            pa.array([r[3] for r in rows]),
            pa.array(["nowhere"] * len(rows)),
            pa.array([[]] * len(rows), pa.list_(pa.string())),
        ],
        schema=ROW_SCHEMA,
    )


def target(label: int, surrogate: int | None = None) -> TargetClass:
    lent = label if surrogate is None else surrogate
    return TargetClass(
        ClassId(label), IdentityId(f"p{label}"), (Lender(IdentityId(f"s{lent}"), 100 + lent),)
    )


def by_role(plan: pa.Table, role: str) -> dict[str, np.ndarray]:
    chosen = plan.filter(pa.compute.equal(plan["role"], role))
    return {name: chosen[name].to_numpy(zero_copy_only=False) for name in plan.column_names}


fractions = st.floats(0, 1, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(
    train=st.integers(2, 30),
    lent=st.integers(1, 40),
    protected=st.integers(0, 3),
    mislabel=st.floats(0, 0.5),
    curvature=fractions,
    copies=st.integers(0, 3),
    seed=st.integers(0, 2**31 - 1),
)
def test_counts_by_role_follow_from_the_levers(
    train: int, lent: int, protected: int, mislabel: float, curvature: float, copies: int, seed: int
) -> None:
    rows = row_table(5, train, lent=lent)
    dcd = DcdSpec(
        mislabel_fraction=mislabel,
        curvature_mislabel_fraction=curvature,
        target_copies=copies,
        surrogate_copies=copies,
    )
    if protected and round(mislabel * train) >= train:
        return
    targets = [target(label) for label in range(protected)]
    plan = make_plan(rows, targets, 5, dcd, seed)
    wrong = round(mislabel * train)
    assert plan.schema == PLAN_SCHEMA
    assert count_roles(plan) == {
        "clean": 5 * train - protected * wrong,
        "mislabelled": protected * wrong,
        "target_noise": protected * copies * train,
        "surrogate": protected * train,
        "surrogate_noise": protected * copies * train,
        "decoy": 0,
        "decoy_mislabelled": 0,
    }
    assert len(set(plan["recipe_id"].to_pylist())) == plan.num_rows
    labels = rows["label"].to_numpy()
    source = plan["source_row"].to_numpy()
    splits = rows["split"].to_numpy(zero_copy_only=False)[source]
    assert not np.any(splits == "test")

    for role in ("mislabelled", "target_noise"):
        part = by_role(plan, role)
        moved = part["label"] != labels[part["source_row"]]
        expected = wrong if role == "mislabelled" else copies * round(curvature * train)
        assert np.count_nonzero(moved) == protected * expected
        assert np.all(part["label"][moved] >= protected)  # bystanders receive, never a target
    lent_rows = by_role(plan, "surrogate")
    for one in targets:
        own = lent_rows["label"] == one.label
        identities = rows["identity"].to_numpy(zero_copy_only=False)[lent_rows["source_row"][own]]
        assert set(identities) <= {one.surrogates[0].identity}
        used = np.unique(lent_rows["source_row"][own], return_counts=True)[1]
        if protected:
            assert used.max() - used.min() <= 1  # repeated evenly where there are too few


def test_without_targets_the_plan_is_the_training_set() -> None:
    rows = row_table(3, 4)
    plan = make_plan(rows, [], 3, DcdSpec(), 0)
    labels = rows["label"].to_numpy()[plan["source_row"].to_numpy()]
    assert plan.num_rows == 12
    assert np.array_equal(labels, plan["label"].to_numpy())
    assert set(plan["role"].to_pylist()) == {"clean"}
    assert inflation(plan, rows, []) == 1.0


def test_fractions_of_zero_leave_every_label_of_the_target_right() -> None:
    rows = row_table(4, 10)
    dcd = DcdSpec(mislabel_fraction=0, curvature_mislabel_fraction=0)
    plan = make_plan(rows, [target(1)], 4, dcd, 0)
    for role in ("clean", "target_noise"):
        part = by_role(plan, role)
        assert np.array_equal(part["label"], rows["label"].to_numpy()[part["source_row"]])
    assert count_roles(plan)["mislabelled"] == 0


def test_protecting_one_more_identity_changes_nobody_elses_recipe() -> None:
    rows = row_table(6, 12)

    def of(plan: pa.Table, label: int) -> list[dict[str, object]]:
        mine = np.isin(rows["label"].to_numpy()[plan["source_row"].to_numpy()], [label])
        return sorted(plan.filter(pa.array(mine)).to_pylist(), key=lambda row: row["recipe_id"])

    one = make_plan(rows, [target(1)], 6, DcdSpec(), 3)
    two = make_plan(rows, [target(2), target(1)], 6, DcdSpec(), 3)
    drop = ("label",)  # receivers are dealt from the bystanders, who are fewer now
    plain = [[{k: v for k, v in r.items() if k not in drop} for r in of(p, 1)] for p in (one, two)]
    assert plain[0] == plain[1]
    assert of(one, 5) == of(two, 5)


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = row_table(4, 9)
    order = np.random.default_rng(0).permutation(rows.num_rows)
    shuffled = rows.take(pa.array(order))

    def content(table: pa.Table) -> list[tuple[object, ...]]:
        plan = make_plan(table, [target(0), target(2)], 4, DcdSpec(), 7)
        ids = table["row_id"].to_numpy()[plan["source_row"].to_numpy()]
        columns = [plan[name].to_pylist() for name in ("recipe_id", "label", "role", "seed")]
        return sorted(zip(ids.tolist(), *columns, strict=True))

    assert content(rows) == content(shuffled)


def test_noise_seeds_differ_between_copies_and_experiments() -> None:
    rows = row_table(3, 8)
    dcd = DcdSpec(target_copies=2)
    seeds = by_role(make_plan(rows, [target(0)], 3, dcd, 1), "target_noise")["seed"]
    others = by_role(make_plan(rows, [target(0)], 3, dcd, 2), "target_noise")["seed"]
    assert len(set(seeds)) == 16
    assert not set(seeds) & set(others)


def test_inflation_is_the_papers_factor_four_with_its_recipe() -> None:
    rows = row_table(5, 10)
    plan = make_plan(rows, [target(0), target(1)], 5, DcdSpec(), 0)
    assert inflation(plan, rows, [target(0), target(1)]) == 4.0


@pytest.mark.parametrize(("count", "expected"), [("match", 12), ("all", 5), (7, 7)])
def test_surrogate_count(count: str | int, expected: int) -> None:
    rows = row_table(3, 12, lent=5)
    dcd = DcdSpec.model_validate({"surrogate_count": count})
    assert count_roles(make_plan(rows, [target(0)], 3, dcd, 0))["surrogate"] == expected


def test_every_class_protected_lets_mislabels_go_to_other_targets() -> None:
    assert receiving_classes(3, [0, 1, 2]).tolist() == [0, 1, 2]
    rows = row_table(3, 10)
    plan = make_plan(rows, [target(i) for i in range(3)], 3, DcdSpec(), 0)
    part = by_role(plan, "mislabelled")
    assert np.all(part["label"] != rows["label"].to_numpy()[part["source_row"]])


def test_a_surrogate_that_is_a_target_is_refused() -> None:
    bad = TargetClass(ClassId(0), IdentityId("p0"), (Lender(IdentityId("p1"), 3),))
    with pytest.raises(SurrogateError, match="'p1' of 'p0' is itself protected"):
        make_plan(row_table(3, 5), [bad, target(1)], 3, DcdSpec(), 0)


def test_a_surrogate_without_images_is_refused() -> None:
    with pytest.raises(SurrogateError, match="'s9' of 'p0' has no images"):
        make_plan(row_table(3, 5), [target(0, surrogate=9)], 3, DcdSpec(), 0)


def test_a_target_with_one_image_is_refused() -> None:
    with pytest.raises(TargetClassError, match="'p0' has 1 training image; at least 2"):
        make_plan(row_table(3, 1), [target(0)], 3, DcdSpec(), 0)


def test_a_mislabel_fraction_that_leaves_no_clean_image_is_refused() -> None:
    with pytest.raises(
        TargetClassError, match=r"leaves none under its own label; use at most 0\.80"
    ):
        make_plan(row_table(3, 5), [target(0)], 3, DcdSpec(mislabel_fraction=1), 0)
