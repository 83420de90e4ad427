"""The pool: held out of the private identities, or drawn; nobody is class and lender at once."""

from __future__ import annotations

import pyarrow.compute as pc
import pytest

from augment.pool import hold_back, hold_out, with_pool
from tasks.datasets.builtin import builtin_rows, surrogate_rows
from tasks.datasets.spec import BuiltinData
from tasks.errors import SurrogateError

SPEC = BuiltinData(
    identities=9,
    train_images=3,
    test_images=2,
    surrogate_identities=4,
    surrogate_images=2,
    public_identities=2,
    public_images=1,
)
ROWS = builtin_rows(SPEC, 5)


def test_held_out_identities_lend_and_the_others_are_counted_again() -> None:
    rows = hold_out(ROWS, 3, ["private-00000"], 5).to_pandas()
    lent = set(rows[rows.split == "surrogate"].identity)
    assert len(lent) == 3
    assert all(name.startswith("private-") for name in lent)
    assert "private-00000" not in lent
    left = rows[rows.label >= 0]
    assert not lent & set(left.identity)
    assert sorted(set(left.label)) == list(range(6))
    assert left.sort_values("label").identity.is_monotonic_increasing
    assert (rows[rows.split == "surrogate"].label == -1).all()
    assert len(rows[rows.split == "surrogate"]) == 9  # their test images are nobody's
    assert (rows.split == "public").sum() == 2
    assert set(rows.row_id) <= set(ROWS["row_id"].to_pylist())


def test_holding_out_more_keeps_those_held_out_before() -> None:
    def lent(count: int) -> set[str]:
        rows = hold_out(ROWS, count, [], 5).to_pandas()
        return set(rows[rows.split == "surrogate"].identity)

    assert lent(2) < lent(3)


@pytest.mark.parametrize(
    ("count", "named", "sentence"),
    [
        (8, [], "pool_identities=8 cannot be held out of 9 private .* hold out at most 7"),
        (3, [f"private-{i:05}" for i in range(7)], "7 of them named as targets; .* at most 2"),
    ],
)
def test_too_many_held_out_are_refused(count: int, named: list[str], sentence: str) -> None:
    with pytest.raises(SurrogateError, match=sentence):
        hold_out(ROWS, count, named, 5)


def test_drawn_faces_replace_the_pool() -> None:
    drawn = surrogate_rows(3, 2, 5)
    rows = with_pool(ROWS, drawn).to_pandas()
    lent = rows[rows.split == "surrogate"]
    assert sorted(set(lent.identity)) == ["surrogate-00000", "surrogate-00001", "surrogate-00002"]
    assert set(lent.source) == {f"builtin:surrogate/{i}/{j}" for i in range(3) for j in range(2)}
    same = ROWS.to_pandas()
    same = same[same.split == "surrogate"]
    assert set(lent.row_id) <= set(same.row_id)  # those of the built-in data
    assert (rows.split != "surrogate").sum() == (ROWS.to_pandas().split != "surrogate").sum()


def test_what_is_held_back_is_a_share_of_each_lender_and_stays_when_others_come() -> None:
    rows = surrogate_rows(6, 10, 0)
    some = hold_back(rows, 0.25, 0)
    back = some.filter(pc.equal(some["split"], "held-out"))
    counts = back.group_by("identity").aggregate([("row_id", "count")])["row_id_count"]
    assert counts.to_pylist() == [2] * 6
    more = hold_back(surrogate_rows(9, 10, 0), 0.25, 0)
    again = more.filter(pc.equal(more["split"], "held-out"))["row_id"].to_pylist()
    assert set(back["row_id"].to_pylist()) < set(again)
    assert hold_back(rows, 0.05, 0).equals(rows)  # less than one image of ten
