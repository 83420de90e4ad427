"""Surrogates by hand: files are read, followed, and refused where they cannot be."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augment.assignment import Seats
from augment.surrogate import assign_surrogates
from augment.surrogate_list import read_surrogate_list
from tasks.errors import MissingDataError, SurrogateError
from tasks.types import IdentityId
from tests.augment.test_embeddings import PEOPLE

PAIRS = {"target": ["a", "b", "a"], "surrogate": ["x", "x", "y"], "why": ["1", "2", "3"]}


def test_csv_and_parquet_say_the_same(tmp_path: Path) -> None:
    pq.write_table(pa.table(PAIRS), tmp_path / "l.parquet")
    (tmp_path / "l.csv").write_text("why,surrogate,target\n1,x,a\n2,x,b\n3,y,a\n")
    expected = {"a": ("x", "y"), "b": ("x",)}
    assert read_surrogate_list(tmp_path / "l.parquet") == expected
    assert read_surrogate_list(tmp_path / "l.csv") == expected


def test_names_that_look_like_numbers_stay_names(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("target,surrogate\n007,0100\n")
    assert read_surrogate_list(tmp_path / "l.csv") == {"007": ("0100",)}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("target,lender\na,x\n", "cannot be read; write a .csv or .parquet file with the columns"),
        ("", "cannot be read"),
        ("target,surrogate\na,\n", "has a row without a name; fill it in or delete it"),
        ("target,surrogate\na,x\na,x\n", "gives 'a' the surrogate 'x' twice"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(SurrogateError, match=sentence):
        read_surrogate_list(tmp_path / "l.csv")
    (tmp_path / "l.parquet").write_text(text)
    with pytest.raises(SurrogateError, match="cannot be read"):
        read_surrogate_list(tmp_path / "l.parquet")


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"does not exist; name a .csv or .parquet file"):
        read_surrogate_list(tmp_path / "l.csv")


def test_several_are_surrogates_first_and_decoys_behind() -> None:
    listed = {"a": ("z", "x", "y")}
    (found,) = assign_surrogates(PEOPLE, [IdentityId("a")], listed, 3, 0, seats=Seats(3), decoys=2)
    assert [who.identity for who in found.surrogates] == ["z"]
    assert [who.identity for who in found.decoys] == ["x", "y"]
    assert [who.label for who in found.lenders] == [5, 3, 4]


@pytest.mark.parametrize("names", [("x",), ("x", "x"), ("x", "y", "z")])
def test_a_list_has_as_many_as_are_asked_for(names: tuple[str, ...]) -> None:
    with pytest.raises(SurrogateError, match=r"for target 'a' .* ask for 2; list so many diff"):
        assign_surrogates(PEOPLE, [IdentityId("a")], {"a": names}, 3, 0, seats=Seats(2))
