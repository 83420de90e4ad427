"""Embeddings: the farthest is found, files are read, and what is missing or broken is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augment.assignment import Seats
from augment.embeddings import Embedding, distant_arrays, read_embedding, write_embedding
from augment.surrogate import assign_surrogates
from augment.typicality import pixel_embedding, typicality
from tasks.errors import MissingDataError, SurrogateError
from tasks.types import IdentityId
from tests.augment.test_opposites import rows_of


def embedding(vectors: dict[str, list[float]]) -> Embedding:
    return Embedding(pa.array(list(vectors)), np.array(list(vectors.values()), np.float32))


PEOPLE = rows_of(
    [(name, label, "train", list[str]()) for label, name in enumerate("abc")]
    + [(name, -1, "surrogate", list[str]()) for name in "wxyz"]
)
PLANE = embedding(
    {"a": [0, 0], "b": [1, 0], "c": [9, 0], "w": [8, 1], "x": [2, 0], "y": [-3, 0], "z": [5, 5]}
)


def served(targets: str, of: Embedding = PLANE, **changes: Seats) -> dict[str, str]:
    names = [IdentityId(name) for name in targets]
    found = assign_surrogates(PEOPLE, names, "embedding-distant", 3, 0, embedding=of, **changes)  # type: ignore[arg-type]
    return {one.identity: "".join(who.identity for who in one.surrogates) for one in found}


def test_each_gets_the_farthest_that_is_free() -> None:
    assert served("abc") == {"a": "w", "b": "z", "c": "y"}
    assert served("abc", seats=Seats(1, 2)) == {"a": "w", "b": "w", "c": "y"}
    assert served("ab", seats=Seats(2, 2)) == {"a": "wz", "b": "wz"}


@given(st.permutations("abc"), st.permutations("abcwxyz"))
@settings(deadline=None)
def test_the_order_of_targets_and_of_the_file_does_not_matter(
    targets: list[str], names: list[str]
) -> None:
    at = PLANE.of(names, "all")
    turned = Embedding(pa.array(names), PLANE.vectors[at])
    assert served("".join(targets), turned) == {"a": "w", "b": "z", "c": "y"}


@given(
    st.lists(
        st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=2, max_size=9
    )
)
def test_products_order_by_distance_and_float32_holds_them(vectors: list[list[float]]) -> None:
    whole = np.array(vectors, np.float32)
    rows = np.arange(len(whole))
    found = Embedding(pa.array([str(i) for i in rows]), whole)
    wishes, offers = distant_arrays(found, rows, rows)
    assert np.array_equal(wishes, np.rint(wishes))
    assert (np.abs(wishes).astype(float) @ np.abs(offers).T.astype(float)).max() < 2**24
    squares = (wishes[:, :-2].astype(float) ** 2).sum(axis=1) / 4
    distance = np.sqrt(np.maximum(wishes.astype(float) @ offers.T + squares[:, None], 0))
    true = np.linalg.norm(whole[:, None].astype(float) - whole[None], axis=2)
    unit = distance.max() / true.max() if true.max() else 0.0
    # Rounded to a grid of at least 1 in 1024 of the longest vector, in 3 columns.
    assert np.allclose(distance, true * unit, atol=4)


@pytest.mark.parametrize("suffix", [".parquet", ".npy"])
def test_files_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"people{suffix}"
    if suffix == ".npy":
        kind = np.dtype([("identity", "U8"), ("vector", np.float64, (2,))])
        pairs = zip(PLANE.identities.to_pylist(), PLANE.vectors, strict=True)
        np.save(path, np.array([(name, vector) for name, vector in pairs], dtype=kind))
    else:
        write_embedding(PLANE, path)
    found = read_embedding(path)
    assert found.identities.to_pylist() == PLANE.identities.to_pylist()
    assert np.array_equal(found.vectors, PLANE.vectors)


def test_lists_of_any_parquet_are_read(tmp_path: Path) -> None:
    table = pa.table({"vector": [[1, 2], [3, 4]], "identity": ["a", "b"], "more": [0, 0]})
    pq.write_table(table, tmp_path / "e.parquet", row_group_size=1)
    assert read_embedding(tmp_path / "e.parquet").vectors.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"identity": ["a"], "vectors": [[1.0]]}, "is not an embedding; write Parquet with"),
        ({"identity": ["a", "b"], "vector": [[1.0], [1.0, 2.0]]}, "is not an embedding"),
        ({"identity": ["a", "b"], "vector": [[1.0], None]}, "is not an embedding"),
        ({"identity": ["a"], "vector": ["text"]}, "is not an embedding"),
        ({"identity": [], "vector": []}, "is not an embedding"),
        ({"identity": ["a", "a"], "vector": [[1.0], [2.0]]}, "has 'a' twice; keep one vector"),
    ],
)
def test_files_of_another_form_are_refused(
    tmp_path: Path, table: dict[str, list[object]], sentence: str
) -> None:
    path = tmp_path / "e.parquet"
    pq.write_table(pa.table(table), path)
    with pytest.raises(SurrogateError, match=sentence):
        read_embedding(path)


@pytest.mark.parametrize("name", ["e.parquet", "e.npy"])
def test_files_that_are_no_tables_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingDataError, match="does not exist; name a .parquet or .npy file"):
        read_embedding(tmp_path / name)
    (tmp_path / name).write_bytes(b"a letter")
    with pytest.raises(SurrogateError, match="is not an embedding"):
        read_embedding(tmp_path / name)


def test_a_plain_array_has_no_names(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", PLANE.vectors)
    with pytest.raises(SurrogateError, match=r"or .npy with these two fields"):
        read_embedding(tmp_path / "e.npy")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_named(bad: float) -> None:
    vectors = PLANE.vectors.copy()
    vectors[4, 1] = bad
    with pytest.raises(SurrogateError, match="vector of 'x' has a value that is not a finite"):
        served("abc", Embedding(PLANE.identities, vectors))


@pytest.mark.parametrize(
    ("left", "sentence"),
    [
        ("abcwx", "no vector for 2 of 4 of the pool, such as 'y'; add them, or choose another"),
        ("acwxyz", "no vector for 1 of 3 targets, such as 'b'"),
    ],
)
def test_an_embedding_without_somebody_is_refused(left: str, sentence: str) -> None:
    at = PLANE.of(left, "all")
    with pytest.raises(SurrogateError, match=sentence):
        served("abc", Embedding(pa.array(list(left)), PLANE.vectors[at]))


def test_pixels_are_the_components_that_typicality_measures() -> None:
    rng = np.random.default_rng(0)
    public = rng.integers(0, 256, (80, 16, 16, 3)).astype(np.uint8)
    pool = rng.integers(0, 256, (9, 16, 16, 3)).astype(np.uint8)
    names = ["x", "y", "z"] * 3
    found = pixel_embedding(public, pool, names)
    typical = typicality(public, pool, names)
    for name, vector in zip(found.identities.to_pylist(), found.vectors, strict=True):
        assert -float((vector.astype(float) ** 2).sum()) == pytest.approx(typical[name], abs=1e-2)
    flat = np.full((10, 16, 16, 3), 90, np.uint8)
    assert pixel_embedding(flat, flat, ["a", "b"] * 5).vectors.tolist() == [[0], [0]]
