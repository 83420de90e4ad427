"""Opposite in attributes: weights, rarity, contrasts with their fallbacks, and clear refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from augment.opposites import attribute_flags, opposite_arrays
from augment.surrogate import assign_surrogates
from augment.surrogate_spec import Contrast, OppositeSpec
from tasks.errors import SurrogateError
from tasks.types import ROW_SCHEMA, IdentityId

CELEBA = OppositeSpec(preset="celeba")
NAMES = ["Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Smiling"]


def rows_of(people: list[tuple[str, int, str, list[str]]]) -> pa.Table:
    columns = [
        range(len(people)),
        [p[0] for p in people],
        [p[1] for p in people],
        [p[2] for p in people],
        [""] * len(people),
        [p[3] for p in people],
    ]
    arrays = [pa.array(c, type=f.type) for c, f in zip(columns, ROW_SCHEMA, strict=True)]
    return pa.table(arrays, schema=ROW_SCHEMA)


def flags(people: list[set[str]]) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    return np.array([[name in one for name in NAMES] for one in people], dtype=np.bool_)


def celeba_rank(target: set[str], surrogate: set[str]) -> int:
    """Say which of the released code's three tries would take this pair, 0 for the first."""
    other_gender = ("Male" in target) != ("Male" in surrogate)
    dark = "Black_Hair" in target or "Brown_Hair" in target
    if other_gender and ("Blond_Hair" in surrogate) == dark:
        return 0
    return 1 if other_gender else 2


def test_the_published_rule_for_celeba_ranks_every_pair_as_its_fallbacks_do() -> None:
    people = [set(some) for k in range(6) for some in itertools.combinations(NAMES, k)]
    wishes, offers = opposite_arrays(flags(people), flags(people), NAMES, CELEBA)
    score = wishes @ offers.T
    rank = np.array([[celeba_rank(t, s) for s in people] for t in people])
    levels = [sorted(set(score[rank == r].tolist())) for r in (0, 1, 2)]
    assert [len(level) for level in levels] == [1, 1, 1]
    assert levels[0] > levels[1] > levels[2]


def test_fallbacks_serve_those_for_whom_nobody_opposite_is_left() -> None:
    people = [("anna", 0, "train", ["Black_Hair"]), ("berta", 1, "train", ["Brown_Hair"])]
    people += [("cora", 2, "train", ["Blond_Hair"])]
    people += [("x", -1, "surrogate", ["Male", "Blond_Hair"]), ("y", -1, "surrogate", ["Male"])]
    people += [("z", -1, "surrogate", ["Black_Hair"])]
    targets = [IdentityId(name) for name in ("anna", "berta", "cora")]
    found = assign_surrogates(rows_of(people), targets, "attribute-opposite", 3, 0, opposite=CELEBA)
    assert [one.surrogates[0].identity for one in found] == ["x", "y", "z"]


@given(
    st.lists(st.sets(st.sampled_from(NAMES)), min_size=1, max_size=6),
    st.lists(st.sets(st.sampled_from(NAMES)), min_size=1, max_size=6),
    st.dictionaries(st.sampled_from(NAMES), st.integers(1, 9), min_size=1),
)
def test_weights_count_the_attributes_in_which_two_differ(
    targets: list[set[str]], pool: list[set[str]], weights: dict[str, int]
) -> None:
    rule = OppositeSpec(weights=weights, rarity=0)
    every = targets + pool + [set(NAMES)]  # so that every attribute is there
    wishes, offers = opposite_arrays(flags(targets), flags([*pool, set(NAMES)]), NAMES, rule)
    assert len(every) > len(targets)
    score = (wishes.astype(np.float64) @ offers.astype(np.float64).T)[:, :-1]
    differ = [[sum(weights.get(n, 0) for n in t ^ s) for s in pool] for t in targets]
    # Up to a number for each target, and a unit that all share.
    expected = np.array(differ, dtype=np.float64)
    expected -= expected[:, :1]
    score -= score[:, :1]
    unit = score[expected != 0] / expected[expected != 0]
    assert np.allclose(unit, unit[:1])
    assert (unit > 0).all()
    assert (score[expected == 0] == 0).all()


def test_what_is_rare_is_held_back() -> None:
    pool = [{"Male"}] * 6 + [set()] * 5 + [{"Smiling"}]
    wishes, offers = opposite_arrays(flags([set()]), flags(pool), NAMES, OppositeSpec())
    assert int(np.argmax(wishes @ offers.T)) < 6
    keen = OppositeSpec(rarity=0, weights={"Smiling": 1.0})
    wishes, offers = opposite_arrays(flags([set()]), flags(pool), NAMES, keen)
    assert int(np.argmax(wishes @ offers.T)) == 11


def test_products_are_whole_numbers_that_float32_holds() -> None:
    rng = np.random.default_rng(0)
    some = rng.random((200, 5)) < 0.3
    rule = OppositeSpec(steps=[["Male", "Smiling"], ["Male"], ["Smiling"]])
    wishes, offers = opposite_arrays(some, some, NAMES, rule)
    assert np.array_equal(wishes, np.rint(wishes))
    assert np.array_equal(offers, np.rint(offers))
    assert (np.abs(wishes).astype(np.float64) @ np.abs(offers).T.astype(np.float64)).max() < 2**24


def test_an_identity_has_what_most_of_its_pictures_show() -> None:
    people = [("a", 0, "train", ["Male"])] * 2 + [("a", 0, "train", ["Smiling"])]
    people += [("b", -1, "surrogate", [])]
    found, names = attribute_flags(rows_of(people), ["b", "a"])
    assert names == ["Male", "Smiling"]
    assert found.tolist() == [[False, False], [True, False]]


def test_contrasts_are_read() -> None:
    assert Contrast.parse("Male") == (("Male",), ("Male",), True)
    assert Contrast.parse("A | B -> C") == (("A", "B"), ("C",), False)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"steps": [["A -> "]]}, "is no contrast; write an attribute"),
        ({"steps": [[""]]}, "is no contrast"),
        ({"steps": [[]]}, "a step has 0 contrasts; use 1 to 6"),
        ({"weights": {}}, "weights is an empty mapping; name attributes"),
        ({"weights": {"Male": -1}}, "greater than 0"),
    ],
)
def test_rules_that_cannot_be_read_are_refused(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        OppositeSpec.model_validate(given)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"weights": {"Mal": 1}}, "the attribute 'Mal', which nobody has; did you mean 'Male'"),
        ({"steps": [["Smilling"]]}, "'Smilling', which nobody has; did you mean 'Smiling'"),
    ],
)
def test_unknown_attributes_are_refused(given: dict[str, object], sentence: str) -> None:
    rule = OppositeSpec.model_validate(given)
    with pytest.raises(SurrogateError, match=sentence):
        opposite_arrays(flags([set()]), flags([{"Male"}]), NAMES, rule)


def test_a_rule_needs_attributes() -> None:
    nothing = np.zeros((2, 0), dtype=np.bool_)
    with pytest.raises(SurrogateError, match="carries no attributes; use protect.surrogates=emb"):
        opposite_arrays(nothing, nothing, [], CELEBA)
    wishes, _ = opposite_arrays(nothing, nothing, [], OppositeSpec())
    assert not wishes[:, :-1].any()
