"""Surrogates: opposite attributes, each used once, and clear refusals."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augment.assignment import Seats
from augment.surrogate import assign_surrogates, choose_targets
from tasks.datasets.builtin import builtin_rows
from tasks.datasets.spec import BuiltinData
from tasks.draws import Draws
from tasks.errors import SurrogateError, TargetClassError
from tasks.types import ROW_SCHEMA, IdentityId


def people(private: dict[str, list[str]], pool: dict[str, list[str]]) -> pa.Table:
    rows = [(n, label, "train", a) for label, (n, a) in enumerate(private.items())]
    rows += [(n, -1, "surrogate", a) for n, a in pool.items()]
    return pa.table(
        [
            pa.array(range(len(rows)), pa.int64()),
            pa.array([r[0] for r in rows]),
            pa.array([r[1] for r in rows], pa.int32()),
            pa.array([r[2] for r in rows]),
            pa.array(["nowhere"] * len(rows)),
            pa.array([r[3] for r in rows], pa.list_(pa.string())),
        ],
        schema=ROW_SCHEMA,
    )


ROWS = people(
    {"ann": ["dark_hair", "glasses"], "bob": ["beard"], "cem": []},
    {"x": ["dark_hair", "glasses"], "y": ["beard"], "z": ["dark_hair", "glasses", "beard"]},
)


def names(targets: list[str]) -> list[IdentityId]:
    return [IdentityId(name) for name in targets]


def test_the_most_different_person_lends_the_images() -> None:
    found = assign_surrogates(ROWS, names(["ann", "bob"]), "attribute-opposite", 3, 0)
    assert [(t.identity, t.surrogates[0].identity) for t in found] == [("ann", "y"), ("bob", "x")]
    assert [t.surrogates[0].label for t in found] == [4, 3]
    assert [t.label for t in found] == [0, 1]


def test_each_surrogate_serves_one_target() -> None:
    found = assign_surrogates(ROWS, names(["ann", "bob", "cem"]), "attribute-opposite", 3, 0)
    assert len({t.surrogates[0].identity for t in found}) == 3


def test_more_targets_than_surrogates_is_refused() -> None:
    rows = people({"ann": [], "bob": []}, {"x": []})
    with pytest.raises(SurrogateError, match="2 targets but only 1 surrogate identities"):
        assign_surrogates(rows, names(["ann", "bob"]), "attribute-opposite", 2, 0)


@pytest.mark.parametrize(
    ("listed", "sentence"),
    [
        ({"bob": "x"}, "no surrogate for target 'ann'"),
        ({"ann": "bob"}, "'bob', which is a private class"),
        ({"ann": "xx"}, "'xx', which is not in the surrogate pool"),
    ],
)
def test_bad_lists_are_refused(listed: dict[str, str], sentence: str) -> None:
    with pytest.raises(SurrogateError, match=sentence):
        assign_surrogates(ROWS, names(["ann"]), listed, 3, 0)


def test_a_list_is_followed_and_may_share_a_surrogate() -> None:
    found = assign_surrogates(ROWS, names(["ann", "bob"]), {"ann": "z", "bob": "z"}, 3, 0)
    assert [t.surrogates[0].label for t in found] == [3, 3]


def test_a_count_draws_targets_and_more_targets_keep_the_earlier_ones() -> None:
    three, two = choose_targets(ROWS, 3, 5), choose_targets(ROWS, 2, 5)
    assert set(two) < set(three)
    assert choose_targets(ROWS, 2, 5) == two


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (4, "protect.targets=4, but there are 3"),
        (("ann", "ana"), "'ana', which is not a private identity; did you mean 'ann'"),
        (("ann", "ann"), "names 'ann' twice"),
    ],
)
def test_bad_targets_are_refused(wanted: int | tuple[str, ...], sentence: str) -> None:
    with pytest.raises(TargetClassError, match=sentence):
        choose_targets(ROWS, wanted, 0)


def test_typical_people_are_preferred_and_no_target_goes_without() -> None:
    pool = ["x", "y", "z"]
    typical = {name: float(i) for i, name in enumerate(pool)}
    (found,) = assign_surrogates(ROWS, names(["ann"]), "typical-opposite", 3, 0, typical)
    assert found.surrogates[0].identity == "z"
    every = assign_surrogates(ROWS, names(["ann", "bob"]), "typical-opposite", 3, 0, typical)
    assert {one.surrogates[0].identity for one in every} == {"y", "z"}
    without = assign_surrogates(ROWS, names(["ann", "bob"]), "typical-opposite", 3, 0)
    assert without == assign_surrogates(ROWS, names(["ann", "bob"]), "attribute-opposite", 3, 0)


SMALL = BuiltinData(
    identities=12,
    train_images=2,
    test_images=1,
    surrogate_identities=30,
    surrogate_images=2,
    public_identities=2,
    public_images=1,
)


@pytest.mark.parametrize("seed", [0, 1, 1001])
def test_the_built_in_assignment_is_the_formula_that_results_were_measured_with(seed: int) -> None:
    rows = builtin_rows(SMALL, seed)
    targets = choose_targets(rows, 8, seed)
    typical = {f"surrogate-{i:05}": float((i * 37) % 30) for i in range(30)}
    found = assign_surrogates(rows, targets, "typical-opposite", 12, seed, typical)

    carried = dict(zip(rows["identity"].to_pylist(), rows["attributes"].to_pylist(), strict=True))
    pool = sorted(sorted(typical, key=typical.__getitem__, reverse=True)[:10])
    words = sorted({word for name in pool for word in carried[name]})
    has = np.array([[word in carried[name] for word in words] for name in pool])
    share = (has.sum(axis=0) + 1) / 12
    bits = -np.where(has, np.log2(share), np.log2(1 - share)).sum(axis=1)
    taken: list[str] = []
    for target in targets:
        own = np.array([word in carried[target] for word in words])
        score = (has != own) @ (4 * share * (1 - share)) - 0.5 * bits
        score += 1e-6 * Draws(seed, ("surrogate", target)).uniform(np.arange(10))[:, 0]
        taken.append(next(pool[i] for i in np.argsort(-score) if pool[i] not in taken))
    assert [one.surrogates[0].identity for one in found] == taken


@given(st.permutations(range(8)), st.integers(0, 7))
@settings(max_examples=40, deadline=None)
def test_order_does_not_matter_and_one_target_more_only_competes(
    order: list[int], left_out: int
) -> None:
    rows = builtin_rows(SMALL, 3)
    targets = choose_targets(rows, 8, 3)

    def lenders(some: list[IdentityId]) -> dict[str, str]:
        found = assign_surrogates(rows, some, "attribute-opposite", 12, 3)
        return {one.identity: one.surrogates[0].identity for one in found}

    everyone = lenders(targets)
    assert lenders([targets[i] for i in order]) == everyone
    fewer = lenders([name for i, name in enumerate(targets) if i != left_out])
    for name, before in fewer.items():
        if everyone[name] != before:  # somebody else has it now, and it was somebody served earlier
            assert before in {everyone[other] for other in everyone if other < name}
    assert not set(everyone.values()) & set(targets)


def test_sharing_needs_a_smaller_pool() -> None:
    rows = people({"ann": [], "bob": [], "cem": []}, {"x": ["beard"], "y": ["glasses"]})
    shared = Seats(1, 2)
    found = assign_surrogates(rows, names(["ann", "bob", "cem"]), "attribute-opposite", 3, 0,
                              seats=shared)  # fmt: skip
    load = Counter(one.surrogates[0].identity for one in found)
    assert sorted(load.values()) == [1, 2]
    typical = {"x": 1.0, "y": 0.0}
    (one,) = assign_surrogates(rows, names(["ann"]), "typical-opposite", 3, 0, typical)
    assert one.surrogates[0].identity == "x"
    two = assign_surrogates(
        rows, names(["ann", "bob"]), "typical-opposite", 3, 0, typical, seats=shared
    )
    assert {who.surrogates[0].identity for who in two} == {"x"}


def test_surrogates_come_first_and_decoys_behind_them() -> None:
    found = assign_surrogates(
        ROWS, names(["ann"]), "attribute-opposite", 3, 0, seats=Seats(3), decoys=2
    )
    assert [len(found[0].surrogates), len(found[0].decoys)] == [1, 2]
    assert found[0].surrogates[0].identity == "y"
    assert {who.identity for who in found[0].lenders} == {"x", "y", "z"}
    assert sorted(who.label for who in found[0].lenders) == [3, 4, 5]
