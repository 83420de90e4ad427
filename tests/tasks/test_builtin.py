"""The built-in data set: its rows, their stability, and the pixels behind a source."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tasks.datasets.builtin import TEST_FIRST, builtin_rows, render_rows
from tasks.datasets.spec import BuiltinData
from tasks.errors import DataError
from tasks.types import ROW_SCHEMA

SMALL = BuiltinData(
    identities=3,
    train_images=4,
    test_images=2,
    surrogate_identities=2,
    surrogate_images=3,
    public_identities=5,
    public_images=2,
)


def test_rows_have_the_schema_the_counts_and_the_labels() -> None:
    rows = builtin_rows(SMALL, seed=4)
    assert rows.schema == ROW_SCHEMA
    counts = pc.value_counts(rows["split"]).to_pylist()
    assert {c["values"]: c["counts"] for c in counts} == {
        "train": 12,
        "test": 6,
        "surrogate": 6,
        "public": 10,
    }
    private = rows.filter(pc.is_in(rows["split"], pa.array(["train", "test"])))
    assert set(private["label"].to_pylist()) == {0, 1, 2}
    outside = rows.filter(pc.is_in(rows["split"], pa.array(["surrogate", "public"])))
    assert set(outside["label"].to_pylist()) == {-1}
    assert set(private["identity"].to_pylist()).isdisjoint(outside["identity"].to_pylist())
    assert private["identity"][0].as_py() == "private-00000"
    assert len(set(rows["row_id"].to_pylist())) == rows.num_rows


def test_larger_counts_add_rows_and_change_none() -> None:
    small = builtin_rows(SMALL, seed=4)
    large = builtin_rows(
        SMALL.model_copy(update={"identities": 5, "train_images": 9, "public_images": 3}), seed=4
    )
    rows = {row["row_id"]: row for row in large.to_pylist()}
    assert all(rows[row["row_id"]] == row for row in small.to_pylist())


def test_a_seed_changes_private_and_surrogate_faces_but_not_the_public_ones() -> None:
    rows = builtin_rows(SMALL, seed=4)
    sources = rows["source"].to_pylist()
    one, two = render_rows(sources, 4, 16), render_rows(sources, 5, 16)
    public = np.array([source.startswith("builtin:public/") for source in sources])
    np.testing.assert_array_equal(one[public], two[public])
    differs = (one[~public] != two[~public]).any(axis=(1, 2, 3))
    assert differs.all()


def test_sources_render_in_any_order_and_mixture() -> None:
    sources = builtin_rows(SMALL, seed=4)["source"].to_pylist()
    order = np.random.default_rng(0).permutation(len(sources))
    whole = render_rows(sources, 4, 16)
    np.testing.assert_array_equal(render_rows([sources[i] for i in order], 4, 16), whole[order])
    assert render_rows([], 4, 16).shape == (0, 16, 16, 3)


@pytest.mark.parametrize(
    "source",
    ["", "builtin:private/3", "builtin:nobody/3/4", "file:///tmp/a.png", "builtin:private/-1/0"],
)
def test_a_source_that_is_no_built_in_face_is_an_error(source: str) -> None:
    with pytest.raises(DataError, match="is no built-in face"):
        render_rows(["builtin:private/0/0", source], 4, 16)


def test_more_images_than_can_be_numbered_are_an_error() -> None:
    with pytest.raises(DataError, match=f"use at most {TEST_FIRST}"):
        builtin_rows(SMALL.model_copy(update={"train_images": TEST_FIRST + 1}), seed=0)
