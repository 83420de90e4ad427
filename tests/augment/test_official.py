"""Parity with the released code: counts and labels worked out here, apart from the product."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from augment.plan import count_roles, make_plan
from augment.spec import DcdSpec
from tasks.types import TargetClass
from tests.augment.test_plan import by_role, row_table, target

OFFICIAL = DcdSpec.model_validate({"preset": "official"})


def plan_of(
    dcd: DcdSpec, *, classes: int = 400, train: int = 27, lent: int = 13, targets: int = 2
) -> tuple[pa.Table, pa.Table, list[TargetClass]]:
    rows = row_table(classes, train, lent=lent)
    chosen = [target(label) for label in range(targets)]
    return make_plan(rows, chosen, classes, dcd, 0), rows, chosen


def own_labels(plan: pa.Table, rows: pa.Table, role: str) -> tuple[np.ndarray, np.ndarray]:
    part = by_role(plan, role)
    return part["label"], rows["label"].to_numpy()[part["source_row"]]


def test_counts_are_those_of_the_released_code() -> None:
    # With 400 classes, a stray into the other target is one in 400 a draw; seed 0 has none, which
    # is checked, so that the counts can be written down from the rules alone.
    plan, rows, _ = plan_of(OFFICIAL)
    given, own = own_labels(plan, rows, "mislabelled")
    assert not set(given.tolist()) & {0, 1}
    n, wrong = 27, math.floor(0.2 * 27)
    repeats = math.ceil((13 + 13) / (5 * 2))
    assert count_roles(plan) == {
        "clean": 398 * n + 2 * (n - wrong),
        "mislabelled": 2 * wrong,
        "target_noise": 2 * (n - wrong),  # what was mislabelled gets no noisy copy
        "surrogate": 2 * 5 * repeats,
        "surrogate_noise": 2 * 5 * repeats,
        "decoy": 0,
        "decoy_mislabelled": 0,
    }
    assert np.bincount(own, minlength=2)[:2].tolist() == [wrong, wrong]
    assert np.all(given != own)
    noisy, of = own_labels(plan, rows, "target_noise")
    assert np.all(noisy != of)  # pi2 = 1: every noisy copy


def test_the_second_fraction_is_rounded_down_too() -> None:
    dcd = OFFICIAL.model_copy(update={"curvature_mislabel_fraction": 0.5})
    plan, rows, _ = plan_of(dcd)
    noisy, own = own_labels(plan, rows, "target_noise")
    for label in (0, 1):
        assert np.count_nonzero(own == label) == 22
        assert np.count_nonzero((own == label) & (noisy != label)) == 11


def test_five_pictures_of_a_surrogate_repeat() -> None:
    plan, rows, targets = plan_of(OFFICIAL, lent=23)
    part = by_role(plan, "surrogate")
    identities = rows["identity"].to_numpy(zero_copy_only=False)[part["source_row"]]
    for one in targets:
        mine = part["label"] == one.label
        assert set(identities[mine]) == {one.surrogates[0].identity}
        times = np.unique(part["source_row"][mine], return_counts=True)[1]
        assert times.tolist() == [math.ceil(46 / 10)] * 5
    assert len(set(plan["recipe_id"].to_pylist())) == plan.num_rows


def test_sigmas_are_fixed_and_noise_is_truncated() -> None:
    dcd = OFFICIAL.model_copy(update={"target_sigma": 0.2})
    plan, _, _ = plan_of(dcd)
    for role, sigma in (("target_noise", 8 / 255), ("surrogate_noise", 0.003)):
        part = by_role(plan, role)
        assert part["sigma"] == pytest.approx(sigma)
        assert part["truncate"].all()
    for role in ("clean", "mislabelled", "surrogate"):
        assert not by_role(plan, role)["truncate"].any()


def test_no_surrogate_noise_takes_the_targets_away_too() -> None:
    plan, _, _ = plan_of(OFFICIAL.model_copy(update={"surrogate_sigma": 0.0}))
    assert count_roles(plan)["target_noise"] == 0
    assert count_roles(plan)["surrogate_noise"] == 0


def test_strays_among_protected_classes_are_carried_on() -> None:
    # Two classes, both protected: every mislabel lands on the other target, as there.
    plan, rows, _ = plan_of(OFFICIAL, classes=2, train=20)
    given, own = own_labels(plan, rows, "mislabelled")
    assert np.all(given == 1 - own)
    # Class 0: 4 of 20 leave for class 1, which then has 24 and loses 4 of them to class 0; a row
    # that goes back home is clean again. All rows carry a protected label, so all are copied.
    left = np.bincount(own, minlength=2)
    back = 4 - left[0]
    assert left.sum() == 4 + 4 - 2 * back
    assert count_roles(plan)["target_noise"] == 40
