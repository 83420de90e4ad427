"""Surrogates: opposite attributes, each used once, and clear refusals."""

from __future__ import annotations

import pyarrow as pa
import pytest

from augment.surrogate import assign_surrogates, choose_targets
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
